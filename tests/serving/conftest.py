"""The service on loopback, over a model in memory that sorts numbers, or over the embedded one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loopback import NumbersBackend, Running, numbers_source, running

from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.serving.service import Service


@pytest.fixture
def backend() -> Iterator[NumbersBackend]:
    made = NumbersBackend()
    yield made
    made.may_go_on.set()


@pytest.fixture
def numbers(backend: NumbersBackend) -> Iterator[Running]:
    with running(Service({"numbers": numbers_source(backend), "other": numbers_source(NumbersBackend())})) as found:
        yield found


@pytest.fixture(scope="package")
def embedded() -> Iterator[Running]:
    names = {"small": "r1ranker-iterative-tiny", "direct": "r1ranker-direct-tiny"}
    with running(Service({name: find_ranker(reranker) for name, reranker in names.items()})) as found:
        yield found
