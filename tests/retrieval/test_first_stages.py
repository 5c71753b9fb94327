"""First stages as data: what can be written, what it means, and what comes back."""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from r1ranker_ir.cli.app import app
from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.trec_runs import RunEntry, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.retrieval import bm25
from r1ranker_ir.retrieval.first_stages import FirstStage, parse_first_stage, retrieve

COLLECTION = str(resources.files("r1ranker_ir") / "demo_collection")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return open_corpus(COLLECTION)


@pytest.mark.parametrize(
    ("text", "kind", "source"),
    [
        ("bm25s", "bm25s", ""),
        ("pyserini:beir-v1.0.0-scifact.flat", "pyserini", "beir-v1.0.0-scifact.flat"),
        ("pyserini:indexes/my index", "pyserini", "indexes/my index"),
        ("run:runs/bm25.trec.gz", "run", "runs/bm25.trec.gz"),
        ("run:C:\\runs\\a:b", "run", "C:\\runs\\a:b"),
        ("run:-", "run", "-"),
    ],
)
def test_every_form_is_read_and_written(text: str, kind: str, source: str) -> None:
    stage = parse_first_stage(text)

    assert (stage.kind, stage.source) == (kind, source)
    assert str(stage) == text
    assert parse_first_stage(str(stage)) == stage == FirstStage(kind, source)  # type: ignore[arg-type]


@given(st.sampled_from(["pyserini", "run"]), st.text(min_size=1).filter(lambda source: source.strip() != ""))
def test_any_source_survives(kind: str, source: str) -> None:
    assert str(parse_first_stage(f"{kind}:{source}")) == f"{kind}:{source}"


@pytest.mark.parametrize("text", ["", ":", "bm25", "BM25s", "bm25s:", " bm25s", "lucene:x", "pyserini-index", "run;x"])
def test_unknown_forms_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match=r"is unknown: use bm25s, pyserini:INDEX .* or run:FILE") as caught:
        parse_first_stage(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bm25s:index", "'bm25s:index': bm25s takes nothing after it"),
        ("pyserini", "'pyserini:' names no source: write pyserini: and the folder of a Lucene index"),
        ("pyserini:", "'pyserini:' names no source"),
        ("run: ", "'run: ' names no source: write run: and the path of a TREC run"),
    ],
)
def test_a_source_too_many_or_too_few_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_first_stage(text)


def test_bm25s_is_the_search_in_memory(corpus: Corpus) -> None:
    queries = {"own": "how do bees find their way"}

    assert retrieve(FirstStage("bm25s"), corpus, 7) == bm25.search(corpus, 7)
    assert retrieve(FirstStage("bm25s"), corpus, 3, queries) == bm25.search(corpus, 3, queries)


def test_a_run_is_cut_and_put_in_the_order_of_the_queries(corpus: Corpus, tmp_path: Path) -> None:
    write_run({"q02": (RunEntry("b", 2.0), RunEntry("a", 1.0)), "q01": (RunEntry("c", 5.0),)}, tmp_path / "run")
    stage = parse_first_stage(f"run:{tmp_path / 'run'}")
    whole = retrieve(stage, corpus, 1)

    assert list(whole) == list(corpus.queries())
    assert whole["q01"] == (RunEntry("c", 5.0),)
    assert whole["q02"] == (RunEntry("b", 2.0),)
    assert whole["q03"] == ()
    assert retrieve(stage, corpus, 9, {"q02": "any"}) == {"q02": (RunEntry("b", 2.0), RunEntry("a", 1.0))}


def test_queries_of_a_run_that_the_corpus_lacks_are_reported(
    corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_run({"q01": (RunEntry("a", 1.0),), "other": (RunEntry("a", 1.0),)}, tmp_path / "run")
    stage = parse_first_stage(f"run:{tmp_path / 'run'}")
    with caplog.at_level(logging.WARNING):
        retrieve(stage, corpus, 1, {"q01": "asked for on purpose"})
        assert caplog.messages == []
        retrieve(stage, corpus, 1)
    assert "1 queries of run" in caplog.text and "left out: other" in caplog.text

    write_run({"other": (RunEntry("a", 1.0),)}, tmp_path / "wrong")
    with pytest.raises(InputError, match=r"none of the 1 queries of run .* is it a run of it"):
        retrieve(parse_first_stage(f"run:{tmp_path / 'wrong'}"), corpus, 1)


@pytest.mark.parametrize("text", ["bm25s", "pyserini:no-matter", "run:no-matter"])
def test_a_depth_below_one_is_refused(corpus: Corpus, text: str) -> None:
    with pytest.raises(InputError, match="depth is 0"):
        retrieve(parse_first_stage(text), corpus, 0)


def test_search_takes_a_first_stage(tmp_path: Path) -> None:
    def search(stage: str, output: str, *more: str) -> str:
        arguments = ["search", "--corpus", COLLECTION, "--first-stage", stage, "--output", str(tmp_path / output)]
        result = CliRunner().invoke(app, [*arguments, *more])
        assert result.exit_code == (1 if output == "none" else 0), result.output
        return result.stderr

    search("bm25s", "full", "--depth", "9")
    search(f"run:{tmp_path / 'full'}", "cut", "--depth", "4", "--queries", "3")
    full, cut = read_run(tmp_path / "full"), read_run(tmp_path / "cut")

    assert cut == {query_id: full[query_id][:4] for query_id in list(full)[:3]}
    assert (tmp_path / "cut").read_text().split()[5] == "run"
    assert "Error: first stage 'lucene' is unknown" in search("lucene", "none")
    assert not (tmp_path / "none").exists()
