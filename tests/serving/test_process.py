"""The verb as a process: what it logs, how it ends, and what it says when it can't begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import r1ranker, said
from loopback import Running, wait_until

DOCUMENTS = ["the moon is bright", "fleas jump far", "a boat sails", "wool is spun"]
ASKED = {"query": "how far do fleas jump", "documents": DOCUMENTS}


@contextmanager
def process(tmp_path: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Running]]:
    log = tmp_path / "log.jsonl"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "r1ranker_ir", "serve", "--no-cache", "--port", "0", *words]
        started = subprocess.Popen(command, stderr=file, env={**os.environ, **environment})
    try:

        def address() -> str:
            lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
            assert started.poll() is None, log.read_text()
            return next((each["url"] for line in lines if "url" in (each := json.loads(line))), "")

        wait_until(lambda: bool(address()))
        running = Running(address(), None)  # type: ignore[arg-type]
        wait_until(lambda: running.get("/ready").status_code == 200)
        yield started, running
    finally:
        started.kill()
        started.wait()


def test_what_was_accepted_is_finished_after_sigterm(tmp_path):
    with process(tmp_path, "--reranker", "small=r1ranker-iterative-tiny") as (started, service):
        with ThreadPoolExecutor(24) as pool:
            answers = [pool.submit(service.post, "/v1/rerank", ASKED) for _ in range(24)]

            def under_way() -> bool:
                counts = service.get("/metrics").text
                return "r1ranker_active 24.0" in counts or 'status="200"} 24.0' in counts

            wait_until(under_way)
            started.send_signal(signal.SIGTERM)
            done = [each.result() for each in answers]
        assert [each.status_code for each in done] == [200] * 24
        assert {each.json()["order"] for each in done} == {"complete"}
        assert started.wait(60) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    ranked = [each for each in lines if each.get("path") == "/v1/rerank"]
    assert len(ranked) == 24 and {each["calls"] for each in ranked} == {3}
    assert not any(word in (tmp_path / "log.jsonl").read_text() for word in ("flea", "moon", "wool"))


def test_rerankers_of_a_file_and_keys_of_the_environment(tmp_path):
    file = tmp_path / "rerankers.yaml"
    file.write_text("- name: quick\n  reranker: r1ranker-iterative-tiny\n  max_calls: 1\n")
    with process(tmp_path, "--rerankers", str(file), R1RANKER_API_KEYS="secret, other") as (_, service):
        assert service.post("/v2/rerank", ASKED).status_code == 401
        answer = service.post("/v2/rerank", ASKED, headers={"authorization": "Bearer other"}).raise_for_status()
    assert answer.json()["model"] == "quick" and answer.json()["order"] == "partial"
    assert "secret" not in (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ((), 2, "give at least one reranker"),
        (("--reranker", "=r1ranker-iterative-tiny"), 2, "no name of its own"),
        (("--reranker", "r1ranker-iterative-tiny", "--reranker", "r1ranker-iterative-tiny"), 2, "no name of its own"),
        (("--reranker", "small=nowhere"), 2, "nowhere"),
        (("--reranker", "a=r1ranker-iterative-tiny", "--deadline", "0"), 1, "deadline is 0"),
        (("--reranker", "a=r1ranker-iterative-tiny", "--port", "70000"), 2, "65535"),
        (("--reranker", "a=r1ranker-iterative", "--model", "/nowhere", "--port", "0"), 1, "/nowhere"),
        (("--rerankers", "oracle"), 1, "can't be served"),
    ],
)
def test_what_can_not_be_served_is_said(words, code, expected):
    assert expected in said(r1ranker("serve", *words, code=code))
