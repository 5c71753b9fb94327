"""Strategies, votes, budgets and published systems as `r1ranker rerank` takes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import r1ranker_ir
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT

COLLECTION = Path(r1ranker_ir.__file__).parent / "demo_collection"
DEFAULT = Path(r1ranker_ir.__file__).parent / "prompts" / "default.toml"
RANK_R1 = '''
prompt_system = "You compare passages."
prompt_user = """Wanted: {query}
{docs}
Name the best one between <answer> and </answer>, after a thought between <think> and </think>."""
pattern = '<think>.*?</think>\\s*<answer>(.*?)</answer>'
'''


def rerank(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["rerank", "--corpus", str(COLLECTION), *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def bm25(tmp_path: Path) -> Path:
    path = tmp_path / "bm25.trec"
    result = CliRunner().invoke(app, ["search", "--corpus", str(COLLECTION), "--depth", "6", "--output", str(path)])
    assert result.exit_code == 0, result.output
    return path


def steps_of(path: Path) -> list[list[dict[str, Any]]]:
    return [json.loads(line)["steps"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (("--strategy", "setwise", "--sort", "bubble", "--top-k", 1, "--window-size", 3), [3, 3]),
        (("--strategy", "pointwise"), [6, 6]),
        (("--strategy", "pointwise", "--max-calls", 4), [4, 4]),
        (("--strategy", "iterative", "--votes", 3, "--vote-by", "borda", "--max-calls", 9), [9, 9]),
    ],
)
def test_strategies_votes_and_budgets(
    bm25: Path, tmp_path: Path, options: tuple[object, ...], calls: list[int]
) -> None:
    traces, output = tmp_path / "t.jsonl", tmp_path / "o.trec"
    common = ("--run", bm25, "--queries", 2, "--reranker", TINY_CHECKPOINT, "--template", DEFAULT, "--no-cache")
    said = rerank(*common, "--max-thought-tokens", 4, *options, "--save-traces", traces, "--output", output).stderr

    assert [len(steps) for steps in steps_of(traces)] == calls
    assert re.search(rf"2 queries, {sum(calls)} calls", said)
    before, after = read_run(bm25), read_run(output)
    assert all(sorted(e.doc_id for e in after[q]) == sorted(e.doc_id for e in before[q]) for q in after)
    if "--votes" in options:
        assert all(0 < step["confidence"] <= 1 for steps in steps_of(traces) for step in steps)


def test_a_published_system_with_a_file_of_its_own(bm25: Path, tmp_path: Path) -> None:
    template, output = tmp_path / "rank-r1.toml", tmp_path / "o.trec"
    template.write_text(RANK_R1)
    common = ("--run", bm25, "--queries", 1, "--reranker", "rank-r1", "--model", TINY_CHECKPOINT, "--no-cache")
    own = ("--template", template, "--max-thought-tokens", 4, "--top-k", 1, "--max-repair-rate", 1)
    said = rerank(*common, *own, "--output", output).stderr
    # Six candidates are the root and its children: one call.
    assert "1 queries, 1 calls" in said and ", 0 repairs" in said
    published = rerank(*common, *own, "--answers", "published", "--output", output).stderr
    assert "1 queries, 1 calls" in published and ", 1 repairs" in published


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reranker", "rankgpt"), "works with any chat model: name one"),
        (
            ("--reranker", "first", "--strategy", "iterative"),
            "'first' is the direct strategy: leave strategy='iterative' out",
        ),
        (("--reranker", TINY_CHECKPOINT, "--strategy", "pointwise", "--sort", "heap"), "sort"),
    ],
)
def test_what_does_not_go_together_is_explained(
    bm25: Path, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    words = ("rerank", "--corpus", COLLECTION, "--run", bm25, *options, "--output", tmp_path / "o")
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code in (1, 2)
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_system_without_its_template_is_told_in_the_run_the_trace_and_the_manifest(
    bm25: Path, tmp_path: Path
) -> None:
    traces, output = tmp_path / "t.jsonl", tmp_path / "o.trec"
    system = ("--reranker", "rank-r1", "--model", TINY_CHECKPOINT, "--settings-from", tmp_path, "--no-cache")
    few = ("--queries", 2, "--max-thought-tokens", 4, "--top-k", 1, "--max-repair-rate", 1)
    said = rerank("--run", bm25, *system, *few, "--save-traces", traces, "--output", output).stderr
    words = "'rank-r1' is asked in this project's own words"
    assert said.count(words) == 1
    for line in traces.read_text().splitlines():
        [note] = json.loads(line)["notes"]
        assert words in note
    shown = CliRunner().invoke(app, ["trace", "show", "q01", "--trace", str(traces)]).stdout
    assert words in " ".join(shown.split())
    suite = ("suite", COLLECTION, *system, *few, "--depth", 6, "--output", tmp_path / "suite")
    result = CliRunner().invoke(app, list(map(str, suite)))
    assert result.exit_code == 0, result.output
    ranker = json.loads((tmp_path / "suite" / "manifest.json").read_text())["reranker"]
    assert ranker["system"] == "rank-r1"
    assert words in ranker["notes"][0]
