"""Strategies, votes, budgets and published systems as `r1ranker rerank` takes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, r1ranker, said

import r1ranker_ir
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT

DEFAULT = Path(r1ranker_ir.__file__).parent / "prompts" / "default.toml"
RANK_R1 = '''
prompt_system = "You compare passages."
prompt_user = """Wanted: {query}
{docs}
Name the best one between <answer> and </answer>, after a thought between <think> and </think>."""
pattern = '<think>.*?</think>\\s*<answer>(.*?)</answer>'
'''


@pytest.fixture
def rerank(bm25_run, tmp_path):
    def run(*words: object) -> str:
        common = ("--depth", 6, "--no-cache", "--max-thought-tokens", 4, "--output", tmp_path / "o.trec")
        return r1ranker("rerank", "--corpus", COLLECTION, "--run", bm25_run, *common, *words).stderr

    return run


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (("--strategy", "setwise", "--sort", "bubble", "--top-k", 1, "--window-size", 3), [3, 3]),
        (("--strategy", "pointwise"), [6, 6]),
        (("--strategy", "pointwise", "--max-calls", 4), [4, 4]),
        (("--strategy", "iterative", "--votes", 3, "--vote-by", "borda", "--max-calls", 9), [9, 9]),
    ],
)
def test_strategies_votes_and_budgets(rerank, bm25_run, tmp_path, options, calls):
    common = ("--queries", 2, "--reranker", TINY_CHECKPOINT, "--template", DEFAULT, "--save-traces", tmp_path / "t")
    assert re.search(rf"2 queries, {sum(calls)} calls", rerank(*common, *options))
    steps: list[Any] = [json.loads(line)["steps"] for line in (tmp_path / "t").read_text().splitlines()]
    assert [len(each) for each in steps] == calls
    before, after = read_run(bm25_run), read_run(tmp_path / "o.trec")
    assert all(sorted(e.doc_id for e in after[q]) == sorted(e.doc_id for e in before[q][:6]) for q in after)
    assert "--votes" not in options or all(0 < step["confidence"] <= 1 for each in steps for step in each)


def test_a_published_system_with_a_file_of_its_own(rerank, tmp_path):
    template = tmp_path / "rank-r1.toml"
    template.write_text(RANK_R1)
    own = ("--queries", 1, "--reranker", "rank-r1", "--model", TINY_CHECKPOINT, "--template", template)
    # Six candidates are the root and its children: one call.
    for more, repairs in (((), 0), (("--answers", "published"), 1)):
        summary = rerank(*own, "--top-k", 1, "--max-repair-rate", 1, *more)
        assert "1 queries, 1 calls" in summary and f", {repairs} repairs" in summary


def test_a_system_without_its_template_is_told_in_the_run_the_trace_and_the_manifest(rerank, tmp_path):
    words = "'rank-r1' is asked in this project's own words"
    system = ("--reranker", "rank-r1", "--model", TINY_CHECKPOINT, "--settings-from", tmp_path)
    few = ("--queries", 2, "--top-k", 1, "--max-repair-rate", 1)
    assert rerank(*system, *few, "--save-traces", tmp_path / "t.jsonl").count(words) == 1
    for line in (tmp_path / "t.jsonl").read_text().splitlines():
        [note] = json.loads(line)["notes"]
        assert words in note
    assert words in said(r1ranker("trace", "show", "q01", "--trace", tmp_path / "t.jsonl"))
    quick = ("--max-thought-tokens", 4, "--no-cache", "--depth", 6, "--output", tmp_path / "suite")
    r1ranker("suite", COLLECTION, *system, *few, *quick)
    ranker = json.loads((tmp_path / "suite" / "manifest.json").read_text())["reranker"]
    assert ranker["system"] == "rank-r1" and words in ranker["notes"][0]


def test_a_sort_of_another_strategy_is_explained(bm25_run, tmp_path):
    words = ("--reranker", TINY_CHECKPOINT, "--strategy", "pointwise", "--sort", "heap", "--output", tmp_path / "o")
    assert "sort" in said(r1ranker("rerank", "--corpus", COLLECTION, "--run", bm25_run, *words, code=1))
