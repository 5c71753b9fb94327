"""Test queries and their positives are found in training records and can be taken out."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.training.data.leakage import (
    POSITIVE_LEAKS,
    QUERY_LEAKS,
    TestData,
    digest_of,
    without_leaks,
)
from r1ranker_ir.training.data.records import judged
from r1ranker_ir.types import Candidate, Task


def record_of(query: str, *shown: tuple[str, str, float], id: str = "train-1", task: Task = "passage") -> JudgedRequest:
    candidates = tuple(Candidate(name, text) for name, text, _ in shown)
    return judged(query, candidates, tuple(gain for *_, gain in shown), task, id, "s")


def write_test_corpus(folder: Path) -> Path:
    """Two judged test queries and a train query; d1 is relevant, d2 is judged not to be, d3 is of the train split."""
    texts = {"d1": "Fleas live for a year.", "d2": "Ticks wait.", "d3": "Lice are small.", "d4": "Bees dance."}
    queries = {"q1": "How old are fleas?", "q2": "What do ticks do?", "q3": "lice"}
    folder.mkdir()
    for name, entries in (("corpus", texts), ("queries", queries)):
        lines = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in entries.items())
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t2\nq1\td2\t0\nq2\td4\t1\n")
    (folder / "qrels" / "train.tsv").write_text("q3\td3\t1\n")
    return folder


def test_digests_do_not_see_case_punctuation_spaces_and_unicode_forms() -> None:
    same = ["How old are fleas?", " how  OLD\nare fleas", "¿How old—are “ﬂeas”!"]
    assert len({digest_of(text) for text in same}) == 1
    assert digest_of("STRASSE") == digest_of("straße")
    assert len({digest_of(text) for text in ("how old", "howold", "old how", "?!", "!?", "", "flea s", "fleas")}) == 8


@given(st.text())
def test_digests_do_not_see_the_edges_but_every_word(text: str) -> None:
    assert digest_of(f" {text}\n") == digest_of(text)
    assert digest_of(f"a {text}") != digest_of(text) != digest_of(f"b {text}") != digest_of(f"a {text}")


def test_queries_leak_by_text_and_by_id_of_the_same_collection(tmp_path: Path) -> None:
    corpus = open_corpus(write_test_corpus(tmp_path / "corpus"))
    test = TestData()
    assert not test
    test.add_corpus(corpus)
    by_text = record_of("how old are FLEAS", ("d9", "other", 1.0))
    by_id = record_of("something else", ("d9", "other", 1.0), id="q2")
    of_train = record_of("lice", ("d9", "other", 1.0), id="q3")
    assert test
    [leak] = test.leaks_of(by_text)
    assert (leak.what, leak.record_id, leak.test) == (QUERY_LEAKS, "train-1", corpus.name)
    assert str(leak) == f"query 'train-1' is a test query of {corpus.name} ('how old are FLEAS')"
    assert test.leaks_of(by_id) == []
    assert [each.what for each in test.leaks_of(by_id, corpus.collection)] == [QUERY_LEAKS]
    assert test.leaks_of(by_id, "another collection") == []
    assert test.leaks_of(of_train, corpus.collection) == []


def test_positives_leak_where_a_test_query_has_them_too(tmp_path: Path) -> None:
    corpus = open_corpus(write_test_corpus(tmp_path / "corpus"))
    test = TestData()
    test.add_corpus(corpus)
    record = record_of(
        "lice",
        ("x1", "fleas LIVE for a year", 1.0),  # by text
        ("d4", "revised text", 2.0),  # by id
        ("d1", "Fleas live for a year.", 0.0),  # a test positive as a negative is no leak
        ("d2", "Ticks wait.", 1.0),  # judged, but not relevant to the test query
        ("d3", "Lice are small.", 1.0),
    )
    leaks = test.leaks_of(record, corpus.collection)
    assert [(leak.what, leak.candidate_id) for leak in leaks] == [(POSITIVE_LEAKS, "x1"), (POSITIVE_LEAKS, "d4")]
    assert str(leaks[0]).startswith("positive 'x1' of query 'train-1' is a test query's positive of ")
    assert [leak.candidate_id for leak in test.leaks_of(record)] == ["x1"]
    clean = without_leaks(record, leaks)
    assert clean is not None
    assert [candidate.id for candidate in clean.request.candidates] == ["d1", "d2", "d3"]
    assert clean.gains == (0.0, 1.0, 1.0)
    assert test.leaks_of(clean, corpus.collection) == []


def test_a_record_without_leaks_stays_and_one_with_a_test_query_goes() -> None:
    test = TestData()
    test.add_record(record_of("how old are fleas", ("a", "A year.", 1.0), ("b", "They jump.", 0.0)), "held out")
    test.add_record(record_of("a history", ("a", "A film", 1.0), task="item"), "held out")
    clean = record_of("what jumps", ("a", "they jump", 1.0), ("b", "ticks", 0.0))
    leaking = record_of("How old are fleas", ("a", "they jump", 1.0))
    assert without_leaks(clean, test.leaks_of(clean)) == clean
    assert without_leaks(leaking, test.leaks_of(leaking)) is None
    # Items and models are shared by all, and only queries leak.
    assert test.leaks_of(record_of("another history", ("a", "A film", 1.0), task="item")) == []
    same_history = record_of("A history.", ("b", "Another film", 1.0), task="item")
    assert [leak.what for leak in test.leaks_of(same_history)] == [QUERY_LEAKS]
