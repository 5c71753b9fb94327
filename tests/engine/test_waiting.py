"""Callers that wait side by side: on a model they share batches, and on a server nobody waits for others."""

from __future__ import annotations

import asyncio
import queue
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import Reply, Request, Serve, completion
from stand_ins import WordLimits

from r1ranker_ir.backends.base import Turn
from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import BackendError, CallError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.types import Answer, Call, Candidate, Ranking, RankingRequest, Usage


def largest_last(text: str) -> str:
    """Excludes the passage of the largest number."""
    shown = re.findall(r"^\[(\d+)\] number (\d+)", text, re.MULTILINE)
    return f"<think>x</think><answer>[{max(shown, key=lambda each: int(each[1]))[0]}]</answer>"


class SlowBackend(WordLimits):
    """A model in memory: one batch at a time, each of which takes a moment."""

    name = "slow"

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.identity = {"backend": "slow"}
        self.batch_size = batch_size
        self.batches: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        self.batches.append(len(calls))
        self.may_go_on.wait()
        time.sleep(0.01)
        texts = [call.messages[-1].content for call in calls]
        if any("cursed" in text for text in texts):
            raise BackendError("a cursed passage")
        return [Answer(largest_last(text), "x", usage=Usage(1, 10, 1)) for text in texts]


class ScoresLater(WordLimits):
    """Takes calls of one ranking, which asks ahead, and answers once all are there: the first one last of all."""

    name = "scores"
    batch_size = 4

    def __init__(self, calls: int, first: Exception | None = None) -> None:
        super().__init__()
        self.identity = {"backend": "scores"}
        self.calls, self.first = calls, first
        self.futures: list[Future[Answer]] = []

    def submit(self, call: Call, turn: Turn, stop: threading.Event) -> Future[Answer]:
        self.futures.append(Future())
        if len(self.futures) == self.calls:
            threading.Thread(target=self._answer).start()
        return self.futures[-1]

    def _answer(self) -> None:
        for place, future in reversed(list(enumerate(self.futures))):
            if place == 0 and self.first is not None:
                future.set_exception(self.first)
            else:
                future.set_result(Answer("query", log_probabilities=(-float(place),), usage=Usage(1, 10, 1)))

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        raise AssertionError("calls are submitted")


def request(number: int, count: int = 5, words: str = "") -> RankingRequest:
    values = random.Random(number).sample(range(1000), count)
    return RankingRequest(f"query {number}", tuple(Candidate(str(each), f"number {each} {words}") for each in values))


def is_sorted(ranking: Ranking) -> bool:
    values = [int(ranking.request.candidates[place].id) for place in ranking.order]
    return values == sorted(values)


def engine_on(backend: Any) -> tuple[Engine, Any]:
    prompt = Prompt(load_template(), backend)
    return Engine(backend), lambda *given: eliminate(request(*given), prompt)


def test_threads_share_batches() -> None:
    engine, program = engine_on(backend := SlowBackend())
    with ThreadPoolExecutor(8) as pool:
        rankings = list(pool.map(lambda number: engine.run([program(number)])[0], range(8)))
    assert all(map(is_sorted, rankings))
    assert sum(backend.batches) == engine.summary.usage.calls == 8 * 4
    assert len(backend.batches) <= 12  # of at least 4


def test_thousands_of_tasks_take_one_thread() -> None:
    engine, program = engine_on(backend := SlowBackend(64))

    async def rank_all() -> tuple[list[Ranking], int]:
        tasks = [asyncio.create_task(engine.rank_async(program(number))) for number in range(3000)]
        await asyncio.sleep(0.02)
        return await asyncio.gather(*tasks), threading.active_count() - before

    before = threading.active_count()
    rankings, threads = asyncio.run(rank_all())
    assert all(map(is_sorted, rankings))
    assert threads <= 1
    assert len(backend.batches) <= 380  # of at least 188


def test_an_error_meets_only_whoever_provoked_it() -> None:
    engine, program = engine_on(SlowBackend())

    async def rank_all() -> list[Any]:
        programs = [program(number, 4, "cursed" if number == 3 else "") for number in range(6)]
        return await asyncio.gather(*map(engine.rank_async, programs), return_exceptions=True)

    outcomes = asyncio.run(rank_all())
    assert isinstance(outcomes.pop(3), BackendError)
    assert all(map(is_sorted, outcomes))


def test_a_cancelled_task_makes_no_further_calls() -> None:
    engine, program = engine_on(backend := SlowBackend())

    async def cancel_one() -> Ranking:
        backend.may_go_on.clear()
        cancelled, kept = (asyncio.create_task(engine.rank_async(program(number))) for number in range(2))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        backend.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return await kept

    assert is_sorted(asyncio.run(cancel_one()))
    assert sum(backend.batches) <= 2 + 3


def served(serve: Serve, **options: Any) -> tuple[Any, OpenAIBackend]:
    server = serve(lambda asked: completion(largest_last(asked.question)))
    return server, OpenAIBackend("m", base_url=server.base_url, **options)


def test_tasks_on_a_server_take_no_threads_and_keep_to_the_concurrency(serve: Serve) -> None:
    server, backend = served(serve, concurrency=4)
    engine, program = engine_on(backend)

    async def rank_all() -> tuple[list[Ranking], int]:
        tasks = [asyncio.create_task(engine.rank_async(program(number, 3))) for number in range(100)]
        await asyncio.sleep(0.05)
        mine = sum(not thread.name.startswith("Thread") for thread in threading.enumerate()) - before
        return await asyncio.gather(*tasks), mine

    before = threading.active_count()
    rankings, threads = asyncio.run(rank_all())
    assert all(map(is_sorted, rankings))
    assert threads <= 3  # that of the connection, and those in which it looks up addresses
    assert server.most_active <= 4
    assert engine.summary.usage.calls == len(server.requests) == 200


def test_thousands_wait_for_a_server_and_those_that_are_cancelled_ask_nothing(serve: Serve) -> None:
    go_on = threading.Event()

    def reply(asked: Request) -> Reply:
        go_on.wait(60)
        return completion(largest_last(asked.question))

    server = serve(reply)
    engine, program = engine_on(OpenAIBackend("m", base_url=server.base_url, concurrency=4))

    async def rank_all() -> tuple[list[Any], int]:
        tasks = [asyncio.create_task(engine.rank_async(program(number, 3))) for number in range(3000)]
        await asyncio.sleep(0)
        while len(server.requests) < 4:
            await asyncio.sleep(0.01)
        mine = sum(not thread.name.startswith("Thread") for thread in threading.enumerate()) - before
        for task in tasks[100:]:
            task.cancel()
        go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True), mine

    before = threading.active_count()
    outcomes, threads = asyncio.run(rank_all())
    assert all(map(is_sorted, outcomes[:100]))
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[100:])
    assert threads <= 3
    assert server.most_active <= 4
    assert len(server.requests) <= 200 + 4


def test_a_slow_ranking_holds_up_no_other(serve: Serve) -> None:
    """The first ranking's first reply comes last of all."""
    others_done = threading.Event()

    def reply(asked: Request) -> Reply:
        if "query 0" in asked.question:
            others_done.wait(20)
        return completion(largest_last(asked.question))

    engine, program = engine_on(OpenAIBackend("m", base_url=serve(reply).base_url, concurrency=3))
    finished = []
    for index, ranking in engine.stream(program(number, 6) for number in range(5)):
        assert is_sorted(ranking)
        finished.append(index)
        if len(finished) == 4:
            others_done.set()
    assert finished[-1] == 0


def test_one_failed_call_fails_its_ranking_alone(serve: Serve) -> None:
    def reply(asked: Request) -> Reply:
        refused = "query 2" in asked.question
        return (
            Reply('{"error": {"message": "no"}}', status=400) if refused else completion(largest_last(asked.question))
        )

    engine, program = engine_on(OpenAIBackend("m", base_url=serve(reply).base_url))

    async def rank_all() -> list[Any]:
        return await asyncio.gather(*(engine.rank_async(program(each)) for each in range(4)), return_exceptions=True)

    outcomes = asyncio.run(rank_all())
    assert isinstance(outcomes.pop(2), CallError)
    assert all(map(is_sorted, outcomes))


def by_likelihood(backend: ScoresLater, number: int) -> Any:
    return STRATEGIES["likelihood"](request(number), Prompt(load_template(), backend))


def test_a_failure_behind_answers_to_what_was_asked_ahead_ends_the_run() -> None:
    backend = ScoresLater(5, BackendError("the server is gone"))
    ended = queue.SimpleQueue[str]()

    def run() -> None:
        with pytest.raises(BackendError, match="the server is gone"):
            Engine(backend).run([by_likelihood(backend, 0)])
        ended.put("with its error")

    threading.Thread(target=run, daemon=True).start()
    assert ended.get(timeout=20) == "with its error"


def test_cached_answers_to_what_was_asked_ahead_are_counted(tmp_path: Path) -> None:
    with CompletionsCache(tmp_path / "cache.sqlite") as cache:
        for cached in (0, 5):
            engine = Engine(backend := ScoresLater(5), cache=cache)
            assert engine.run([by_likelihood(backend, 0)])[0].order == (0, 1, 2, 3, 4)
            assert (engine.summary.usage.calls, engine.summary.cached_calls) == (5, cached)
