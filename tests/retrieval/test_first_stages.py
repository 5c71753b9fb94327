"""First stages as data: what can be written, what it means, and what comes back."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from commands import r1ranker

from r1ranker_ir.data.corpora import DEMO_COLLECTION, Corpus, open_corpus
from r1ranker_ir.data.trec_runs import RunEntry, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.retrieval import bm25
from r1ranker_ir.retrieval.first_stages import FirstStage, parse_first_stage, retrieve


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return open_corpus(DEMO_COLLECTION)


@pytest.mark.parametrize(
    ("text", "kind", "source"),
    [
        ("bm25s", "bm25s", ""),
        ("pyserini:beir-v1.0.0-scifact.flat", "pyserini", "beir-v1.0.0-scifact.flat"),
        ("pyserini:indexes/my index", "pyserini", "indexes/my index"),
        ("run:C:\\runs\\a:b", "run", "C:\\runs\\a:b"),
        ("run:-", "run", "-"),
    ],
)
def test_every_form_is_read_and_written(text: str, kind: str, source: str) -> None:
    stage = parse_first_stage(text)
    assert stage == FirstStage(kind, source) and str(stage) == text


@pytest.mark.parametrize("text", ["", ":", "BM25s", " bm25s", "run;x", "bm25s:index", "pyserini", "pyserini:", "run: "])
def test_unknown_forms_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match=r"is unknown: use bm25s, pyserini:INDEX or run:FILE") as caught:
        parse_first_stage(text)
    assert text.strip(": ") in str(caught.value)


def test_bm25s_is_the_search_in_memory(corpus: Corpus) -> None:
    queries = {"own": "how do bees find their way"}
    assert retrieve(FirstStage("bm25s"), corpus, 7) == bm25.search(corpus, 7)
    assert retrieve(FirstStage("bm25s"), corpus, 3, queries) == bm25.search(corpus, 3, queries)
    for text in ("bm25s", "pyserini:no-matter", "run:no-matter"):
        with pytest.raises(InputError, match="depth is 0"):
            retrieve(parse_first_stage(text), corpus, 0)


def test_a_run_is_cut_and_put_in_the_order_of_the_queries(
    corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = (RunEntry("b", 2.0), RunEntry("a", 1.0))
    write_run({"q02": entries, "q01": (RunEntry("c", 5.0),)}, tmp_path / "run")
    stage = parse_first_stage(f"run:{tmp_path / 'run'}")
    whole = retrieve(stage, corpus, 1)
    assert list(whole) == list(corpus.queries())
    assert (whole["q01"], whole["q02"], whole["q03"]) == ((RunEntry("c", 5.0),), entries[:1], ())
    assert retrieve(stage, corpus, 9, {"q02": "any"}) == {"q02": entries}

    write_run({"q01": entries, "other": entries}, tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        retrieve(stage, corpus, 1, {"q01": "asked for on purpose"})
        assert caplog.messages == []
        retrieve(stage, corpus, 1)
    assert "1 queries of run" in caplog.text and "left out: other" in caplog.text
    write_run({"other": entries}, tmp_path / "run")
    with pytest.raises(InputError, match=r"none of the 1 queries of run .* is it a run of it"):
        retrieve(stage, corpus, 1)


def test_search_takes_a_first_stage(tmp_path: Path) -> None:
    def search(stage: str, output: str, *more: str, code: int = 0) -> str:
        place = ["--corpus", str(DEMO_COLLECTION), "--output", str(tmp_path / output)]
        return str(r1ranker("search", "--first-stage", stage, *place, *more, code=code).stderr)

    search("bm25s", "full", "--depth", "9")
    search(f"run:{tmp_path / 'full'}", "cut", "--depth", "4", "--queries", "3")
    full, cut = read_run(tmp_path / "full"), read_run(tmp_path / "cut")
    assert cut == {query_id: full[query_id][:4] for query_id in list(full)[:3]}
    assert (tmp_path / "cut").read_text().split()[5] == "run"
    assert "Error: first stage 'lucene' is unknown" in search("lucene", "none", code=1)
    assert not (tmp_path / "none").exists()
