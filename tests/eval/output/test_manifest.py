"""What a manifest says of a ranker, of versions and of costs, and what it keeps to itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import r1ranker, write_corpus

from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.eval.output.manifest import counts, determinism, hardware, ranker_settings, unopened_settings, versions
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import ranker_source
from r1ranker_ir.types import Usage


def test_a_ranker_of_other_processes_is_described_like_an_opened_one() -> None:
    options = {"backend": "transformers", "window_size": 5, "stride": 2, "max_thought_tokens": None, "cache": "x"}
    here = ranker_settings(Ranker(TINY_CHECKPOINT, strategy="direct", window_size=5, stride=2))
    there = unopened_settings(ranker_source(TINY_CHECKPOINT, "direct", options))
    assert there["identity"]["checkpoint"] == here["identity"]["checkpoint"]
    same = ("model", "strategy", "template", "window_size", "stride", "max_passage_tokens", "batch_size")
    assert {name: there[name] for name in same} == {name: here[name] for name in same}
    assert there["max_thought_tokens"] == here["identity"]["max_thought_tokens"]
    json.dumps([here, there])


def test_counts_are_those_that_a_second_run_repeats() -> None:
    once = RunSummary(2, Usage(3, 40, 5), 1, 1, 7, seconds=9.5, closed_at_end_of_turn=1)
    again = RunSummary(2, Usage(3, 40, 5), 1, 1, 7, seconds=0.1, cached_calls=3, closed_at_end_of_turn=1)
    assert counts(once) == counts(again)
    usage = {"calls": 3, "prompt_tokens": 40, "completion_tokens": 5}
    closed = {"thoughts_closed": 1, "closed_at_limit": 0, "closed_at_end_of_turn": 1, "closed_at_answer": 0}
    assert counts(once) == {"queries": 2, **usage, "repairs": 1, **closed, "cut_passages": 7, "cut_queries": 0}


def test_versions_name_what_computes_and_nothing_else() -> None:
    local, served = versions("transformers"), versions("openai", "no-such-distribution")
    assert {"python", "r1ranker-ir", "ir-measures", "ir-datasets", "bm25s", "torch", "transformers"} <= set(local)
    assert "torch" not in served and "no-such-distribution" not in served


def test_machine_and_settings_are_plain_data() -> None:
    described = json.loads(json.dumps([hardware(), determinism()]))
    assert described == json.loads(json.dumps([hardware(), determinism()]))
    assert described[0]["processor"] and described[0]["cores"] >= 1


def test_credentials_of_an_address_are_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path, {"d1": "fleas"}, {"q1": "fleas"}, {("q1", "d1"): 1})
    arguments = ["suite", ".", "--reranker", "r1ranker-direct", "--backend", "openai", "--first-stage", "run:none.trec"]
    address = "http://me:my-long-password@127.0.0.1:9/v1"
    result = r1ranker(*arguments, "--base-url", address, "--output", "out", code=1)
    written = "".join(path.read_text() for path in Path("out").rglob("*") if path.is_file())
    assert "--base-url" in written and "http://127.0.0.1:9/v1" in written
    assert "my-long-password" not in written + result.output
