"""Rewards of ranking answers, as plain functions in the form that TRL's trainers call.

What is scored is the assistant's turn alone: `opening + completion`, where the opening is what of that turn the prompt
already holds. The prompt's own tags and identifiers never count.

How outputs are read, and what counts as an identifier, says `answer_protocol`. Unless a function says otherwise, the
answer is what stands strictly inside the last closed answer block after the last `</think>` (anywhere, where no thought
was closed), where inference looks too; a block that is not closed or holds white space alone is not an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.answers import identifiers
from r1ranker_ir.training.data.ranking_measures import (
    average_overlap,
    ndcg,
    rank_biased_overlap,
    recall,
    reciprocal_rank,
)

from .answer_protocol import answer_after_thought, closed_answer, format_term, tag_term, written_identifiers
from .grades import LIST_REWARDS
from .judged import judged_reward
from .promotion import PROMOTION_REWARDS
from .rows import Completion, Components, RewardFunction, RewardRow, reference_of, reward, whole_outputs

_RANKING_CUTOFF = 20
_MULTI_VIEW_CUTOFF = 10
_VIEW_WEIGHTS = MappingProxyType({"permutation": 0.0, "recall": 0.2, "rbo": 0.1})


def format_reward(
    completions: Sequence[Completion], opening: Sequence[str | None] | None = None, **kwargs: object
) -> list[float | None]:
    """f = 0 for one thought and then one answer, else f = −1, whatever the strategy (R1-Ranker, arXiv 2506.21638).

    The output, stripped, must be exactly `<think>…</think>`, at most white space, `<answer>…</answer>`, and hold each
    of the four tags once. What the blocks hold does not matter.
    """
    return [format_term(output) for output in whole_outputs(completions, opening)]


def tag_count_reward(
    completions: Sequence[Completion], opening: Sequence[str | None] | None = None, **kwargs: object
) -> list[float | None]:
    """t = −0.25 for each of the four tags that does not occur exactly once, whatever the strategy (R1-Ranker)."""
    return [tag_term(output) for output in whole_outputs(completions, opening)]


@reward("worst", "exclusion")
def exclusion_reward(row: RewardRow) -> Components:
    """Scores the exclusion of one candidate: right as long as the positive stays; from −3 to 1.

    R = e + f + t, with f and t as in `format_reward` and `tag_count_reward`, and e =
    1 where the answer names a candidate that is not the positive,
    0 where it names the positive,
    −0.5 where it names no candidate of the prompt: the stripped answer is anything but one identifier, such as `[9]` of
    three, a bare `2`, two identifiers, the same one twice, or text around one,
    −1 where there is no answer.

    The positive is the candidate of the greatest gain shown; with several of that gain, excluding any of them scores 0.
    Where no candidate has a gain, every exclusion is right.

    This is the exclusion reward of IRanker (R1-Ranker, arXiv 2506.21638) on the response alone: the published reward
    manager scores the prompt as well, whose tags bring a perfect answer down to −0.5. The published code
    (ulab-uiuc/IRanker, `verl/utils/reward_score/exclusion_reward.py`) differs in more. Its f and t know a tag only with
    white space beside it, which costs up to 2; its f allows further tags inside the blocks, and text on a new line
    behind the answer, but no white space before the thought. An empty block is −0.5. Its answer is the last block, in a
    thought as well, from the first `<answer>` still open, and its first line is compared with the candidates' texts.
    """
    return _exclusion(row, lambda excluded: 0.0 if excluded == max(row.gains) > 0 else 1.0)


@reward("worst", "exclusion_graded")
def exclusion_reward_graded(row: RewardRow) -> Components:
    """Scores the exclusion of one candidate by how little is lost with it; from −3 to 1.

    As `exclusion_reward`, but for a candidate e = (max − gain) / (max − min) over the gains shown; 1 where all gains
    are equal. With one positive among candidates of one other gain it is the published reward.
    """
    best, worst = max(row.gains), min(row.gains)
    return _exclusion(row, lambda excluded: 1.0 if best == worst else (best - excluded) / (best - worst))


@reward("order", "ranking")
def ranking_reward(row: RewardRow) -> Components:
    """Scores an order of all candidates by nDCG@20 and by how many of them it names; from −3 to 1.

    R = (|matched| / |C| − 1) + nDCG@20 + f + t, with f and t as in `format_reward` and `tag_count_reward`, C the
    candidates and `matched` those that the answer names. The order is that of the identifiers in the answer; whatever
    stands between them does not matter. A candidate counts where it is named first; a repeat, and an identifier of no
    candidate, takes up a place and gains nothing. Naming the positive alone so scores 1 / |C| and not 1.

    nDCG is graded where the gains are: with one positive it is 1 / log2(rank + 1), the published form; without any 0.

    This is the reward of DRanker (R1-Ranker, arXiv 2506.21638), on the response alone and on identifiers. The published
    code (ulab-uiuc/IRanker, `verl/utils/reward_score/ranking_reward.py`) matches the characters of the answer's first
    line with titles, and moves what stands behind a repeat or a foreign name up a place. Its f, its t and where it
    finds the answer differ as in `exclusion_reward`.
    """
    names = written_identifiers(closed_answer(row.output))
    matched = len(set(names).intersection(identifiers(len(row.gains))))
    gain = ndcg(_ranked_gains(names, row.gains), row.gains, _RANKING_CUTOFF)
    return {"coverage": matched / len(row.gains) - 1, "ndcg": gain, **_form(row)}


@reward("order", "ranking_mrr")
def ranking_reward_mrr(row: RewardRow) -> Components:
    """Scores an order by the place of the positive and by whether it is an order of these candidates; from −3 to 1.

    R = RR + s + f + t, with f and t as in `format_reward` and `tag_count_reward`. RR is 1 / rank of the positive, which
    is the first candidate of the greatest gain that the answer names; 0 where it names none or no candidate has a gain.
    s = |A ∩ C| / |A ∪ C| − 1 is the penalty for a wrong set, with A the different identifiers that the answer names and
    C those of the prompt. Places are counted as in `ranking_reward`.

    After R1-Ranker, third version, summarised there as MRR plus a penalty for a wrong set; its form, f and t are ours.
    """
    names = written_identifiers(closed_answer(row.output))
    named, offered = set(names), set(identifiers(len(row.gains)))
    rank = reciprocal_rank(_ranked_gains(names, row.gains), max(row.gains))
    return {"reciprocal_rank": rank, "set": len(named & offered) / len(named | offered) - 1, **_form(row)}


@reward("best")
def setwise_reward(row: RewardRow) -> Components:
    """Scores the choice of the best candidate: 1 if it is named, else 0.

    R = 1 if the output holds a thought and right after it an answer which, stripped, equals the identifier of a
    candidate of the greatest gain, else 0. Read as published: the first place where `<think>`, anything, `</think>`,
    white space and `<answer>` follow each other counts, up to the next `</answer>`; the rest of the output does not
    matter. Where no candidate has a gain, all of them are best.

    From Rank-R1 (arXiv 2503.06034; ielab/llm-rankers, `Rank-R1/train_grpo.py`), which compares with one label.
    """
    return {"outcome": float(_named_gain(row, answer_after_thought(row.output)) == max(row.gains))}


@reward("best")
def setwise_reward_graded(row: RewardRow) -> Components:
    """Scores the choice of the best candidate by the gain of the one that is named.

    As `setwise_reward`, but R = gain / max for any candidate named; 1 where no candidate has a gain.
    """
    chosen, best = _named_gain(row, answer_after_thought(row.output)), max(row.gains)
    return {"outcome": 0.0 if chosen is None else chosen / best if best > 0 else 1.0}


@reward("order", "multi_view", _VIEW_WEIGHTS)
def multi_view_reward(row: RewardRow) -> Components:
    """Scores an order from three sides: nDCG, recall and likeness to a reference order; from −1 to 1.3.

    R = −1 where the output holds no thought with an answer right after it (found as in `setwise_reward`); 0 where the
    answer's identifiers are not exactly those of the prompt, each once; else nDCG@10 + 0.2 · Recall@10 + 0.1 · RBO.

    nDCG is graded where the gains are, Recall@10 is the share of the candidates with a gain above 0 in the first ten
    places, and RBO is the extrapolated rank-biased overlap with the reference, p = 0.9: the first ten places carry 86%
    of the weight. The reference is the column `reference_order` (positions, best first), else the order of the gains:
    that rewards keeping candidates of one gain in the prompt's order, so shuffle them when the samples are made.

    From ReasonRank (arXiv 2508.07050), with graded gains.
    """
    return _views(row, row.gains, rank_biased_overlap)


@reward("order", "multi_view_overlap", _VIEW_WEIGHTS)
def multi_view_reward_overlap(row: RewardRow) -> Components:
    """Scores an order from three sides as ReasonRank's training code does; from −1 to 1.3.

    As `multi_view_reward`, but every gain above 0 counts as 1, and the likeness to the reference is the average overlap
    of the two orders: the code (8421BCD/ReasonRank, `verl/verl/utils/reward_score/ranking.py`) leaves p at its
    library's default of 1, which means that.

    Unlike there, the answer must be a permutation of the identifiers in brackets, and other numbers do not matter. The
    code takes every run of digits for an identifier, foreign ones as well, and wants as many as there are candidates.
    """
    return _views(row, [float(gain > 0) for gain in row.gains], average_overlap)


REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {
        "exclusion": exclusion_reward,
        "exclusion_graded": exclusion_reward_graded,
        "ranking": ranking_reward,
        "ranking_mrr": ranking_reward_mrr,
        "format": format_reward,
        "tag_count": tag_count_reward,
        "setwise": setwise_reward,
        "setwise_graded": setwise_reward_graded,
        "multi_view": multi_view_reward,
        "multi_view_overlap": multi_view_reward_overlap,
        **LIST_REWARDS,
        **PROMOTION_REWARDS,
    }
)
"""The rewards by the names that recipes use."""


OPENED_REWARDS: Mapping[str, Callable[[Any], RewardFunction]] = MappingProxyType({"judged": judged_reward})
"""Rewards that a training's configuration says more about, by name."""


def find_reward(name: str, config: Any = None) -> RewardFunction:
    """Finds a reward by the name that recipes use; `config` is the training's, for those that depend on it."""
    if name in OPENED_REWARDS:
        return OPENED_REWARDS[name](config)
    if name not in REWARDS:
        raise InputError(f"reward {name!r} is unknown: use one of {', '.join((*REWARDS, *OPENED_REWARDS))}")
    return REWARDS[name]


def _form(row: RewardRow) -> Components:
    return {"format": format_term(row.output), "tags": tag_term(row.output)}


def _exclusion(row: RewardRow, outcome: Callable[[float], float]) -> Components:
    answer = closed_answer(row.output)
    excluded = _named_gain(row, answer)
    value = -1.0 if answer is None else -0.5 if excluded is None else outcome(excluded)
    return {"outcome": value, **_form(row)}


def _named_gain(row: RewardRow, answer: str | None) -> float | None:
    """The gain of the candidate whose identifier an answer is."""
    return dict(zip(identifiers(len(row.gains)), row.gains, strict=True)).get((answer or "").strip())


def _views(row: RewardRow, gains: Sequence[float], likeness: Callable[[list[int], Sequence[int]], float]) -> Components:
    """The components of a multi-view reward, the row's own gains replaced."""
    reference, answer = reference_of(row), answer_after_thought(row.output)
    positions = {identifier: position for position, identifier in enumerate(identifiers(len(gains)))}
    names = written_identifiers(answer)
    if len(names) != len(positions) or set(names) != set(positions):
        return {"format": -1.0 if answer is None else 0.0, "permutation": 0.0, "ndcg": 0.0, "recall": 0.0, "rbo": 0.0}
    order = [positions[name] for name in names]
    ranked_gains = [gains[position] for position in order]
    return {
        "format": 0.0,
        "permutation": 1.0,
        "ndcg": ndcg(ranked_gains, gains, _MULTI_VIEW_CUTOFF),
        "recall": recall(ranked_gains, gains, _MULTI_VIEW_CUTOFF),
        "rbo": likeness(order, reference),
    }


def _ranked_gains(names: Sequence[str], gains: Sequence[float]) -> list[float]:
    """The gain at each place of an answer; 0 for a repeat and for what is not a candidate."""
    left = dict(zip(identifiers(len(gains)), gains, strict=True))
    return [left.pop(name, 0.0) for name in names]
