"""Rewards: values worked by hand, odd outputs, the traps of the published code, TRL's way of calling."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import Qrel, R, ScoredDoc, nDCG

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.answers import read_answer
from r1ranker_ir.training.data.ranking_measures import average_overlap, ndcg, rank_biased_overlap, recall
from r1ranker_ir.training.rewards.answer_protocol import answer_after_thought
from r1ranker_ir.training.rewards.grades import LIST_REWARDS
from r1ranker_ir.training.rewards.rewards import (
    REWARDS,
    exclusion_reward,
    exclusion_reward_graded,
    find_reward,
    format_reward,
    multi_view_reward,
    setwise_reward,
    setwise_reward_graded,
    tag_count_reward,
)

BOUNDS = {
    **dict.fromkeys(("exclusion", "exclusion_graded", "ranking", "ranking_mrr"), (-3.0, 1.0)),
    **dict.fromkeys(("format", "tag_count"), (-1.0, 0.0)),
    **dict.fromkeys(("setwise", "setwise_graded"), (0.0, 1.0)),
    **dict.fromkeys(("multi_view", "multi_view_overlap"), (-1.0, 1.3)),
    **{"rank_promotion": (-1.0, 1.0), "format_if_improved": (0.0, 1.0)},
}
STRATEGY = {
    **dict.fromkeys(("exclusion", "exclusion_graded"), "iterative"),
    **dict.fromkeys(("ranking", "ranking_mrr", "multi_view", "multi_view_overlap"), "direct"),
    **dict.fromkeys(("setwise", "setwise_graded"), "setwise"),
    **dict.fromkeys(("rank_promotion", "format_if_improved"), "direct"),
}
ONE_BY_ONE = {name: reward for name, reward in REWARDS.items() if name not in LIST_REWARDS}
ONE_POSITIVE = [0.0, 1.0, 0.0]
GRADED = [0.0, 3.0, 1.0, 2.0]


def answered(answer: str) -> str:
    return f"<think>\nSome thought of [1], [2] and [3].\n</think>\n<answer>{answer}</answer>"


def score(name: str, output: str, gains: Sequence[float], **columns: Any) -> float:
    [value] = find_reward(name)(completions=[output], gains=[list(gains)], **columns)
    assert value is not None
    return value


PERFECT = answered("[1]")

SHAPES = {
    (0, 0): [
        *(PERFECT, f" \n\t{PERFECT}\n ", "<think></think><answer></answer>"),
        *("<think>a</think> \n\t <answer>[1]</answer>", "<think>a < b, <b>bold</b></think><answer>[1]</answer>"),
    ],
    (-1, 0): [
        *(f"So: {PERFECT}", f"{PERFECT} Done.", "<think>a</think> so <answer>[1]</answer>"),
        *("<answer>[1]</answer><think>a</think>", "</think><think>a<answer>[1]</answer>"),
        *("<think>a<answer>[1]</answer></think>", "<think>a</answer></think><answer>[1]"),
    ],
    (-1, -0.25): [
        *("<think>a</think><answer>[1]", "<think>a<answer>[1]</answer>", "a</think><answer>[1]</answer>"),
        *(f"<think>{PERFECT}", "<think>a</think></think><answer>[1]</answer>"),
        *("<think>a</think><Answer>[1]</answer>", "＜think＞a</think><answer>[1]</answer>"),
    ],
    (-1, -0.5): ["<answer>[1]</answer>", "<think>a</think>[1]", "< think>a</think><answer>[1]</answer >"],
    (-1, -1): [
        *("", "[1]", f"{PERFECT}{PERFECT}", "<THINK>a</THINK><ANSWER>[1]</ANSWER>"),
        "<think><think>a</think></think><answer><answer>[1]</answer></answer>",
    ],
}
"""The f and t of outputs."""


@pytest.mark.parametrize(("worth", "output"), [(worth, each) for worth, some in SHAPES.items() for each in some])
def test_the_shape_of_an_output(worth: tuple[float, float], output: str) -> None:
    assert (*format_reward([output]), *tag_count_reward([output])) == worth


EXCLUSIONS = {
    1: ["[1]", "[3]", " \n[1]\t"],
    0: ["[2]"],
    -0.5: [
        *("[4]", "[0]", "[-1]", "1", "[1", "[ 1 ]", "[01]", "[1000000000000000000000]", "[１]", "[²]", "[[1]]", "[1]."),
        *("passage [1]", "[1] [3]", "[1], [1]", "[1][1]", "[1] > [3] > [2]", "none"),
    ],
    -1: ["", " \n "],
}
"""What an exclusion is worth with the positive at [2], and the answers that are worth that."""


@pytest.mark.parametrize(("outcome", "answer"), [(worth, each) for worth, some in EXCLUSIONS.items() for each in some])
def test_what_an_exclusion_is_worth(answer: str, outcome: float) -> None:
    assert score("exclusion", answered(answer), ONE_POSITIVE) == outcome
    assert score("exclusion_graded", answered(answer), ONE_POSITIVE) == outcome


PLACES = {
    -1: [
        *("", "[1]", "<think>[1]</think>[1]", "<think>a</think><ANSWER>[1]</ANSWER>", "<think>a</think><answer>[1]"),
        *("<think>a</think></answer>", "<think>a</think><answer>[1]</answer></think>"),
        *("<think>a <answer>[1]</answer></think>", "<think>a</think></answer><answer>[1]"),
    ],
    # An answer inside the thought is no answer, and the one after it is.
    0: ["<think>I drop [1]</think><answer>[2]</answer>", "<think>a <answer>[1]</answer></think> <answer>[2]</answer>"],
    1: [
        *("<answer>[1]</answer>", "<think>A passage says “<answer>[2]</answer>”.</think><answer>[1]</answer>"),
        # The last closed block counts.
        "<think>a</think><answer>[2]</answer><answer>[1]</answer>",
        "<think>a</think><answer><answer>[1]</answer></answer>",
        *("<think>a <answer>[1]</answer>", "<think>a</think><answer>[1]</answer><answer>[2]"),
        "<think>a</think><answer>\n[1]\n</answer>\nI am done with [2].",
    ],
}
"""What an exclusion is worth with the positive at [2], besides the form terms, in whole outputs."""


@pytest.mark.parametrize(("outcome", "output"), [(worth, each) for worth, some in PLACES.items() for each in some])
def test_where_an_answer_counts(outcome: float, output: str) -> None:
    told: dict[str, float] = {}
    form = format_reward([output]) + tag_count_reward([output])
    assert score("exclusion", output, ONE_POSITIVE, log_metric=told.__setitem__) == outcome + sum(form)
    assert list(told.values()) == [outcome, *form]


@pytest.mark.parametrize(
    ("gains", "published", "graded"),
    [
        (GRADED, [1, 0, 1, 1], [1, 0, 2 / 3, 1 / 3]),
        ([1, 0.25], [0, 1], [0, 1]),
        ([0.5, 1, 0.75], [1, 0, 1], [1, 0, 0.5]),
        ([0, 1, 1], [1, 0, 0], [1, 0, 0]),
        ([0, 0], [1, 1], [1, 1]),
        ([2, 2], [0, 0], [1, 1]),
        ([1], [0], [1]),
        ([5e-324, 0, 1e308], [1, 1, 0], [1, 1, 0]),
    ],
)
def test_the_positive_is_the_best_gain_shown(gains: list[float], published: list[float], graded: list[float]) -> None:
    outputs = [answered(f"[{number}]") for number in range(1, len(gains) + 1)]
    assert exclusion_reward(outputs, [gains] * len(gains)) == published
    assert exclusion_reward_graded(outputs, [gains] * len(gains)) == pytest.approx(graded)


LOG3 = 1 / math.log2(3)

ORDERS = {
    # nDCG, named of three, RR, A ∩ C over A ∪ C, with the positive at [2]
    (1, 3, 1, 1): ["[2] > [1] > [3]", "[2], [1], [3]", "[2]\n[1]\n[3]", "best [2], then [1], last [3]."],
    (1, 2, 1, 2 / 3): ["[2] > [1]"],
    (1, 1, 1, 1 / 3): ["[2]", "[2] > [2] > [2]"],
    (0, 2, 0, 2 / 3): ["[1] > [3]"],
    (0, 1, 0, 1 / 3): ["[1]"],
    # Repeats and names of no candidate take up a place.
    (LOG3, 3, 1 / 2, 1): ["[1] > [2] > [3]", "[1] > [2] > [2] > [3]"],
    (1 / 2, 3, 1 / 3, 1): ["[1] > [3] > [2]", "[1] > [1] > [2] > [3]"],
    (LOG3, 3, 1 / 2, 3 / 4): ["[9] > [2] > [1] > [3]", "[02] > [2] > [1] > [3]"],
    (1, 3, 1, 3 / 5): ["[2] > [1] > [3] > [9] > [9] > [10]"],
    (1 / 2, 1, 1 / 3, 1 / 5): ["[ 2 ] > [２] > [2]"],
    (LOG3, 1, 1 / 2, 1 / 4): ["[1000000000000000000000] > [2]"],
    (0, 0, 0, 0): ["2 > 1 > 3", "[2 > [1 > [x]", "[21]", "[]"],  # none of these is an identifier
}


@pytest.mark.parametrize(("worth", "answer"), [(worth, each) for worth, some in ORDERS.items() for each in some])
def test_what_an_order_is_worth(worth: tuple[float, ...], answer: str) -> None:
    gain, named, reciprocal, likeness = worth
    assert score("ranking", answered(answer), ONE_POSITIVE) == pytest.approx(named / 3 - 1 + gain)
    assert score("ranking_mrr", answered(answer), ONE_POSITIVE) == pytest.approx(likeness - 1 + reciprocal)


@pytest.mark.parametrize("name", ["ranking", "ranking_mrr"])
def test_an_order_that_stands_in_the_wrong_place(name: str) -> None:
    for output, value in {
        **{"": -3, "[2] > [1] > [3]": -3, answered(" "): -1, answered("[2] > [1] > [3]") + "!": 1 - 1},
        "<think>[2] > [1] > [3]</think><answer>all of them</answer>": -1,
        "<answer>[2] > [1] > [3]</answer>": 1 - 1.5,
    }.items():
        assert score(name, output, ONE_POSITIVE) == value


def test_graded_gains_give_a_graded_ndcg_and_the_rank_of_the_best() -> None:
    output = answered("[3] > [2] > [4] > [1]")
    assert score("ranking", output, GRADED) == pytest.approx((1 + 3 * LOG3 + 2 / 2) / (3 + 2 * LOG3 + 1 / 2))
    assert score("ranking_mrr", output, GRADED) == 1 / 2
    assert score("ranking", output, [0, 0, 0, 0]) == score("ranking_mrr", output, [0, 0, 0, 0]) == 0
    assert score("ranking_mrr", output, [0, 0, 2, 2]) == 1


def in_order(*numbers: int) -> str:
    return answered(" > ".join(f"[{number}]" for number in numbers))


def test_measures_look_at_as_many_places_as_published() -> None:
    gains = [0.0] * 20 + [1.0]
    assert score("ranking", in_order(*range(1, 22)), gains) == 0
    assert score("ranking", in_order(*range(1, 20), 21, 20), gains) == pytest.approx(1 / math.log2(21))
    told: dict[str, float] = {}
    output, gains = in_order(12, *range(1, 10), 11, 10), [0.0] * 10 + [1.0, 1.0]
    score("multi_view", output, gains, log_metric=told.__setitem__)
    assert told["rewards/multi_view/recall"] == 1 / 2
    assert told["rewards/multi_view/ndcg"] == pytest.approx(1 / (1 + LOG3))


CHOICES = {
    (1, 1): [
        *(answered("[2]"), answered("\n [2] ")),
        # As published, what surrounds the pattern does not matter, and the first place that fits counts.
        "So: <think>a</think>\n\n<answer>[2]</answer> and no more",
        "<think>a</think> hm </think> <answer>[2]</answer>",
        "<think>a</think><answer>[2]</answer></think><answer>[1]</answer>",
        "</think><answer>[1]</answer><think>a</think><answer>[2]</answer>",
    ],
    (0, 2 / 3): [answered("[4]")],
    (0, 1 / 3): [answered("[3]")],
    (0, 0): [
        *map(answered, ("[1]", "[5]", "2", "[02]", "[２]", "[2] [2]", "[2].", "")),
        *("", "[2]", "<answer>[2]</answer>", "<think>a<answer>[2]</answer>", "</think><answer>[2]</answer>"),
        "<think>a</think> so <answer>[2]</answer>",
        "<think>a</think><answer>[2]",
        "<think>a</think><ANSWER>[2]</ANSWER>",
    ],
}
"""The published worth of a choice among `GRADED` and the graded one, and the outputs that are worth that."""


@pytest.mark.parametrize(("worth", "output"), [(worth, each) for worth, some in CHOICES.items() for each in some])
def test_what_a_choice_is_worth(worth: tuple[float, float], output: str) -> None:
    assert score("setwise", output, GRADED) == worth[0]
    assert score("setwise_graded", output, GRADED) == pytest.approx(worth[1])


@pytest.mark.parametrize(("gains", "published"), [([1, 1, 0], [1, 1, 0]), ([0, 0, 0], [1, 1, 1])])
def test_every_candidate_of_the_best_gain_is_a_right_choice(gains: list[float], published: list[float]) -> None:
    outputs = [answered(f"[{number}]") for number in (1, 2, 3)]
    assert setwise_reward(outputs, [gains] * 3) == published
    assert setwise_reward_graded(outputs, [gains] * 3) == published


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "a", "[1]"]), max_size=14))
def test_the_linear_search_finds_what_the_published_expression_finds(pieces: list[str]) -> None:
    output = "".join(pieces)
    found = re.search(r"<think>.*?</think>\s*<answer>(.*?)</answer>", output, re.DOTALL)
    assert answer_after_thought(output) == (found.group(1) if found else None)


def test_the_views_of_an_order_worked_by_hand() -> None:
    # [1] > [2] > [3] against [2] > [1] > [3]: the first 1, 2, 3 places share 0, 2 and 3.
    output, rbo = answered("[1] > [2] > [3]"), 0.1 * (0.9 * 1 + 0.81 * 1) + 0.729 * 1
    told: dict[str, float] = {}
    found = score("multi_view", output, ONE_POSITIVE, log_metric=told.__setitem__)
    assert found == pytest.approx(LOG3 + 0.2 + 0.1 * rbo)
    views = {"format": 0, "permutation": 1, "ndcg": LOG3, "recall": 1, "rbo": rbo}
    assert told == {f"rewards/multi_view/{name}": pytest.approx(value) for name, value in views.items()}
    assert score("multi_view_overlap", output, ONE_POSITIVE) == pytest.approx(LOG3 + 0.2 + 0.1 * 2 / 3)


def test_the_published_code_knows_no_grades() -> None:
    output = answered("[3] > [2] > [4] > [1]")
    overlap = (0 + 1 / 2 + 1 + 1) / 4
    assert score("multi_view_overlap", output, GRADED) == pytest.approx(1 + 0.2 + 0.1 * overlap)
    ideal = 3 + 2 * LOG3 + 1 / 2
    rbo = 0.1 * (0.9 / 2 + 0.81 + 0.729) + 0.9**4 + 0.0
    assert score("multi_view", output, GRADED) == pytest.approx((1 + 3 * LOG3 + 1) / ideal + 0.2 + 0.1 * rbo)


VIEWS = {
    -1: [
        *("", "[2] > [1] > [3]", "<answer>[2] > [1] > [3]</answer>", "<think>a</think><answer>[2] > [1] > [3]"),
        "<think>a</think> so <answer>[2] > [1] > [3]</answer>",
    ],
    0: [
        *map(answered, ("", "[2] > [1]", "[2] > [1] > [1]", "[2] > [1] > [3] > [3]", "[2] > [1] > [3] > [4]")),
        # The published code compares the numbers' count alone, so that the first of these passes there.
        *map(answered, ("[2] > [1] > [30]", "2 > 1 > 3", "[2] > [1] > [03]", "[2] > [1] > [1000000000000000000000]")),
    ],
    1.3: ["Well. <think>a</think><answer>[2] > [1] > [3]</answer> Done."],
}


@pytest.mark.parametrize("name", ["multi_view", "multi_view_overlap"])
@pytest.mark.parametrize(("value", "output"), [(value, each) for value, some in VIEWS.items() for each in some])
def test_only_full_permutations_have_views(name: str, output: str, value: float) -> None:
    assert score(name, output, ONE_POSITIVE) == pytest.approx(value)


def test_a_reference_order_replaces_the_order_by_gain() -> None:
    output, same, other = answered("[3] > [1] > [2]"), [2, 0, 1], [1, 0, 2]
    for name, likeness in (("multi_view", rank_biased_overlap), ("multi_view_overlap", average_overlap)):
        given = [score(name, output, ONE_POSITIVE, reference_order=[order]) for order in (same, other, None)]
        assert given[0] - given[1] == pytest.approx(0.1 * (1 - likeness(same, other)))
        # By falling gain, ties in the prompt's order.
        assert given[1] == given[2] == score(name, output, ONE_POSITIVE)


GAINS = st.lists(st.integers(0, 4), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(gains=GAINS, cutoff=st.integers(1, 25), data=st.data())
def test_ndcg_and_recall_are_those_of_ir_measures(gains: list[int], cutoff: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(gains))))
    order = order[: data.draw(st.integers(1, len(gains)))]
    qrels = [Qrel("q", str(position), gain) for position, gain in enumerate(gains)]
    run = [ScoredDoc("q", str(position), float(-rank)) for rank, position in enumerate(order)]
    expected = ir_measures.calc_aggregate([nDCG @ cutoff, R @ cutoff], qrels, run)
    ranked_gains = [gains[position] for position in order]
    assert ndcg(ranked_gains, gains, cutoff) == pytest.approx(expected[nDCG @ cutoff])
    assert recall(ranked_gains, gains, cutoff) == pytest.approx(expected[R @ cutoff])


def test_measures_of_nothing_and_of_extreme_gains() -> None:
    assert ndcg([], [], 10) == ndcg([], [1.0], 10) == recall([], [], 10) == 0
    assert ndcg([1e308] * 20, [1e308] * 20, 20) == ndcg([5e-324, 0.0], [5e-324, 0.0], 20) == 1
    assert ndcg([0.0, 5e-324], [5e-324, 0.0], 20) == pytest.approx(LOG3)


@given(data=st.data(), count=st.integers(1, 12), p=st.sampled_from([0.1, 0.5, 0.9, 0.98]))
def test_rbo_is_the_infinite_sum_with_the_last_agreement_kept(data: st.DataObject, count: int, p: float) -> None:
    # Entries may differ between the lists, unlike in a permutation.
    left = data.draw(st.permutations(range(count)))
    right = data.draw(st.permutations(range(count // 2, count // 2 + count)))
    shared = [len(set(left[:depth]) & set(right[:depth])) / depth for depth in range(1, count + 1)]
    brute = sum((1 - p) * p ** (depth - 1) * shared[min(depth, count) - 1] for depth in range(1, 2500))
    assert rank_biased_overlap(left, right, p) == pytest.approx(brute, abs=1e-9)
    assert rank_biased_overlap(right, left, p) == pytest.approx(brute, abs=1e-9)
    assert rank_biased_overlap(left, left, p) == pytest.approx(1, abs=1e-12)
    assert average_overlap(left, right) == pytest.approx(sum(shared) / count)


@pytest.mark.parametrize("measure", [rank_biased_overlap, average_overlap])
def test_lists_that_can_not_be_compared(measure: Any) -> None:
    assert (measure([], []), measure([1, 2], [3, 4])) == (1, 0)
    for left, said in (([1], "lists of 1 and 2 entries"), ([1, 1], "repeats an entry")):
        with pytest.raises(InputError, match=said):
            measure(left, [1, 2])
    for p in (0, 1, -0.5, 1.5, math.nan):
        with pytest.raises(InputError, match="p of the rank-biased overlap is"):
            rank_biased_overlap([1], [1], p)


PROMPT = [{"role": "user", "content": "Put <think> and </think> around it, then <answer>[1]</answer>.\n[1] a\n[2] b"}]


# The best promotion depends on the list's length.
@pytest.mark.parametrize("name", [name for name in ONE_BY_ONE if name != "rank_promotion"])
def test_a_perfect_answer_scores_the_maximum_whatever_tags_the_prompt_holds(name: str) -> None:
    answer = {"iterative": "[1]", "direct": "[2] > [1]", "setwise": "[2]"}.get(STRATEGY.get(name, ""), "x")
    completion = [{"role": "assistant", "content": f"A thought.</think>\n<answer>{answer}</answer>"}]
    [value] = find_reward(name)(
        prompts=[PROMPT], completions=[completion], completion_ids=[[1, 2]], gains=[[0.0, 1.0]], opening=["<think>\n"]
    )
    assert value == pytest.approx(BOUNDS[name][1])


def test_naming_the_positive_alone_earns_no_full_reward() -> None:
    gains = [0.0] * 11 + [1.0] + [0.0] * 8
    alone = answered("[12]")
    second = in_order(1, 12, *range(2, 12), *range(13, 21))
    for name in ("ranking", "ranking_mrr"):
        assert score(name, alone, gains) == pytest.approx(1 / 20)
        assert score(name, second, gains) > 1 / 20
    assert score("multi_view", alone, gains) == 0


def test_identifiers_are_read_whole_and_not_by_character() -> None:
    gains = [1.0, 1.0, *[0.0] * 9, 0.0]
    assert score("ranking", answered("[12]"), gains) == pytest.approx(1 / 12 - 1)
    assert score("ranking", answered("a title of candidate 1"), gains) == -1


def test_messages_and_text_score_the_same_with_and_without_an_opening() -> None:
    text = "Some thought.</think><answer>[1]</answer>"
    as_messages = [[{"role": "assistant", "content": text}], [{"role": "assistant", "content": f"<think>{text}"}], []]
    openings = ["<think>\n", "", None]
    for completions in ([text, f"<think>{text}", ""], as_messages):
        assert exclusion_reward(completions, [ONE_POSITIVE] * 3, opening=openings) == [1, 1, -3]
        assert exclusion_reward(completions, [ONE_POSITIVE] * 3) == [1 - 1.25, 1, -3]
        assert format_reward(completions, opening=openings) == [0, 0, -1]


def test_only_the_assistants_messages_count() -> None:
    turn = [
        {"role": "assistant", "content": "<think>a</think>"},
        {"role": "user", "content": "Go on. <answer>[2]</answer>"},
        {"role": "assistant", "content": "<answer>[1]</answer>"},
    ]
    assert exclusion_reward([turn], [ONE_POSITIVE]) == [1]


@pytest.mark.parametrize(("name", "own"), STRATEGY.items())
def test_rows_of_other_strategies_score_none(name: str, own: str) -> None:
    strategies = ["iterative", "direct", "setwise"]
    # Gains that nobody scores need not make sense.
    gains = [ONE_POSITIVE if strategy == own else [] for strategy in strategies]
    told: dict[str, float] = {}
    found = find_reward(name)([PERFECT] * 3, gains=gains, strategy=strategies, log_metric=told.__setitem__)
    assert [value is not None for value in found] == [strategy == own for strategy in strategies]
    # Without the column every row is scored.
    assert None not in find_reward(name)([PERFECT] * 3, gains=[ONE_POSITIVE] * 3)
    told.clear()
    others = [strategy for strategy in strategies if strategy != own]
    assert find_reward(name)([PERFECT] * 2, gains=[[], []], strategy=others, log_metric=told.__setitem__) == [None] * 2
    assert told == {}


def test_format_and_tags_are_scored_for_every_strategy() -> None:
    for reward in (format_reward, tag_count_reward):
        assert reward([PERFECT] * 2, strategy=["iterative", "direct"], gains=[ONE_POSITIVE] * 2) == [0, 0]


FORM = {"format": 1, "tags": 1}
VIEW_WEIGHTS = {"format": 1, "permutation": 0, "ndcg": 1, "recall": 0.2, "rbo": 0.1}
PARTS: dict[str, dict[str, float]] = {
    **{"exclusion": {"outcome": 1, **FORM}, "exclusion_graded": {"outcome": 1, **FORM}},
    **{"ranking": {"coverage": 1, "ndcg": 1, **FORM}, "ranking_mrr": {"reciprocal_rank": 1, "set": 1, **FORM}},
    **{"multi_view": VIEW_WEIGHTS, "multi_view_overlap": VIEW_WEIGHTS},
}


@pytest.mark.parametrize(("name", "weights"), PARTS.items())
def test_components_are_logged_as_means_and_sum_to_the_reward(name: str, weights: dict[str, float]) -> None:
    outputs = [answered("[1]"), answered("[2] > [1] > [3]"), "", "<answer>[9]</answer>", PERFECT]
    told: dict[str, list[float]] = defaultdict(list)
    values = find_reward(name)(
        outputs,
        gains=[ONE_POSITIVE] * 5,
        strategy=[STRATEGY[name]] * 4 + ["setwise"],
        log_metric=lambda path, value: told[path].append(value),
    )
    assert list(told) == [f"rewards/{name}/{part}" for part in weights]
    assert all(len(logged) == 1 for logged in told.values())
    weighted = sum(weight * told[f"rewards/{name}/{part}"][0] for part, weight in weights.items())
    assert values[4] is None
    assert weighted == pytest.approx(sum(value for value in values if value is not None) / 4)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_columns_of_another_length_are_refused(name: str) -> None:
    wrong: dict[str, Any] = {"opening": ["", "", ""], "gains": [ONE_POSITIVE], "strategy": ["direct"]}
    wrong["reference_order"] = [[0, 1, 2]]
    for column, values in wrong.items():
        if column == "opening" or name in STRATEGY:
            with pytest.raises(InputError, match=f"{column} holds {len(values)} entries for 2 completions: give a li"):
                find_reward(name)([PERFECT] * 2, **{"gains": [ONE_POSITIVE] * 2, column: values})
    with pytest.raises(InputError, match="opening holds 2 entries for 2 completions: give a list"):
        find_reward(name)([PERFECT] * 2, gains=[ONE_POSITIVE] * 2, opening="\n\n")
    assert find_reward(name)([], gains=[]) == []


NONSENSE: list[tuple[dict[str, Any], str]] = [
    *(
        ({"gains": [ONE_POSITIVE, bad]}, re.escape(f"gains of row 1 are {bad!r}"))
        for bad in ([], None, [1.0, -0.5], [math.nan, 1.0], [math.inf], ["x", 1], 3, "12")
    ),
    *(
        ({"completions": [PERFECT, bad]}, "row 1 has opening '' and completion .*: give text")
        for bad in (None, 3, {"role": "assistant", "content": "x"}, ["x"], [{"role": "assistant"}])
    ),
    *(
        ({"reference_order": [None, bad]}, "reference_order of row 1 is .*: give each of the positions 0 to 2 once")
        for bad in ([0, 1], [0, 1, 1], [0, 1, 2, 2], [1, 2, 3], [0, 1, 2, 3], [], ["a", "b", "c"])
    ),
    ({"opening": [3, ""]}, "row 0 has opening 3 and"),
    ({"strategy": ["pairwise", "direct"]}, "strategy of row 0 is 'pairwise': use one of iterative, direct, setwise"),
    # TRL takes thoughts out for tokenizers with a response schema; the tags are lost then.
    (
        {"completions": [PERFECT, [{"role": "assistant", "reasoning_content": "Some thought.", "content": PERFECT}]]},
        "'reasoning_content'.*set the tokenizer's response_schema",
    ),
]


@pytest.mark.parametrize(("columns", "said"), NONSENSE)
def test_columns_that_make_no_sense_are_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        multi_view_reward(**{"completions": [PERFECT] * 2, "gains": [ONE_POSITIVE] * 2, **columns})


def test_the_registry_names_what_it_offers() -> None:
    # TRL logs by the function's own name.
    assert len({reward.__name__ for reward in REWARDS.values() if "reward" in reward.__name__}) == len(BOUNDS) + len(
        LIST_REWARDS
    )
    with pytest.raises(InputError, match="reward 'exclude' is unknown: use one of exclusion, exclusion_graded, r"):
        find_reward("exclude")


def test_rewards_do_not_load_torch() -> None:
    code = (
        "import sys, r1ranker_ir.training.rewards.rewards; "
        "print({'torch', 'trl', 'datasets'}.intersection(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


PIECES = [
    *("[1]", "[2]", "[3]", "[4]", "[5]", " > ", "[ 1 ]", "[02]", "[0]", "[99]", "[-1]", "[1000000000000000000000]"),
    *("[２]", "[٣]", "[²]", "[", "]", "1", "2", "[[1]]", "a", "worst", "\x00", "\ud800", "\u2028", "é", "答え", "🙂"),
]
TAGS = "<think> </think> <answer> </answer> <THINK> </Answer> <answer </ > <".split() + ["\n", " ", "\t"]


@given(
    output=st.one_of(st.text(), st.lists(st.sampled_from(TAGS + PIECES), max_size=25).map("".join)),
    opening=st.sampled_from(["", "<think>\n", "<think></think><answer>", None]),
    gains=st.lists(st.floats(0, allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
)
def test_any_completion_scores_within_bounds(output: str, opening: str | None, gains: list[float]) -> None:
    for name, reward in ONE_BY_ONE.items():
        [value] = reward(completions=[output], gains=[gains], opening=[opening])
        low, high = BOUNDS[name]
        assert low - 1e-9 <= value <= high + 1e-9, name


@given(gains=st.lists(st.integers(0, 3), min_size=1, max_size=6), data=st.data())
def test_a_better_order_never_scores_less(gains: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(gains))))
    best = sorted(range(len(gains)), key=lambda position: -gains[position])
    for name in ("ranking", "ranking_mrr", "multi_view", "multi_view_overlap"):
        found, ideal = (score(name, in_order(*(position + 1 for position in each)), gains) for each in (order, best))
        assert found <= ideal + 1e-9, name


@given(answer=st.lists(st.sampled_from(PIECES), max_size=6).map("".join), count=st.integers(1, 5))
def test_an_exclusion_that_is_rewarded_is_one_that_inference_reads_the_same(answer: str, count: int) -> None:
    gains = [0.0] * count
    if score("exclusion", answered(answer), gains) == 1:
        reading = read_answer(answered(answer), count, "one")
        assert reading.clean
        chosen = [0.0] * count
        chosen[reading.indices[0]] = 1.0
        assert score("exclusion", answered(answer), chosen) == 0


@pytest.mark.parametrize(
    "output",
    [
        *("[1] " * 250_000, "9" * 1_000_000, "[" * 1_000_000, "[ " + " " * 1_000_000, ("[" + " " * 999) * 1_000),
        *("<answer>" * 125_000, "<think>" * 140_000, "</think>" * 125_000, ("</think>" + " " * 992) * 1_000),
        *("<think>" + "</think> " * 110_000, "<think></think><answer>" * 43_000, "<answer></answer>" * 58_000),
        *(PERFECT * 12_000, "\n" * 1_000_000, *map(answered, ("[1] > " * 160_000, " " * 1_000_000))),
        *map(answered, ("[" + "1" * 1_000_000 + "]", "[" + " " * 1_000_000 + "1")),
        in_order(*range(100_000)),
    ],
    ids=lambda output: output[-12:],
)
def test_a_megabyte_is_scored(output: str) -> None:
    for name, reward in ONE_BY_ONE.items():
        [value] = reward(completions=[output], gains=[ONE_POSITIVE])
        assert BOUNDS[name][0] <= value <= BOUNDS[name][1]


def test_a_long_list_of_candidates_is_scored() -> None:
    gains = [float(position % 7) for position in range(2_000)]
    for name in ("ranking", "ranking_mrr", "multi_view", "multi_view_overlap"):
        assert score(name, in_order(*range(2_000, 0, -1)), gains) > 0
