"""The engine's own time and memory: what the command measures, not how long it takes."""

from __future__ import annotations

import gc
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engine import EngineBenchmark, main

from r1ranker_ir.backends.base import Backend

SMALL = EngineBenchmark(candidates=30, batch_size=2)


# 30 candidates: 10 leave the first window of 20, then the other 20 run down to one.
@pytest.mark.parametrize(("schedule", "calls"), [("one", 10 + 19), ("fixed:5", 2 + 4), ("halving:5", 1 + 1 + 1 + 4)])
def test_calls_and_times_are_consistent(schedule: str, calls: int) -> None:
    assert isinstance(SMALL.backend(), Backend)
    found = SMALL.measure(3, schedule, 20)
    parts = [found[name] for name in ("tokenizing", "prompting", "bookkeeping")]
    assert found["calls"] == 3 * calls and found["own"] == pytest.approx(sum(parts)) and min(parts) > 0


def test_the_command_prints_times_or_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    small: dict[str, Any] = {"candidates": 4, "queries": 2, "output": str(output), "schedule": ["one", "halving:5"]}
    main(**small, passage_tokens=[0, 9], memory=[])
    lines = capsys.readouterr().out.splitlines()
    combinations = [(schedule, shown) for schedule in ("one", "halving:5") for shown in (None, 9)]
    for line, (schedule, shown) in zip(lines, combinations, strict=True):
        assert line.startswith(f"schedule {schedule}, max_passage_tokens {shown}, queries 2, calls 6, own ")
    written = json.loads(output.read_text())
    assert [each["calls"] for each in written["figures"]] == [6] * 4 and written["benchmark"]["candidates"] == 4
    main(**small, passage_tokens=[], memory=[8, 2])
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["queries 2", "queries 8"]
    first, last = json.loads(output.read_text())["figures"]
    assert 10**6 < first["peak_bytes"] <= last["peak_bytes"]


def test_nothing_is_left_of_a_ranking_that_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Texts are kept up to a number of bytes; this one is reached early.
    monkeypatch.setattr("r1ranker_ir.prompts.prompt._TEXT_BYTES", 20_000)
    monkeypatch.setattr("r1ranker_ir.prompts.prompt._QUERY_BYTES", 4_000)
    held = []
    tracemalloc.start()
    try:
        for _ in replace(SMALL, candidates=5).memory([80, 280]):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # A ranking with its passages takes more than 3,000 bytes.
    assert (held[1] - held[0]) / 200 < 100
