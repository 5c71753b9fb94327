"""What holds for every strategy: the ideal order of what it promises, permutations, budgets, and the trace."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import Conversation

from r1ranker_ir import Ranker
from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.budget import Budget, within_budget
from r1ranker_ir.strategies.checks import check_options_of
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Answer, Call, Candidate, Ranking, RankingRequest, Usage

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "iterative": ("iterative", {}),
    "iterative never": ("iterative", {"think": "never"}),
    "iterative mark": ("iterative", {"layout": "mark"}),
    "direct": ("direct", {}),
    "tournament": ("direct", {"sort": "tournament"}),
    "tournament never": ("direct", {"sort": "tournament", "think": "never"}),
    "direct never": ("direct", {"think": "never"}),
    "heap": ("setwise", {}),
    "heap in order": ("setwise", {"shuffle_seed": None}),
    "heap never": ("setwise", {"think": "never"}),
    "bubble": ("setwise", {"sort": "bubble"}),
    "pointwise": ("pointwise", {}),
    "direct votes": ("direct", {"votes": 2}),
    "heap votes": ("setwise", {"votes": 3, "vote_by": "borda"}),
    "iterative votes": ("iterative", {"votes": 2, "vote_among": "thoughts"}),
}


class Case:
    """A list, who judges it, and a way to rank it."""

    def __init__(
        self, count: int, seed: int, way: str, window_size: int = 20, stride: int = 10, **options: Any
    ) -> None:
        self.quality = random.Random(seed).sample(range(count), count)
        self.gains = {"q": {f"d{number}": float(worth) for number, worth in enumerate(self.quality)}}
        candidates = tuple(Candidate(f"d{number}", f"document {number}") for number in range(count))
        self.request = RankingRequest("which is best", candidates, query_id="q")
        self.backend = OracleBackend(gains=self.gains, max_thought_tokens=50)
        self.prompt = Prompt(load_template(), self.backend)
        self.strategy, of_way = WAYS[way]
        self.options = RankingOptions(**(of_way | options))
        self.window_size, self.stride = window_size, stride

    def run(self, reply: Callable[[Call], Answer] | None = None, **budget: int) -> Ranking:
        program = STRATEGIES[self.strategy](
            self.request,
            self.prompt,
            window_size=self.window_size,
            stride=self.stride,
            options=replace(self.options, **budget),
        )
        return Conversation.drive(program, reply or (lambda call: self.backend.answer([call])[0]))[0]

    @property
    def promised(self) -> int:
        """How many of the best come out in order."""
        count = len(self.quality)
        if self.strategy == "pointwise":
            return count
        if self.strategy == "setwise":
            return min(count, self.options.top_k or 10)
        if count <= self.window_size:
            return count
        return self.window_size // 2 if self.options.sort == "tournament" else self.window_size - self.stride

    def dcg(self, order: tuple[int, ...]) -> float:
        return sum(self.quality[position] / math.log2(rank + 2) for rank, position in enumerate(order[:10]))


SIZES = st.integers(3, 24).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window - 1)))


@settings(max_examples=60)
@given(
    count=st.integers(1, 250),
    seed=st.integers(0, 2**16),
    way=st.sampled_from(sorted(WAYS)),
    sizes=SIZES,
    top_k=st.none() | st.integers(1, 30),
)
def test_an_oracle_gives_the_ideal_order_of_the_top(
    count: int, seed: int, way: str, sizes: tuple[int, int], top_k: int | None
) -> None:
    case = Case(count, seed, way, *sizes, top_k=top_k)
    ranking = case.run()

    promised = min(case.promised, top_k or count)
    ideal = sorted(range(count), key=lambda position: -case.quality[position])
    assert list(ranking.order[:promised]) == ideal[:promised]
    assert sorted(ranking.order) == list(range(count))
    if top_k is not None:
        assert list(ranking.order[top_k:]) == sorted(ranking.order[top_k:])
    assert ranking.usage.calls == len(ranking.steps)
    assert not ranking.budget_reached
    assert ranking.repairs == 0


@settings(max_examples=60)
@given(
    count=st.integers(1, 60),
    seed=st.integers(0, 2**16),
    way=st.sampled_from(sorted(WAYS)),
    max_calls=st.none() | st.integers(1, 40),
    max_tokens=st.none() | st.integers(1, 20_000),
)
def test_a_budget_is_kept_and_what_is_known_by_then_is_used(
    count: int, seed: int, way: str, max_calls: int | None, max_tokens: int | None
) -> None:
    case = Case(count, seed, way, 8, 4)
    whole = case.run()
    limits: dict[str, Any] = {"max_calls": max_calls, "max_tokens": max_tokens}
    ranking = case.run(**limits)

    assert sorted(ranking.order) == list(range(count))
    assert max_calls is None or ranking.usage.calls <= max_calls
    spent = ranking.usage.prompt_tokens + ranking.usage.completion_tokens
    assert max_tokens is None or spent <= max_tokens
    if ranking.budget_reached:
        assert len(ranking.steps) < len(whole.steps)
        # Nothing that was learned makes it worse, and without a call it is the first stage's.
        assert case.dcg(ranking.order) >= case.dcg(tuple(range(count))) - 1e-9
        assert ranking.steps or ranking.order == tuple(range(count))
    else:
        assert ranking == whole
    if case.options.votes == 1:
        assert ranking.steps == whole.steps[: len(ranking.steps)]
        if max_tokens is None and max_calls is not None:
            assert len(ranking.steps) == min(max_calls, len(whole.steps))


@pytest.mark.parametrize("way", sorted(WAYS))
def test_more_budget_is_no_worse(way: str) -> None:
    case = Case(50, 1, way, 8, 4)
    reached = [case.dcg(case.run(max_calls=calls).order) for calls in (1, 4, 9, 20, 60, 150)]
    assert reached == sorted(reached)
    assert reached[0] >= case.dcg(tuple(range(50)))


def test_a_budget_without_room_for_a_call_is_said(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(5, 0, "heap")
    ranking = case.run(max_tokens=10)
    assert ranking == Ranking(case.request, (0, 1, 2, 3, 4), (), budget_reached=True)
    (said,) = caplog.messages
    assert "query 'q' keeps its order: the budget of max_tokens 10 does not allow a single call" in said


def test_an_outer_budget_ends_what_an_inner_one_would_allow() -> None:
    case = Case(30, 2, "heap votes", 6)
    program = STRATEGIES["setwise"](
        case.request, case.prompt, window_size=6, options=replace(case.options, max_calls=20)
    )
    outer = within_budget(program, Budget(max_calls=7), case.prompt.limits)
    answer = None
    calls = []
    with pytest.raises(StopIteration) as stopped:
        while True:
            calls.append(next(outer) if answer is None else outer.send(answer))
            answer = case.backend.answer(calls[-1:])[0]
    ranking = stopped.value.value
    assert len(calls) == len(ranking.steps) == 7
    assert ranking.budget_reached


def test_a_budget_too_small_for_a_call_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(30, 2, "heap votes", 6)
    program = STRATEGIES["setwise"](case.request, case.prompt, options=replace(case.options, max_tokens=30_000))
    with pytest.raises(StopIteration):
        next(within_budget(program, Budget(max_tokens=3), case.prompt.limits))
    assert [record.getMessage().count("max_tokens 3 does not allow") for record in caplog.records] == [1]


@settings(max_examples=40)
@given(
    count=st.integers(0, 40),
    way=st.sampled_from(["iterative", "direct", "heap", "bubble", "pointwise", "direct votes", "heap votes"]),
    max_calls=st.none() | st.integers(1, 20),
    outputs=st.lists(
        st.one_of(
            st.text(max_size=20),
            st.lists(st.integers(0, 26), max_size=26).map(
                lambda numbers: f"<think>x</think><answer>{' > '.join(f'[{n}]' for n in numbers)}</answer>"
            ),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_whatever_is_answered_every_candidate_gets_a_place(
    count: int, way: str, max_calls: int | None, outputs: list[str]
) -> None:
    case = Case(count, 0, way, 5, 2)
    turn = iter(outputs * 5000)
    calls: list[Call] = []

    def reply(call: Call) -> Answer:
        calls.append(call)
        return Answer(next(turn), usage=Usage(1, 1, 1))

    ranking = case.run(reply, **({} if max_calls is None else {"max_calls": max_calls}))
    assert sorted(ranking.order) == list(range(count))
    assert len(calls) == len(ranking.steps)
    repaired = [step.repaired for step in ranking.steps]
    assert [call.repairs_before for call in calls] == [sum(repaired[:place]) for place in range(len(calls))]


@pytest.mark.parametrize("way", ["heap", "bubble", "pointwise", "direct", "iterative", "heap votes", "direct votes"])
def test_answers_that_say_nothing_leave_the_first_stage_as_it_was(way: str) -> None:
    ranking = Case(40, 0, way, 7, 3).run(lambda call: Answer("no idea"))
    assert ranking.order == tuple(range(40))
    assert ranking.repairs == len(ranking.steps) > 0


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_trace_comes_back_as_it_was(way: str, tmp_path: Path) -> None:
    case = Case(9, 4, way, 4, 2)
    ranking = case.run(max_calls=5)
    path = tmp_path / "trace.jsonl"
    with TraceWriter(path, case.strategy) as writer:
        writer.write(ranking)
    (traced,) = read_trace(path)
    assert traced.ranking == ranking
    row = json.loads(path.read_text())
    assert row.get("budget_reached", False) is ranking.budget_reached


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("setwise", {"schedule": "halving"}, "schedule='halving' is for the iterative strategy, not for setwise"),
        ("setwise", {"think": "first"}, "think='first' is for the iterative strategy"),
        ("pointwise", {"layout": "mark"}, "layout='mark' is for the iterative strategy"),
        ("direct", {"sort": "bubble"}, "sort='bubble' is for the setwise strategy, not for direct"),
        ("setwise", {"sort": "tournament"}, "sort='tournament' is for the direct strategy, not for setwise"),
        ("iterative", {"shuffle_seed": 3}, "shuffle_seed=3 is for the setwise strategy"),
        ("pointwise", {"votes": 3}, "nothing to permute: use vote_among='thoughts'"),
        ("direct", {"sort": "quick"}, "sort is 'quick': use windows or tournament or heap or bubble"),
        ("direct", {"votes": 0}, "votes is 0: give at least 1"),
        ("direct", {"vote_among": "models"}, "vote_among is 'models': use permutations or thoughts"),
        ("direct", {"vote_by": "lot"}, "vote_by is 'lot': use majority or borda"),
        ("direct", {"max_calls": 0}, "max_calls is 0: give at least 1"),
        ("direct", {"max_tokens": -1}, "max_tokens is -1"),
        ("iterative", {"votes": 2, "think": "first"}, "permutations change them"),
        ("direct", {"votes": 2, "vote_among": "thoughts", "think": "never"}, "nothing to vote among"),
    ],
)
def test_options_that_make_no_sense_are_errors(strategy: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_options_of(strategy, RankingOptions(**options))


@pytest.mark.parametrize(
    ("window_size", "stride", "message", "strategies"),
    [
        (1, 1, "window_size is 1: a prompt needs at least 2", ["iterative", "direct", "setwise"]),
        (-5, 1, "window_size is -5", ["iterative", "direct", "setwise"]),
        (2, 2, "stride is 2: give 1 to 1, less than window_size 2", ["iterative", "direct"]),
        (20, 25, "stride is 25: give 1 to 19", ["iterative", "direct"]),
        (20, 0, "stride is 0", ["iterative", "direct"]),
    ],
)
def test_other_windows_are_errors_before_any_call(
    window_size: int, stride: int, message: str, strategies: list[str]
) -> None:
    case = Case(3, 0, "direct")
    for strategy in strategies:
        with pytest.raises(InputError, match=message):
            next(STRATEGIES[strategy](case.request, case.prompt, window_size=window_size, stride=stride))


@pytest.mark.latest
@pytest.mark.parametrize("checkpoint", ["chatml", "gemma", "plain"])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_real_models_ranking_is_whole_and_needs_no_repair(
    strategy: str, checkpoint: str, make_checkpoint: Callable[..., Path]
) -> None:
    """What a release of the libraries must not break."""
    ranker = Ranker(
        make_checkpoint(checkpoint), strategy=strategy, device="cpu", max_thought_tokens=6, max_repair_rate=1.0
    )
    request = Conversation.request(5)
    [ranking] = ranker.rank([request])
    assert sorted(ranking.order) == [0, 1, 2, 3, 4]
    # Lists of grades are written freely, and a random model writes none.
    assert ranking.repairs == (strategy == "groupwise")
    assert ranker.rank([request])[0].order == ranking.order
