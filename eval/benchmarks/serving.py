"""What waiting costs: rankings on a server each at its own pace, in lockstep and as tasks; threads on one model."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.backends.base import Backend
from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.types import Answer, Call, Candidate, Ranking, RankingRequest


@dataclass(frozen=True)
class Waiting:
    """How a server's replies come: tokens on average, their standard deviation in averages, and how many at once."""

    tokens: float = 300.0
    spread: float = 0.6
    milliseconds: float = 5.0
    slots: int = 32


@dataclass(frozen=True)
class ServingRow:
    """One comparison: seconds of both sides, and whether their rankings were the same."""

    name: str
    seconds: float
    against: str
    baseline: float
    same: bool

    @property
    def ratio(self) -> float:
        """How many times as long the baseline takes."""
        return self.baseline / self.seconds


def serving_sheet(rows: Sequence[ServingRow]) -> Sheet:
    """A row per comparison."""
    cells = [
        (row.name, f"{row.seconds:.1f}", row.against, f"{row.baseline:.1f}", f"{row.ratio:.2f}", str(row.same).lower())
        for row in rows
    ]
    return Sheet(
        "What waiting costs", ("what", "seconds", "against", "seconds", "ratio", "same rankings"), tuple(cells)
    )


class _WholeBatches:
    """A server's backend that answers whole batches only, as engines in lockstep ask."""

    def __init__(self, backend: OpenAIBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        if name == "submit":
            raise AttributeError(name)
        return getattr(self._backend, name)

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers a whole batch."""
        return self._backend.answer(calls)


def made_requests(queries: int, candidates: int) -> list[RankingRequest]:
    """Requests whose passages are told apart by a number: the smaller it is, the better the passage."""
    return [
        RankingRequest(
            f"question {query}",
            tuple(Candidate(str(place), f"number {place}: a passage") for place in range(candidates)),
            query_id=f"q{query}",
        )
        for query in range(queries)
    ]


@contextlib.contextmanager
def slow_server(waiting: Waiting) -> Iterator[str]:
    """Runs the server in a process of its own, and gives its address."""
    options = [f"--{name}={value}" for name, value in vars(waiting).items()]
    command = [sys.executable, "-m", "r1ranker_ir.eval.benchmarks.slow_server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def measure_server(waiting: Waiting, *, queries: int = 64, tasks: int = 32, candidates: int = 20) -> list[ServingRow]:
    """Ranks by elimination on the server: at each ranking's own pace and in lockstep; as tasks and as one batch."""
    requests = made_requests(queries, candidates)
    with slow_server(waiting) as address:
        own = OpenAIBackend("m", base_url=address, concurrency=waiting.slots)
        prompt = Prompt(load_template(), own)

        def together(backend: Backend, some: Sequence[RankingRequest]) -> list[Ranking]:
            return Engine(backend).run([eliminate(request, prompt) for request in some])

        async def as_tasks(some: Sequence[RankingRequest]) -> list[Ranking]:
            engine = Engine(own)
            return list(await asyncio.gather(*(engine.rank_async(eliminate(each, prompt)) for each in some)))

        lockstep: Any = _WholeBatches(
            OpenAIBackend("m", base_url=address, concurrency=waiting.slots, batch_size=queries)
        )
        return [
            _compared(
                (f"{queries} rankings, each at its own pace", lambda: together(own, requests)),
                ("in lockstep", lambda: together(lockstep, requests)),
            ),
            _compared(
                (f"{tasks} rank_async at once", lambda: asyncio.run(as_tasks(requests[:tasks]))),
                ("one rank_batch of them", lambda: together(own, requests[:tasks])),
            ),
        ]


def measure_threads(*, threads: int = 8, candidates: int = 10) -> ServingRow:
    """Ranks with the embedded model: threads that share it, against one batch of the same requests."""
    requests = made_requests(threads, candidates)
    ranker = Ranker(TINY_CHECKPOINT, strategy="iterative")
    ranker.rank(requests[:1])

    def in_threads() -> list[Ranking]:
        with ThreadPoolExecutor(threads) as pool:
            return [ranking for one in pool.map(lambda each: ranker.rank([each]), requests) for ranking in one]

    return _compared(
        (f"{threads} threads on the embedded model", in_threads), ("one batch", lambda: ranker.rank(requests))
    )


def _compared(
    one: tuple[str, Callable[[], list[Ranking]]], other: tuple[str, Callable[[], list[Ranking]]]
) -> ServingRow:
    seconds, orders = [], []
    for _, work in (one, other):
        started = time.perf_counter()
        rankings = work()
        seconds.append(time.perf_counter() - started)
        orders.append([ranking.order for ranking in rankings])
    return ServingRow(one[0], seconds[0], other[0], seconds[1], orders[0] == orders[1])
