"""Corpora: folders in BEIR layout and ir_datasets, through what they return and the errors that they raise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data import corpora
from r1ranker_ir.data.corpora import document_text, open_corpus
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files import offsets

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

DOCUMENTS = [
    {"_id": "d1", "title": "Fleas", "text": "They live for a year."},
    {"_id": "d2", "title": "", "text": "Ticks wait in the grass."},
    {"_id": "d3", "text": "No title at all."},
    {"_id": 4, "title": "Lice", "text": "lice.  Small insects."},
]


def write_folder(folder: Path, **files: str) -> Path:
    """Writes a small BEIR folder; `files` replaces or adds files, named with `__` for `/` and `_` for `.`."""
    content = {
        "corpus.jsonl": "".join(json.dumps(record) + "\n" for record in DOCUMENTS),
        "queries.jsonl": '{"_id": "q2", "text": "flea life"}\n\n{"_id": "q1", "text": "what is a louse"}\n',
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq2\td1\t2\nq2\td2\t0\nq1\t4\t1\n",
    }
    content |= {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return folder


def judgments(corpus: Any) -> list[tuple[str, str, int]]:
    return [(judged.query_id, judged.doc_id, judged.relevance) for judged in corpus.qrels()]


def test_a_folder_gives_queries_judgments_and_documents(tmp_path: Path) -> None:
    corpus = open_corpus(str(write_folder(tmp_path)))
    assert corpus.name == str(tmp_path)
    assert list(corpus.queries().items()) == [("q2", "flea life"), ("q1", "what is a louse")]
    assert judgments(corpus) == [("q2", "d1", 2), ("q2", "d2", 0), ("q1", "4", 1)]
    assert list(corpus.iterate_documents()) == [
        ("d1", "Fleas They live for a year."),
        ("d2", "Ticks wait in the grass."),
        ("d3", "No title at all."),
        ("4", "lice.  Small insects."),
    ]


def test_looking_up_documents_keeps_only_those_asked_for(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number in range(5_000):
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": "word " * 100}) + "\n")
    corpus = open_corpus(tmp_path)
    tracemalloc.start()
    found = corpus.documents(["d4999", "d7"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(found) == ["d4999", "d7"]
    assert peak < 500_000  # bytes; the texts together take 2.5 MB


@pytest.mark.parametrize(
    ("title", "text", "joined"),
    [
        ("Fleas", "They jump.", "Fleas They jump."),
        ("", "  They jump. ", "They jump."),
        ("Fleas", "", "Fleas"),
        ("", "", ""),
        ("wing in a\nslip .", "Wing in a slip .\n  an experiment", "Wing in a slip .\n  an experiment"),
        ("Flea", "Fleabane is a plant.", "Flea Fleabane is a plant."),
        ("Flea", "Flea", "Flea"),
    ],
)
def test_title_and_text_are_joined_without_repeating_the_title(title: str, text: str, joined: str) -> None:
    assert document_text(title, text) == joined


def test_a_folder_gives_the_judgments_of_the_split_that_is_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path, qrels__train_tsv="q1\td2\t1\n", qrels_trec="q1 0 d1 3\n")
    of_test = [("q2", "d1", 2), ("q2", "d2", 0), ("q1", "4", 1)]
    assert judgments(open_corpus(tmp_path, "train")) == [("q1", "d2", 1)]
    assert judgments(open_corpus(tmp_path, "test")) == judgments(open_corpus(tmp_path)) == of_test
    assert open_corpus(tmp_path, "train").splits() == ("test", "train")
    with pytest.raises(InputError, match=r"no judgments of split 'dev': add qrels/dev\.tsv, or use .*: test, train$"):
        open_corpus(tmp_path, "dev").qrels()
    (tmp_path / "qrels" / "test.tsv").unlink()
    assert judgments(open_corpus(tmp_path)) == [("q1", "d1", 3)]
    assert open_corpus(tmp_path).splits() == ("test", "train")


def test_splits_of_a_folder_are_one_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert open_corpus("a").collection == open_corpus(tmp_path / "a", "train").collection
    assert open_corpus("a").collection != open_corpus("b").collection


def test_beir_judgments_without_a_header_lose_no_line(tmp_path: Path) -> None:
    assert judgments(open_corpus(write_folder(tmp_path, qrels__test_tsv="q1\td1\t-1\n"))) == [("q1", "d1", -1)]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "queries.jsonl").write_bytes('﻿{"_id": "q", "text": "naïve"}\r\n'.encode())
    assert open_corpus(tmp_path).queries() == {"q": "naïve"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("queries_jsonl", '{"_id": "q", "text": "a"}\n{"_id": "r", \n', "queries.jsonl:2: not valid JSON"),
        ("queries_jsonl", '["q"]\n', "queries.jsonl:1: a JSON list"),
        ("queries_jsonl", '{"text": "a"}\n', "queries.jsonl:1: field '_id' is missing"),
        ("queries_jsonl", '{"_id": true, "text": "a"}\n', "queries.jsonl:1: field '_id' is True"),
        ("queries_jsonl", '{"_id": "q"}\n', "queries.jsonl:1: field 'text' is missing"),
        ("queries_jsonl", '{"_id": "q", "text": 3}\n', "queries.jsonl:1: field 'text' is 3"),
        ("queries_jsonl", '{"_id": "q", "text": " "}\n', "queries.jsonl:1: field 'text' is ' ': give at least one"),
        ("queries_jsonl", '{"_id": "q", "text": "a"}\n' * 2, "queries.jsonl:2: query id 'q' occurs twice"),
        ("corpus_jsonl", '{"_id": "d", "title": ["x"], "text": "a"}\n', "corpus.jsonl:1: field 'title' is ['x']"),
        ("corpus_jsonl", '{"_id": "d", "title": "x"}\n', "corpus.jsonl:1: field 'text' is missing"),
        ("corpus_jsonl", '{"_id": "d", "text": "a"}\n\n' * 2, "corpus.jsonl:3: document id 'd' occurs twice"),
        ("qrels__test_tsv", "query-id\tcorpus-id\tscore\nq d 1\n", "test.tsv:2: 1 columns"),
        ("qrels__test_tsv", "query-id\tcorpus-id\tscore\nq\td\thigh\n", "test.tsv:2: grade 'high' is not a whole"),
        ("qrels__test_tsv", "q1 0 d1 3\n", "test.tsv:1: 1 columns"),
        ("corpus_jsonl", '{"_id": "d", "text": "a"}\n{"_id": "e", "text": "\udcff"}\n', "corpus.jsonl:2: not UTF-8"),
        ("qrels__test_tsv", "q\td\t1\nq\td\t2\n", "test.tsv:2: document 'd' of query 'q' is judged 2 here and 1 above"),
    ],
)
def test_malformed_lines_are_named_by_file_and_number(tmp_path: Path, name: str, content: str, said: str) -> None:
    corpus = open_corpus(write_folder(tmp_path, **{name: content}))
    with pytest.raises(DataFileError) as caught:
        if name.startswith("queries"):
            corpus.queries()
        elif name.startswith("qrels"):
            corpus.qrels()
        else:
            list(corpus.iterate_documents())
    assert said in str(caught.value)


@pytest.mark.parametrize("hashes", ["different", "equal"])
@given(asked=st.lists(st.sets(st.integers(0, 12)), max_size=4), repeated=st.booleans())
def test_documents_are_found_again_and_again_in_one_pass(
    hashes: str, asked: list[set[int]], repeated: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [{"_id": f"d{number}", "text": f"text {number}" * number} for number in range(10)]
    records += [records[3]] * repeated
    lines = "\ufeff\n" + "\r\n\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    folder = write_folder(tmp_path_factory.mktemp("corpus"), corpus_jsonl=lines)
    corpus, passes = open_corpus(folder), []
    with pytest.MonkeyPatch.context() as patch:
        if hashes == "equal":
            patch.setattr(offsets, "_hash_of", lambda name: 7)
        read = corpora.placed_json_lines
        patch.setattr(corpora, "placed_json_lines", lambda path: passes.append(path) or read(path))
        for numbers in asked:
            ids = [f"d{number}" for number in sorted(numbers, reverse=True)]
            if repeated and 3 in numbers:
                with pytest.raises(DataFileError, match=r"corpus\.jsonl:22: document id 'd3' occurs twice"):
                    corpus.documents(ids)
            else:
                expected = {doc_id: records[int(doc_id[1:])]["text"] for doc_id in ids if int(doc_id[1:]) < 10}
                found = corpus.documents(ids)
                assert found == expected
                assert list(found) == list(expected)
    assert len(passes) == any(asked)


def test_a_corpus_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    corpus = open_corpus(write_folder(tmp_path))
    assert corpus.documents(["d3"]) == {"d3": "No title at all."}
    write_folder(tmp_path, corpus_jsonl='{"_id": "new", "text": "a longer text"}\n{"_id": "d3", "text": "now"}\n')
    assert corpus.documents(["d3", "new", "d1"]) == {"d3": "now", "new": "a longer text"}


def test_what_a_folder_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no corpus\.jsonl: a corpus folder holds corpus\.jsonl, queries\.jsonl"):
        open_corpus(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "queries.jsonl").unlink()
    (tmp_path / "qrels" / "test.tsv").rename(tmp_path / "qrels" / "dev.tsv")
    corpus = open_corpus(tmp_path)
    with pytest.raises(InputError, match=r"no queries\.jsonl"):
        corpus.queries()
    with pytest.raises(InputError, match=r"no judgments of split 'test': add qrels/test\.tsv or qrels\.trec, .* dev$"):
        corpus.qrels()
    with pytest.raises(InputError, match="is a file: give the folder"):
        open_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """ir_datasets with two small datasets of our own: one complete, one with documents alone."""
    before = os.environ.get("IR_DATASETS_HOME")
    if "ir_datasets" not in sys.modules:
        os.environ["IR_DATASETS_HOME"] = str(tmp_path_factory.mktemp("ir_datasets"))
    import ir_datasets

    folder = tmp_path_factory.mktemp("source")
    (folder / "docs.tsv").write_text("d1\tfleas jump\nd2\tticks wait\n", encoding="utf-8")
    (folder / "queries.tsv").write_text("q1\tflea\nq2\ttick\n", encoding="utf-8")
    (folder / "qrels.trec").write_text("q1 0 d1 2\nq2 0 d2 1\n", encoding="utf-8")
    complete = ir_datasets.create_dataset(
        docs_tsv=str(folder / "docs.tsv"),
        queries_tsv=str(folder / "queries.tsv"),
        qrels_trec=str(folder / "qrels.trec"),
    )
    documents_alone = ir_datasets.create_dataset(docs_tsv=str(folder / "docs.tsv"))
    gone = ir_datasets.create_dataset(docs_tsv=str(folder / "gone.tsv"), queries_tsv=str(folder / "gone.tsv"))
    for name, dataset in (("complete", complete), ("documents-alone", documents_alone), ("gone", gone)):
        ir_datasets.registry.register(f"r1ranker-test/{name}", dataset)
    yield ir_datasets
    if before is None:
        os.environ.pop("IR_DATASETS_HOME", None)
    else:
        os.environ["IR_DATASETS_HOME"] = before


def test_an_ir_datasets_id_gives_queries_judgments_and_documents(catalogue: Any) -> None:
    corpus = open_corpus("r1ranker-test/complete")
    assert corpus.queries() == {"q1": "flea", "q2": "tick"}
    assert judgments(corpus) == [("q1", "d1", 2), ("q2", "d2", 1)]
    assert list(corpus.iterate_documents()) == [("d1", "fleas jump"), ("d2", "ticks wait")]
    assert corpus.documents(["d2", "none", "d1", "d2"]) == {"d2": "ticks wait", "d1": "fleas jump"}


def test_an_ir_datasets_id_carries_its_split(catalogue: Any) -> None:
    assert open_corpus("beir/scifact/train").collection == open_corpus("beir/scifact/test").collection == "beir/scifact"
    with pytest.raises(InputError, match="split 'train' was given beside 'r1ranker-test/complete'"):
        open_corpus("r1ranker-test/complete", "train")


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("documents-alone", "qrels", r"'r1ranker-test/documents-alone' has no judgments \(qrels\), it offers docum"),
        ("documents-alone", "queries", "has no queries"),
        ("gone", "queries", r"could not read the queries of 'r1ranker-test/gone' \(FileNotFoundError"),
        ("gone", "iterate_documents", "could not read the docs of"),
    ],
)
def test_what_an_ir_dataset_lacks_is_said(catalogue: Any, name: str, part: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(getattr(open_corpus(f"r1ranker-test/{name}"), part)())


def test_an_unknown_name_suggests_close_ids(catalogue: Any) -> None:
    with pytest.raises(InputError, match=r"'cranfeild' is neither .* nor an ir_datasets id \(close ids: cranf"):
        open_corpus("cranfeild")


def test_cranfield_is_read_through_ir_datasets_and_leaves_standard_output_clean(tmp_path: Path) -> None:
    source = SHARED / "ir_datasets"
    if not source.is_dir():
        pytest.skip("the Cranfield files are not beside this checkout (../shared/data/ir_datasets)")
    shutil.copytree(source, tmp_path / "home", copy_function=shutil.copyfile)
    for folder in (tmp_path / "home").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    script = """
import json, sys
from r1ranker_ir.data.corpora import open_corpus
corpus = open_corpus("cranfield")
documents = dict(corpus.iterate_documents())
found = corpus.documents(["1400", "1"])
sys.stderr.write("RESULT" + json.dumps({
    "documents": len(documents), "queries": len(corpus.queries()), "qrels": len(corpus.qrels()),
    "found": list(found), "agree": all(documents[doc_id] == text for doc_id, text in found.items()),
    "title": documents["1"].count("of a\\nwing in a slipstream"),
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"IR_DATASETS_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert json.loads(done.stderr.split("RESULT")[1]) == {
        "documents": 1400,
        "queries": 225,
        "qrels": 1837,
        "found": ["1400", "1"],
        "agree": True,
        "title": 1,
    }


def test_a_folder_wins_over_the_packaged_collection_and_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(open_corpus("demo-collection").queries()) == 32
    for name in ("demo-collection", "cranfield"):
        assert list(open_corpus(str(write_folder(tmp_path / name).name)).queries()) == ["q2", "q1"]
