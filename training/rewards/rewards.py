"""Rewards of ranking answers, as plain functions in the form that TRL's trainers call.

A function gets one entry a completion in every argument and returns one number a completion, or `None` for a row of a
strategy that is not its own. What is scored is the assistant's turn alone: `opening + completion`, where the opening is
what of that turn the prompt already holds. The prompt's own tags and identifiers never count.

How outputs are read, and what counts as an identifier, says `answer_protocol`. Unless a function says otherwise, the
answer is what stands strictly inside the last closed answer block after the last `</think>` (anywhere, where no thought
was closed), the place where inference looks too; a block that is not closed or holds white space alone is no answer.

The components of a sum are handed to `log_metric` as `rewards/<registered name>/<component>`, each as its mean over the
rows that the call scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

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
from .rows import (
    Completion,
    Components,
    LogMetric,
    RewardRow,
    reference_orders,
    rows_to_score,
    score_rows,
    whole_outputs,
)

RewardFunction = Callable[..., list[float | None]]

_RANKING_CUTOFF = 20
_MULTI_VIEW_CUTOFF = 10
_VIEW_WEIGHTS = MappingProxyType({"permutation": 0.0, "recall": 0.2, "rbo": 0.1})


def format_reward(
    completions: Sequence[Completion],
    opening: Sequence[str | None] | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Tells whether the whole output is one thought and then one answer.

    f = 0 if the output, stripped, is exactly `<think>…</think>`, at most white space, `<answer>…</answer>`, and holds
    each of the four tags once; else f = −1. What the blocks hold does not matter here.

    Source: R1-Ranker, arXiv 2506.21638, the f of its rewards.
    """
    return [format_term(output) for output in whole_outputs(completions, opening)]


def tag_count_reward(
    completions: Sequence[Completion],
    opening: Sequence[str | None] | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Takes a quarter for each of the four tags that does not occur exactly once.

    t = −0.25 · |{tag : it occurs not at all or more than once}|.

    Source: R1-Ranker, arXiv 2506.21638, the t of its rewards.
    """
    return [tag_term(output) for output in whole_outputs(completions, opening)]


def exclusion_reward(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    log_metric: LogMetric | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores the exclusion of one candidate: right as long as the positive stays.

    R = e + f + t, with f and t as in `format_reward` and `tag_count_reward`, and e =
    1 where the answer names a candidate that is not the positive,
    0 where it names the positive,
    −0.5 where it names no candidate of the prompt: the stripped answer is anything but one identifier, such as `[9]` of
    three, a bare `2`, two identifiers, the same one twice, or text around one,
    −1 where there is no answer.

    The positive is the candidate of the greatest gain shown; with several of that gain, excluding any of them scores 0.
    Where no candidate has a gain, there is no positive and every exclusion is right.

    Source: R1-Ranker, arXiv 2506.21638, the exclusion reward of IRanker, on the response alone. (The published reward manager scores the prompt as well, whose tags then bring a perfect answer down to −0.5.) The published code (ulab-uiuc/IRanker, `verl/utils/reward_score/exclusion_reward.py`) differs in more: - Its f and t know a tag only with white space beside it: behind an opening one, before a closing one, and a line break between thought and answer. So outputs without it lose up to 2 there and nothing here, while a further tag without it costs t nothing there. - Its f allows further tags inside the blocks, and text behind the answer that begins on a new line, but no white space before the thought. - A block with nothing in it is −0.5 there and no answer, −1, here. - Its answer is the last block anywhere, in a thought as well, and a block begins at the first `<answer>` that is still open. - It compares the first line of the answer with the candidates' texts: further lines do not matter there, and white space around that line can.
    """

    def outcome(shown: tuple[float, ...], excluded: float) -> float:
        return 0.0 if excluded == max(shown) > 0 else 1.0

    rows = rows_to_score("worst", completions, gains, opening, strategy)
    return score_rows("exclusion", rows, lambda row: _exclusion(row, outcome), log_metric)


def exclusion_reward_graded(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    log_metric: LogMetric | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores the exclusion of one candidate by how little is lost with it.

    As `exclusion_reward`, but for a candidate e = (max − gain) / (max − min) over the gains shown: 1 for the worst, 0
    for the best, linear in between; 1 where all gains are equal, because no exclusion is wrong there. With one positive
    among candidates of one other gain it is the published reward.

    Source: This project's variant of the exclusion reward of R1-Ranker, arXiv 2506.21638.
    """

    def outcome(shown: tuple[float, ...], excluded: float) -> float:
        best, worst = max(shown), min(shown)
        return 1.0 if best == worst else (best - excluded) / (best - worst)

    rows = rows_to_score("worst", completions, gains, opening, strategy)
    return score_rows("exclusion_graded", rows, lambda row: _exclusion(row, outcome), log_metric)


def ranking_reward(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    log_metric: LogMetric | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores an order of all candidates by nDCG@20 and by how many of them it names.

    R = (|matched| / |C| − 1) + nDCG@20 + f + t, with f and t as in `format_reward` and `tag_count_reward`, C the
    candidates and `matched` those that the answer names. The order is that of the identifiers in the answer; whatever
    stands between them does not matter. A candidate counts where it is named first; a repeat, and an identifier of no
    candidate, takes up a place and gains nothing. Naming the positive alone so scores 1 / |C| and not 1.

    nDCG is graded where the gains are (see `ndcg`): with one positive it is 1 / log2(rank + 1), which is the published
    form; without any it is 0.

    Source: R1-Ranker, arXiv 2506.21638, the reward of DRanker: the formula of its repository (ulab-uiuc/IRanker, `verl/utils/reward_score/ranking_reward.py`), on the response alone and on identifiers. The values differ from that code's, which goes through the characters of the answer's first line and matches each with the first title left that holds it, white space with any; where it leaves out a repeat or what matches no candidate, those behind it move up a place, while here it takes up its place. Its f, its t and where it finds the answer differ as described at `exclusion_reward`.
    """

    def components(row: RewardRow) -> Components:
        names = written_identifiers(closed_answer(row.output))
        ranked_gains = _ranked_gains(names, row.gains)
        matched = len(set(names).intersection(identifiers(len(row.gains))))
        return {
            "coverage": matched / len(row.gains) - 1,
            "ndcg": ndcg(ranked_gains, row.gains, _RANKING_CUTOFF),
            "format": format_term(row.output),
            "tags": tag_term(row.output),
        }

    rows = rows_to_score("order", completions, gains, opening, strategy)
    return score_rows("ranking", rows, components, log_metric)


def ranking_reward_mrr(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    log_metric: LogMetric | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores an order of all candidates by the place of the positive and by whether it is an order of these candidates.

    R = RR + s + f + t, with f and t as in `format_reward` and `tag_count_reward`. RR is 1 / rank of the positive, which
    is the first candidate of the greatest gain that the answer names; 0 where it names none or no candidate has a gain.
    s = |A ∩ C| / |A ∪ C| − 1 is the penalty for a wrong set, with A the different identifiers that the answer names and
    C those of the prompt: 0 where they are the same set, down to −1 where they share nothing. So here an identifier of
    no candidate costs as much as a missing one. Places are counted as in `ranking_reward`: a repeat takes one up.

    Source: R1-Ranker, arXiv 2506.21638, third version, which is summarised as MRR plus a penalty for a wrong set; the penalty's form and the terms f and t are our choice.
    """

    def components(row: RewardRow) -> Components:
        names = written_identifiers(closed_answer(row.output))
        named, offered = set(names), set(identifiers(len(row.gains)))
        return {
            "reciprocal_rank": reciprocal_rank(_ranked_gains(names, row.gains), max(row.gains)),
            "set": len(named & offered) / len(named | offered) - 1,
            "format": format_term(row.output),
            "tags": tag_term(row.output),
        }

    rows = rows_to_score("order", completions, gains, opening, strategy)
    return score_rows("ranking_mrr", rows, components, log_metric)


def setwise_reward(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores the choice of the best candidate: 1 if it is named, else 0.

    R = 1 if the output holds a thought and right after it an answer which, stripped, equals the identifier of a
    candidate of the greatest gain, else 0. Read as published: the first place where `<think>`, anything, `</think>`,
    white space and `<answer>` follow each other counts, up to the next `</answer>`; the rest of the output does not
    matter. Where no candidate has a gain, all of them are best.

    Source: Rank-R1, arXiv 2503.06034, and its repository's training script (ielab/llm-rankers, `Rank-R1/train_grpo.py`), which compares with one label; with a single best candidate the values are equal.
    """

    def components(row: RewardRow) -> Components:
        chosen = _chosen(row)
        return {"outcome": float(chosen is not None and row.gains[chosen] == max(row.gains))}

    return score_rows("setwise", rows_to_score("best", completions, gains, opening, strategy), components)


def setwise_reward_graded(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores the choice of the best candidate by the gain of the one that is named.

    As `setwise_reward`, but R = gain / max for any candidate named, over the gains shown; 1 where no candidate has a
    gain.

    Source: This project's variant of the reward of Rank-R1, arXiv 2503.06034.
    """

    def components(row: RewardRow) -> Components:
        chosen = _chosen(row)
        best = max(row.gains)
        if chosen is None:
            return {"outcome": 0.0}
        return {"outcome": row.gains[chosen] / best if best > 0 else 1.0}

    return score_rows("setwise_graded", rows_to_score("best", completions, gains, opening, strategy), components)


def multi_view_reward(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    reference_order: Sequence[Sequence[int] | None] | None = None,
    log_metric: LogMetric | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores an order of all candidates from three sides: nDCG, recall and likeness to a reference order.

    R = −1 where the output holds no thought with an answer right after it (found as in `setwise_reward`); 0 where the
    answer's identifiers are not exactly those of the prompt, each once; else nDCG@10 + 0.2 · Recall@10 + 0.1 · RBO.

    nDCG is graded where the gains are, Recall@10 is the share of the candidates with a gain above 0 in the first ten
    places, and RBO is the extrapolated rank-biased overlap with the reference (see `rank_biased_overlap`), p = 0.9: the
    first ten places then carry 86% of the weight, as far down as the other two terms look. With gains of 0 and 1, it
    differs from `multi_view_reward_overlap`, which is closer to the published code, in RBO alone. Without a teacher's
    order, RBO rewards keeping candidates of one gain in the prompt's order, so shuffle them when the samples are made.

    Source: ReasonRank, arXiv 2508.07050, the multi-view ranking reward, with graded gains.
    """
    rows = rows_to_score("order", completions, gains, opening, strategy)
    references = reference_orders(rows, reference_order)

    def components(row: RewardRow) -> Components:
        return _views(row, row.gains, references[row.place], rank_biased_overlap)

    return score_rows("multi_view", rows, components, log_metric, _VIEW_WEIGHTS)


def multi_view_reward_overlap(
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None = None,
    strategy: Sequence[str] | None = None,
    reference_order: Sequence[Sequence[int] | None] | None = None,
    log_metric: LogMetric | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Scores an order of all candidates from three sides as ReasonRank's training code does.

    As `multi_view_reward`, but every gain above 0 counts as 1, and the likeness to the reference is the average overlap
    of the two orders (see `average_overlap`): the code leaves p at its library's default of 1, which means that. Unlike
    there, the answer must be a true permutation of the identifiers in brackets, and other numbers in it do not matter.
    The code takes every run of digits for a number and scores 0 unless there are as many as candidates, all written
    differently. So bare numbers are an order there and 0 here, and a full order with one more number beside it is 0
    there. An order with a foreign number is 0 here and scored there: `[0]` stands for the last candidate, one beyond
    the list drops out and those behind it move up, and `[02]` is the second candidate, but not in the likeness.

    Source: ReasonRank, repository 8421BCD/ReasonRank, `verl/verl/utils/reward_score/ranking.py`.
    """
    rows = rows_to_score("order", completions, gains, opening, strategy)
    references = reference_orders(rows, reference_order)

    def components(row: RewardRow) -> Components:
        relevance = [float(gain > 0) for gain in row.gains]
        return _views(row, relevance, references[row.place], average_overlap)

    return score_rows("multi_view_overlap", rows, components, log_metric, _VIEW_WEIGHTS)


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
    }
)
"""The rewards by the names that recipes use."""


def find_reward(name: str) -> RewardFunction:
    """Finds a reward by the name that recipes use."""
    found = REWARDS.get(name)
    if found is None:
        raise InputError(f"reward {name!r} is unknown: use one of {', '.join(REWARDS)}")
    return found


def _exclusion(row: RewardRow, outcome: Callable[[tuple[float, ...], float], float]) -> Components:
    answer = closed_answer(row.output)
    if answer is None:
        value = -1.0
    else:
        excluded = _positions(row.gains).get(answer.strip())
        value = -0.5 if excluded is None else outcome(row.gains, row.gains[excluded])
    return {"outcome": value, "format": format_term(row.output), "tags": tag_term(row.output)}


def _chosen(row: RewardRow) -> int | None:
    """The position of the candidate that a setwise answer names."""
    answer = answer_after_thought(row.output)
    return None if answer is None else _positions(row.gains).get(answer.strip())


def _views(
    row: RewardRow,
    gains: Sequence[float],
    reference: Sequence[int],
    likeness: Callable[[list[int], Sequence[int]], float],
) -> Components:
    """The components of a multi-view reward, the row's own gains replaced."""
    answer = answer_after_thought(row.output)
    positions = _positions(gains)
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


def _positions(gains: Sequence[float]) -> dict[str, int]:
    """Identifier to position."""
    return {identifier: position for position, identifier in enumerate(identifiers(len(gains)))}


def _ranked_gains(names: Sequence[str], gains: Sequence[float]) -> list[float]:
    """The gain at each place of an answer; 0 for a repeat and for what is no candidate."""
    left = dict(zip(identifiers(len(gains)), gains, strict=True))
    return [left.pop(name, 0.0) for name in names]
