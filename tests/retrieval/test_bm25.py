"""The first stage: scores against the formula, and the edges of depth, ties and queries without hits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import write_corpus

from r1ranker_ir.data.corpora import FolderCorpus, open_corpus
from r1ranker_ir.errors import InputError
from r1ranker_ir.retrieval.bm25 import K1, B, BM25Index, search


def corpus_of(folder: Path, documents: Mapping[str, str] | Iterable[tuple[str, str]], **queries: str) -> FolderCorpus:
    corpus = open_corpus(write_corpus(folder, dict(documents), queries))
    assert isinstance(corpus, FolderCorpus)
    return corpus


DOCUMENTS = {
    "d1": "The flea jumps and the flea bites",
    "d2": "A tick waits in long grass for a dog",
    "d3": "Dogs with fleas scratch",
    "d4": "",
    "d5": "Nothing of interest",
}


def test_scores_follow_the_formula(tmp_path: Path) -> None:
    # Words after stop words and stemming, counted by hand.
    lengths = {"d1": 4, "d2": 5, "d3": 3, "d4": 0, "d5": 2}  # "dogs fleas scratch": "with" is a stop word
    counts = {"d1": {"flea": 2}, "d2": {"dog": 1}, "d3": {"flea": 1, "dog": 1}}
    mean_length = sum(lengths.values()) / len(lengths)

    def score(doc_id: str, words: list[str]) -> float:
        total = 0.0
        for word in words:
            holding = sum(word in each for each in counts.values())
            idf = math.log(1 + (len(lengths) - holding + 0.5) / (holding + 0.5))
            count = counts[doc_id].get(word, 0)
            total += idf * count / (count + K1 * (1 - B + B * lengths[doc_id] / mean_length))
        return total

    [entries] = search(corpus_of(tmp_path, DOCUMENTS, q="A dog's FLEAS?"), 10).values()
    expected = {doc_id: score(doc_id, ["dog", "flea"]) for doc_id in counts}
    assert [entry.doc_id for entry in entries] == sorted(expected, key=lambda doc_id: -expected[doc_id])
    assert {entry.doc_id: pytest.approx(entry.score, rel=1e-5) for entry in entries} == expected


def test_only_documents_that_share_a_word_are_found(tmp_path: Path) -> None:
    run = search(corpus_of(tmp_path, DOCUMENTS, flea="flea", none="zebra", stop="to be or not to be", sign="?!"), 100)
    assert {query_id: [entry.doc_id for entry in entries] for query_id, entries in run.items()} == {
        "flea": ["d1", "d3"],
        "none": [],
        "stop": [],
        "sign": [],
    }


def test_ties_stay_in_corpus_order_at_every_depth(tmp_path: Path) -> None:
    same = [(f"d{number:02}", "identical words here") for number in (5, 3, 9, 1, 7, 2)]
    documents = [*same, ("best", "identical identical"), ("other", "nothing")]
    index = BM25Index(corpus_of(tmp_path, documents))
    full = ["best", *(doc_id for doc_id, _ in same)]

    for depth in range(1, 12):
        assert [entry.doc_id for entry in index.search("identical", depth)] == full[:depth]


def test_queries_of_ones_own_and_their_order(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, DOCUMENTS, q="flea")
    assert list(search(corpus, 1, {"z": "tick", "a": "dog"})) == ["z", "a"]
    assert list(search(corpus, 1)) == ["q"]
    assert search(corpus, 1, {}) == {}


@pytest.mark.parametrize(
    ("documents", "depth", "said"),
    [
        ({}, 10, "holds no documents"),
        ({"d": "", "e": "the"}, 10, "holds no words of two characters or more"),
        (DOCUMENTS, 0, "depth is 0"),
        (DOCUMENTS, -1, "depth is -1"),
    ],
)
def test_what_can_not_be_indexed_or_asked_for(tmp_path: Path, documents: Any, depth: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        search(corpus_of(tmp_path, documents, q="flea"), depth)


def test_a_single_document_and_non_latin_text(tmp_path: Path) -> None:
    run = search(corpus_of(tmp_path, {"d": "Блоха живёт год"}, ru="блоха", en="flea"), 3)
    assert [entry.doc_id for entry in run["ru"]] == ["d"]
    assert run["en"] == ()


def test_scores_of_some_documents_are_those_of_the_search(tmp_path: Path) -> None:
    texts = {"d1": "fleas jump", "d2": "a flea bites the dog", "d3": "ticks wait", "d4": "fleas and fleas"}
    index = BM25Index(corpus_of(tmp_path, texts))
    found = dict(index.search("how high do fleas jump", 10))
    assert index.score("how high do fleas jump", ["d4", "d3", "d1"]) == [found["d4"], 0.0, found["d1"]]
    assert index.score("the", ["d2"]) == index.score("zebra", ["d2"]) == [0.0]
