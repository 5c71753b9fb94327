"""The engine: answers go back to whoever asked, in bounded batches, from several threads, and everything is counted."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import WordLimits

from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.engine.engine import Engine, RunSummary
from r1ranker_ir.errors import BackendError, RepairRateError, StorageError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import CLOSED_AT, Answer, Call, Candidate, Program, Ranking, RankingRequest, Usage


class NumberBackend(WordLimits):
    """Ranks numbers by size, as a text that is to be parsed; some answers fail by a rule."""

    name: str = "numbers"

    def __init__(self, batch_size: int = 4, *, fails: Callable[[int], bool] = lambda call: False) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.fails = fails
        self.identity: dict[str, Any] = {"backend": "numbers"}
        self.batches: list[int] = []
        self.calls = 0
        self.inside = 0

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        self.inside += 1
        assert self.inside == 1, "two batches at once"
        self.batches.append(len(calls))
        time.sleep(0)
        answers = [self._answer(call) for call in calls]
        self.inside -= 1
        return answers

    def _answer(self, call: Call) -> Answer:
        self.calls += 1
        numbers = [
            int(number) for number in re.findall(r"^\[\d+\] number (\d+)", call.messages[-1].content, re.MULTILINE)
        ]
        order = sorted(range(len(numbers)), key=lambda index: -numbers[index])
        chosen = order if call.form == "order" else order[-1:]
        text = " > ".join(f"[{index + 1}]" for index in chosen)
        if self.fails(self.calls):
            text = "no idea"
        closed = self.calls % 3 == 0
        where = (*CLOSED_AT, None)[self.calls // 3 % 4] if closed else None
        return Answer(
            f"<think>x</think><answer>{text}</answer>",
            "x",
            thought_closed=closed,
            usage=Usage(1, 100, 7),
            closed_at=where,
        )


def numbers(seed: int, count: int) -> RankingRequest:
    values = random.Random(seed).sample(range(1000), count)
    return RankingRequest(f"query {seed}", tuple(Candidate(str(value), f"number {value} and more") for value in values))


def program(request: RankingRequest, backend: Any, strategy: str = "iterative", **options: Any) -> Program:
    return STRATEGIES[strategy](request, Prompt(load_template(), backend, max_passage_tokens=2), **options)


def assert_sorted(ranking: Ranking, seed: int, count: int) -> None:
    assert ranking.request == numbers(seed, count)
    values = [int(ranking.request.candidates[position].id) for position in ranking.order]
    assert values == sorted(values, reverse=True)


@given(
    counts=st.lists(st.integers(0, 12), max_size=12),
    batch_size=st.integers(1, 6),
    strategy=st.sampled_from(["iterative", "direct"]),
)
def test_every_program_gets_its_own_answers(counts: list[int], batch_size: int, strategy: str) -> None:
    backend = NumberBackend(batch_size)
    engine = Engine(backend)
    rankings = engine.run([program(numbers(seed, count), backend, strategy) for seed, count in enumerate(counts)])

    assert len(rankings) == len(counts)
    for seed, (count, ranking) in enumerate(zip(counts, rankings, strict=True)):
        assert_sorted(ranking, seed, count)
    assert all(1 <= size <= batch_size for size in backend.batches)
    assert engine.summary.queries == len(counts)
    assert engine.summary.usage.calls == backend.calls == sum(len(ranking.steps) for ranking in rankings)


def test_programs_are_taken_one_by_one_as_places_become_free() -> None:
    backend = NumberBackend(3)
    taken = 0

    def endless() -> Iterator[Program]:
        nonlocal taken
        while True:
            taken += 1
            yield program(numbers(taken, 2 + taken % 4), backend)

    finished = []
    for index, ranking in Engine(backend).stream(endless()):
        finished.append(index)
        assert_sorted(ranking, index + 1, 2 + (index + 1) % 4)
        assert taken - len(finished) <= 3
        if len(finished) == 40:
            break
    # What finishes first is yielded first, and nothing is passed over.
    assert finished != sorted(finished)
    assert set(range(30)) <= set(finished)


def test_the_summary_is_the_sum_over_rankings() -> None:
    backend = NumberBackend(5, fails=lambda call: call % 7 == 0)
    engine = Engine(backend, max_repair_rate=0.5)
    assert engine.summary == RunSummary()
    rankings = engine.run(
        [
            program(numbers(seed, seed), backend, ("iterative", "direct")[seed % 2], window_size=6, stride=2)
            for seed in range(15)
        ]
    )
    steps = [step for ranking in rankings for step in ranking.steps]
    summary = engine.summary

    assert summary.queries == 15
    assert summary.usage == sum((ranking.usage for ranking in rankings), Usage())
    assert summary.usage == Usage(len(steps), 100 * len(steps), 7 * len(steps))
    assert summary.repairs == sum(ranking.repairs for ranking in rankings) == backend.calls // 7 > 0
    assert summary.thoughts_closed == sum(step.thought_closed for step in steps) > 0
    known = summary.closed_at_limit, summary.closed_at_end_of_turn, summary.closed_at_answer
    assert known == tuple(sum(step.closed_at == where for step in steps) for where in CLOSED_AT)
    assert all(known) and sum(known) < summary.thoughts_closed
    unknown = summary.thoughts_closed - sum(known)
    assert summary.closed_thoughts == (
        f"{summary.thoughts_closed} thoughts not closed by the model ({known[0]} at the limit, {known[1]} ended by the "
        f"model's end of turn, {known[2]} ended by an answer, {unknown} for a reason that was not recorded)"
    )
    # Each passage has four words, and two are shown.
    assert summary.cut_passages == sum(step.cut_passages for step in steps) == sum(len(step.shown) for step in steps)
    assert 0 < summary.seconds < 60
    engine.run([program(numbers(1, 3), backend)])
    assert (engine.summary.queries, engine.summary.usage.calls) == (16, len(steps) + 2)


def test_too_many_repairs_stop_a_run_after_fifty_calls() -> None:
    backend = NumberBackend(4, fails=lambda call: call % 3 == 0)
    finished = []
    with pytest.raises(RepairRateError) as caught:
        for index, ranking in Engine(backend).stream(program(numbers(seed, 8), backend) for seed in range(100)):
            finished.append(index)
            assert sorted(ranking.order) == list(range(8))
    assert 50 <= backend.calls < 54
    # What was ready by then has been handed over.
    assert finished == list(range(len(finished)))
    assert len(finished) == 4
    message = str(caught.value)
    assert re.search(rf"\d+ of {backend.calls} answers of 'numbers' had to be repaired", message)
    assert "max_repair_rate 20%" in message


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
@pytest.mark.parametrize("every", [2, 4, 5, 6, 10])
def test_the_limit_is_on_the_rate(every: int, strategy: str) -> None:
    backend = NumberBackend(4, fails=lambda call: call % every == 0)
    engine = Engine(backend)
    programs = [program(numbers(seed, 6), backend, strategy) for seed in range(60)]
    if every < 5:
        with pytest.raises(RepairRateError):
            engine.run(programs)
    else:
        assert sum(ranking.repairs for ranking in engine.run(programs)) == engine.summary.repairs
        assert engine.summary.repairs == backend.calls // every


def test_a_short_run_is_not_stopped_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    backend = NumberBackend(4, fails=lambda call: True)
    # 49 calls: one less than what a rate needs.
    rankings = Engine(backend).run([program(numbers(1, count), backend) for count in (40, 11)])
    assert [ranking.order for ranking in rankings] == [tuple(range(40)), tuple(range(11))]
    assert "49 of 49 answers of 'numbers' had to be repaired (100%)" in caplog.text
    caplog.clear()
    good = NumberBackend(4, fails=lambda call: call == 5)
    Engine(good).run([program(numbers(1, 7), good)])
    Engine(backend, max_repair_rate=1.0).run([program(numbers(1, 7), backend)])
    assert not caplog.text


def test_a_service_whose_model_breaks_after_a_long_good_time_is_stopped_and_comes_back() -> None:
    broken = False
    backend = NumberBackend(4, fails=lambda call: broken)
    engine = Engine(backend)

    def rank(seed: int) -> Ranking:
        return engine.run([program(numbers(seed, 20), backend)])[0]

    for seed in range(60):
        assert_sorted(rank(seed), seed, 20)
    broken = True
    calls = backend.calls
    with pytest.raises(RepairRateError):
        for seed in range(60):
            rank(seed)
    # A fifth of the latest 200, and not of all 1140.
    assert 40 < backend.calls - calls < 60
    # Still broken, it makes few calls.
    calls = backend.calls
    with pytest.raises(RepairRateError) as caught:
        rank(1)
    assert backend.calls == calls + 1
    assert not caught.value.rankings
    broken = False
    assert_sorted(rank(2), 2, 20)


def test_a_run_that_turns_bad_with_its_last_answers_is_an_error_too() -> None:
    backend = NumberBackend(1, fails=lambda call: call > 40)
    with pytest.raises(RepairRateError, match="11 of 51"):
        Engine(backend, max_repair_rate=0.2).run([program(numbers(1, 52), backend)])


def test_the_limit_can_be_lifted_and_tightened() -> None:
    hopeless = NumberBackend(4, fails=lambda call: True)
    assert len(Engine(hopeless, max_repair_rate=1.0).run([program(numbers(1, 100), hopeless)])) == 1
    once = NumberBackend(1, fails=lambda call: call == 60)
    with pytest.raises(RepairRateError, match="1 of 60 answers"):
        Engine(once, max_repair_rate=0).run([program(numbers(1, 100), once)])


def test_a_failing_backend_fails_the_run_and_not_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = NumberBackend()
    engine = Engine(backend)
    with monkeypatch.context() as patch, pytest.raises(BackendError, match="gone"):
        patch.setattr(backend, "answer", mock.Mock(side_effect=BackendError("gone")))
        engine.run([program(numbers(1, 4), backend)])
    assert_sorted(engine.run([program(numbers(1, 4), backend)])[0], 1, 4)
    assert engine.summary.queries == 1


def test_a_model_in_threads_gives_what_it_gives_alone(open_model: Callable[..., Any]) -> None:
    backend = open_model("chatml", max_thought_tokens=3, batch_size=4)

    def make(seed: int) -> Program:
        return program(numbers(seed, 3 + seed % 3), backend, ("iterative", "direct")[seed % 2])

    expected = [Engine(backend).run([make(seed)])[0] for seed in range(4)]
    engine = Engine(backend)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda seeds: engine.run([make(seed) for seed in seeds]), [(0, 1), (2, 3)]))
    together = engine.run([make(seed) for seed in range(4)])
    for ranking, *others in zip(expected, [ranking for pair in found for ranking in pair], together, strict=True):
        for other in others:
            assert other.order == ranking.order
            assert [step.thought for step in other.steps] == [step.thought for step in ranking.steps]
    assert engine.summary.usage == sum((ranking.usage for ranking in expected * 2), Usage())
    assert engine.summary.repairs == 0


class SteadyBackend(NumberBackend):
    """Answers the same call the same way each time, some of them with nothing that can be used."""

    def _answer(self, call: Call) -> Answer:
        digest = hashlib.sha256(repr(call.messages).encode()).digest()
        self.fails = lambda calls: digest[0] % 7 == 0
        probabilities = {identifier: digest[1] / (place + 3) for place, identifier in enumerate(call.identifiers)}
        usage = Usage(1, digest[2], digest[3])
        return replace(
            super()._answer(call),
            thought_closed=digest[4] % 2 == 0,
            closed_at=(*CLOSED_AT, None)[digest[5] % 4] if digest[4] % 2 == 0 else None,
            probabilities=probabilities,
            usage=usage,
        )


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 6), max_size=10),
    known=st.lists(st.integers(0, 6), max_size=4),
    batch_sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    strategy=st.sampled_from(["iterative", "direct"]),
)
def test_a_cache_changes_nothing_but_the_number_of_calls_made(
    seeds: list[int], known: list[int], batch_sizes: tuple[int, int], strategy: str
) -> None:
    def run(seeds: list[int], cache: CompletionsCache | None, batch_size: int = 4) -> tuple[list[Any], RunSummary, int]:
        backend = SteadyBackend(batch_size)
        engine = Engine(backend, max_repair_rate=1, cache=cache)
        rankings = engine.run([program(numbers(seed, seed + 2), backend, strategy) for seed in seeds])
        summary = replace(engine.summary, seconds=0.0)
        assert summary.cached_calls == summary.usage.calls - backend.calls
        assert all(1 <= size <= batch_size for size in backend.batches)
        return rankings, replace(summary, cached_calls=0, prompt_tokens_computed=0), backend.calls

    plain, counts, _ = run(seeds, None)
    with tempfile.TemporaryDirectory() as folder, CompletionsCache(Path(folder) / "cache.sqlite") as cache:
        run(known, cache, batch_sizes[0])
        before = cache.info().entries
        for batch_size in batch_sizes:
            rankings, cached_counts, made = run(seeds, cache, batch_size)
            assert rankings == plain
            assert cached_counts == counts
            # Each call is made once, however often it is asked for.
            assert made == cache.info().entries - before
            before = cache.info().entries
        assert made == 0


def test_answers_are_kept_from_batch_to_batch(tmp_path: Path) -> None:
    class Dying(SteadyBackend):
        def answer(self, calls: Sequence[Call]) -> list[Answer]:
            if len(self.batches) == 3:
                raise BackendError("the server is gone")
            return super().answer(calls)

    with CompletionsCache(tmp_path / "cache.sqlite") as cache:
        dying = Dying(4)
        with pytest.raises(BackendError):
            Engine(dying, cache=cache).run([program(numbers(seed, 9), dying) for seed in range(8)])
        assert cache.info().entries == 12
        backend = SteadyBackend(4)
        engine = Engine(backend, cache=cache, max_repair_rate=1)
        engine.run([program(numbers(seed, 9), backend) for seed in range(8)])
        assert (engine.summary.cached_calls, backend.calls) == (12, 8 * 8 - 12)


def test_a_cache_that_fails_stops_the_run_and_what_was_yielded_stays(tmp_path: Path) -> None:
    cache = CompletionsCache(tmp_path / "cache.sqlite")
    backend = SteadyBackend(2)
    finished = []
    with pytest.raises(StorageError, match="closed"):
        programs = (program(numbers(seed, 4), backend) for seed in range(20))
        for _, ranking in Engine(backend, cache=cache, max_repair_rate=1).stream(programs):
            finished.append(ranking)
            if len(finished) == 3:
                cache.close()
    assert len(finished) == 4


def test_what_may_be_answered_otherwise_another_time_is_not_cached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = SteadyBackend()
    backend.identity["not_cacheable"] = "it throws dice"
    with CompletionsCache(tmp_path / "cache.sqlite") as cache, caplog.at_level(logging.WARNING):
        engine = Engine(backend, cache=cache)
        engine.run([program(numbers(1, 5), backend), program(numbers(1, 5), backend)])
        assert (backend.calls, cache.info().entries, engine.summary.cached_calls) == (8, 0, 0)
    assert "the answers of 'numbers' are not cached: it throws dice" in caplog.text


def test_threads_have_each_call_made_once(tmp_path: Path) -> None:
    backend = SteadyBackend(3)
    with CompletionsCache(tmp_path / "cache.sqlite") as cache, ThreadPoolExecutor(6) as pool:
        engine = Engine(backend, max_repair_rate=1, cache=cache)
        requests = [numbers(seed, 7) for seed in range(5)]
        alone = Engine(SteadyBackend(3), max_repair_rate=1).run([program(each, backend) for each in requests])
        runs = list(pool.map(lambda _: engine.run([program(each, backend) for each in requests]), range(6)))
        assert runs == [alone] * 6
        assert backend.calls == cache.info().entries == 30
