"""Ranking requests as something to measure runs on: ids that a run can hold, and judgments made of gains."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.request_corpus import judgments_of, with_run_ids
from r1ranker_ir.data.request_files import JudgedRequest, write_requests
from r1ranker_ir.data.trec_runs import RunEntry, is_run_id, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Candidate, RankingRequest

IDS = st.lists(
    st.sampled_from(["a", "a_2", "a b", "a_b", " ", "", "_", "a\u2003b", "a_b_2", "ü\n"]) | st.text(), max_size=8
)


def request_of(query_id: str, ids: list[str], gains: list[float] | None = None) -> JudgedRequest:
    candidates = tuple(Candidate(doc_id, f"text {place}") for place, doc_id in enumerate(ids))
    return JudgedRequest(RankingRequest("q", candidates, "item", query_id), tuple(gains or [0.0] * len(ids)))


@given(query_ids=IDS, ids=IDS)
def test_ids_are_words_and_differ_and_good_ones_stay(query_ids: list[str], ids: list[str]) -> None:
    requests = [request_of(query_id, ids) for query_id in query_ids]
    named = with_run_ids(requests)
    assert with_run_ids(named) == named
    columns = [([each.request.query_id for each in named], query_ids)]
    columns += [([candidate.id for candidate in each.request.candidates], ids) for each in named]
    for ours, theirs in columns:
        assert len(set(ours)) == len(ours) == len(theirs)
        assert all(map(is_run_id, ours))
        for each in set(theirs):
            if is_run_id(each):
                assert ours[theirs.index(each)] == each
    assert [[c.text for c in each.request.candidates] for each in named] == [
        [c.text for c in each.request.candidates] for each in requests
    ]


@given(ids=IDS.filter(bool))
def test_a_run_can_hold_the_ids(ids: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    [named] = with_run_ids([request_of("the user", ids)])
    entries = tuple(RunEntry(candidate.id, -place) for place, candidate in enumerate(named.request.candidates))
    path = tmp_path_factory.mktemp("runs") / "x.trec"
    write_run({named.request.query_id: entries}, path)
    assert [entry.doc_id for entry in read_run(path)["the_user"]] == [entry.doc_id for entry in entries]


def test_whole_gains_are_grades_and_others_say_which_is_best() -> None:
    whole = [request_of("q1", ["a", "b"], [3.0, 1.0]), request_of("q2", ["a"], [0.0])]
    judgments = judgments_of(whole)
    assert judgments.graded
    assert [tuple(qrel)[:3] for qrel in judgments.qrels] == [("q1", "a", 3), ("q1", "b", 1)]
    judgments = judgments_of([*whole, request_of("q3", ["a", "b", "c"], [0.5, 0.5, 0.1])])
    assert not judgments.graded
    assert [qrel.relevance for qrel in judgments.qrels] == [1, 0, 1, 1, 0]


def test_a_request_file_gives_queries_and_judgments_alone(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl.gz"
    write_requests(path, [request_of("q 1", ["a", "b"], [0.0, 1.0])])
    corpus = open_corpus(path)
    assert corpus.queries() == {"q_1": "q"}
    assert [qrel.doc_id for qrel in corpus.qrels() if qrel.relevance] == ["b"]
    assert corpus.name == str(path) and corpus.collection == str(path.resolve())
    for refused in (lambda: corpus.documents(["a"]), corpus.iterate_documents):
        with pytest.raises(InputError, match="with r1ranker suite"):
            refused()
    with pytest.raises(InputError, match="only folders have splits"):
        open_corpus(path, "test")
