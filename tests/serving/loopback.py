"""The service on loopback, over a model in memory that sorts numbers, or over the embedded one."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from r1ranker_ir.errors import BackendError
from r1ranker_ir.rankers.source import RankerSource, ranker_source
from r1ranker_ir.types import Answer, Call, Message, Usage

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from r1ranker_ir.serving.app import application  # noqa: E402
from r1ranker_ir.serving.service import Service  # noqa: E402


class NumbersBackend:
    """A model in memory: excludes the passage of the largest number; waits, or fails, when it is told to."""

    name = "numbers"
    context_length = None
    answer_reserve = 0
    control_tokens = ()

    def __init__(self) -> None:
        self.identity = {"backend": "numbers", "not_cacheable": "it may fail"}
        self.batch_size = 8
        self.batches: list[int] = []
        self.prompts: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        self.batches.append(len(calls))
        self.may_go_on.wait(30)
        texts = [call.messages[-1].content for call in calls]
        self.prompts += texts
        if self.fails or any("cursed" in text for text in texts):
            raise BackendError(f"the server says: {texts[0]}")
        return [self._answer(text) for text in texts]

    @staticmethod
    def _answer(text: str) -> Answer:
        shown = re.findall(r"^\[(\d+)\] (?:text: )?number (\d+)", text, re.MULTILINE)
        worst = max(shown, key=lambda each: int(each[1]))[0] if shown else "1"
        return Answer(f"<think>{worst}</think><answer>[{worst}]</answer>", worst, usage=Usage(1, 10, 1))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def cut_text(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    url: str
    service: Service

    @contextlib.contextmanager
    def client(self, **given: Any) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False, **given) as client:
            yield client

    def post(self, path: str, body: Any, **given: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, **given)

    def get(self, path: str, **given: Any) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **given)


@contextmanager
def running(service: Service) -> Iterator[Running]:
    """Runs a service in a thread."""
    server = uvicorn.Server(uvicorn.Config(application(service), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started and service.is_ready)
    try:
        yield Running(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(60)


def wait_until(happens: Callable[[], bool]) -> None:
    for _ in range(6000):
        if happens():
            return
        time.sleep(0.01)
    raise AssertionError("it has not happened within a minute")


def numbers_source(backend: NumbersBackend, **given: Any) -> RankerSource:
    return ranker_source("numbers", "iterative", {"backend": backend, **given})
