"""From a run to requests and back: depth, order, chunks, missing documents, shuffling, and rankings out of order."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator

import pytest
from commands import write_corpus
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.long_runs import open_run
from r1ranker_ir.data.trec_runs import Run, RunEntry, read_run, write_run
from r1ranker_ir.errors import BackendError, InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.source import ranker_source
from r1ranker_ir.runs import requests as reranking
from r1ranker_ir.runs.requests import entries_of, in_order, requests_of_run
from r1ranker_ir.runs.reranking import RunSource, rerank_run
from r1ranker_ir.runs.traces import read_trace
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

DOC_IDS = [f"d{number}" for number in range(12)]


@pytest.fixture
def make_corpus(tmp_path) -> Callable[[Iterable[int]], Corpus]:
    """A corpus of twelve documents with queries of these numbers."""

    def make(numbers: Iterable[int]) -> Corpus:
        documents = {doc_id: f"text of {doc_id}" for doc_id in DOC_IDS}
        return open_corpus(write_corpus(tmp_path, documents, {f"q{number}": f"query {number}" for number in numbers}))

    return make


@pytest.fixture
def corpus(make_corpus) -> Corpus:
    return make_corpus((3, 1, 2))


def run_of(**doc_ids: list[str]) -> Run:
    return {
        query_id: tuple(RunEntry(doc_id, -float(place)) for place, doc_id in enumerate(ids))
        for query_id, ids in doc_ids.items()
    }


def ids_of(requests: Iterable[RankingRequest]) -> dict[str, list[str]]:
    return {request.query_id: [candidate.id for candidate in request.candidates] for request in requests}


def test_the_first_queries_with_results_keep_their_top_documents_and_others_are_reported(corpus, caplog):
    run = run_of(q1=["d5", "d2", "d9"], q3=["d1"], q7=["d1"], q8=["d1"])
    with caplog.at_level(logging.WARNING):
        requests = list(requests_of_run(corpus, run, 2))
    assert ids_of(requests) == {"q3": ["d1"], "q1": ["d5", "d2"]}
    assert requests[1].query == "query 1" and requests[1].candidates[0] == Candidate("d5", "text of d5")
    assert ids_of(requests_of_run(corpus, run, 5, queries=1)) == {"q3": ["d1"]}
    assert len(list(requests_of_run(corpus, run, 5, queries=9))) == 2
    assert "2 queries of the run are not in corpus" in caplog.text and "left out: q7, q8" in caplog.text
    assert "have no results in the run: q2" in caplog.text


def test_missing_documents_stop_or_are_skipped_and_are_always_named(corpus, caplog):
    run = run_of(q1=["d1", "x1", "d2", "below"], q2=["x2"], q3=["d3"])
    with pytest.raises(InputError, match=r"2 documents of the run are not in corpus .*: x1, x2\. .*--missing skip"):
        requests_of_run(corpus, run, 3)
    with caplog.at_level(logging.WARNING):
        requests = list(requests_of_run(corpus, run, 3, missing="skip"))
    assert ids_of(requests) == {"q3": ["d3"], "q1": ["d1", "d2"]}
    assert "are skipped: x1, x2" in caplog.text
    assert "query q2 is left out: the corpus holds none of its documents" in caplog.text


def test_shuffling_depends_on_the_seed_and_the_query_alone(corpus):
    run = run_of(q1=DOC_IDS, q2=DOC_IDS)
    first = ids_of(requests_of_run(corpus, run, 10, shuffle=1))
    assert first == ids_of(requests_of_run(corpus, run, 10, shuffle=1))
    assert first["q2"] == ids_of(requests_of_run(corpus, run_of(q2=DOC_IDS), 10, shuffle=1))["q2"]
    assert all(sorted(ids) == sorted(DOC_IDS[:10]) for ids in first.values())
    assert first["q1"] != first["q2"]
    assert first != ids_of(requests_of_run(corpus, run, 10, shuffle=2))
    # A fixed expectation: the order must be the same in every process and on every machine.
    assert first["q1"] == ["d8", "d4", "d3", "d7", "d6", "d5", "d0", "d2", "d1", "d9"]


@pytest.mark.parametrize(
    ("run", "depth", "options", "said"),
    [
        (run_of(other=["d1"]), 5, {}, "none of the run's 1 queries is in corpus"),
        ({}, 5, {}, "none of the run's 0 queries"),
        (run_of(q1=["x"]), 5, {"missing": "skip"}, "holds none of the run's documents"),
        (run_of(q1=["d1"]), 0, {}, "depth is 0"),
        (run_of(q1=["d1"]), 1, {"queries": 0}, "queries is 0"),
        (run_of(q1=["d1", *(f"x{n}" for n in range(30))]), 100, {}, "x19 and 10 more"),
    ],
)
def test_nothing_to_rank_is_an_error(corpus, run, depth, options, said):
    with pytest.raises(InputError, match=said):
        requests_of_run(corpus, run, depth, **options)


# --- chunks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def long_corpus(make_corpus, monkeypatch) -> Corpus:
    """Seven queries, looked up three at a time."""
    monkeypatch.setattr(reranking, "CHUNK_QUERIES", 3)
    return make_corpus(range(7))


LONG_RUN = run_of(**{f"q{number}": [f"d{number}", f"d{number + 1}"] for number in range(7)})


def test_documents_are_looked_up_chunk_by_chunk_and_as_often_as_asked(long_corpus, monkeypatch):
    asked: list[list[str]] = []
    documents = long_corpus.documents

    def recording(ids: Iterable[str]) -> dict[str, str]:
        asked.append(list(ids))
        return documents(asked[-1])

    monkeypatch.setattr(long_corpus, "documents", recording)
    requests = requests_of_run(long_corpus, LONG_RUN, 2)
    # Only whether the first ones are there is looked at before anything is asked for.
    assert asked == [["d0", "d1", "d2", "d3"]]
    asked.clear()
    first = iter(requests)
    assert [next(first).query_id for _ in range(3)] == ["q0", "q1", "q2"]
    assert asked == [["d0", "d1", "d2", "d3"]]
    assert next(first).query_id == "q3"
    assert asked[1:] == [["d3", "d4", "d5", "d6"]]
    again, once_more = list(requests), list(requests)
    assert len(requests) == 7
    assert again == once_more
    assert [request.query_id for request in again] == [f"q{number}" for number in range(7)]


def test_positions_are_the_same_wherever_one_begins(long_corpus, caplog):
    run = {**LONG_RUN, "q3": (RunEntry("nowhere", 1.0),)}
    requests = requests_of_run(long_corpus, run, 2, missing="skip", shuffle=5)
    with caplog.at_level(logging.WARNING):
        whole = dict(requests.between(0, 100))
    assert caplog.text.count("are skipped: nowhere") == caplog.text.count("query q3 is left out") == 1
    assert {position: request.query_id for position, request in whole.items()} == {
        position: f"q{position}" for position in (0, 1, 2, 4, 5, 6)
    }
    assert list(whole.values()) == list(requests)
    for start, stop in itertools.combinations(range(9), 2):
        expected = [position for position in range(start, min(stop, 7)) if position != 3]
        assert list(requests.between(start, stop)) == [(position, whole[position]) for position in expected]


def test_a_missing_document_stops_when_its_chunk_has_come(long_corpus):
    requests = requests_of_run(long_corpus, {**LONG_RUN, "q5": (RunEntry("nowhere", 1.0),)}, 2)
    got = []
    with pytest.raises(InputError, match=r"1 documents of the run's queries 4 to 6 are not in corpus .*: nowhere\. "):
        for request in requests:
            got.append(request.query_id)
    assert got == ["q0", "q1", "q2"]


def test_a_run_in_a_file_gives_the_requests_of_a_run_in_memory(long_corpus, tmp_path):
    write_run(LONG_RUN, tmp_path / "run.trec")
    assert list(requests_of_run(long_corpus, open_run(tmp_path / "run.trec"), 1)) == list(
        requests_of_run(long_corpus, LONG_RUN, 1)
    )


def test_what_was_ranked_before_a_missing_document_is_kept(long_corpus, tmp_path):
    write_run({**LONG_RUN, "q4": (RunEntry("nowhere", 1.0),)}, tmp_path / "run.trec")
    output, trace = tmp_path / "out.trec", tmp_path / "trace.jsonl"
    source = RunSource(str(tmp_path), str(tmp_path / "run.trec"), 2)
    ranker = ranker_source(TINY_CHECKPOINT, "direct", {"device": "cpu"})
    with pytest.raises(InputError, match=r"queries 4 to 6 are not in corpus .*nowhere"):
        rerank_run(source, ranker, output, tag="t", traces=trace)
    assert list(read_run(f"{output}.partial")) == ["q0", "q1", "q2"]
    assert [traced.ranking.request.query_id for traced in read_trace(f"{trace}.partial")] == ["q0", "q1", "q2"]
    assert not output.exists() and not trace.exists()
    with pytest.raises(InputError, match=r"are written to the same file: choose another --save-traces"):
        rerank_run(source, ranker, output, tag="t", traces=tmp_path / "." / "out.trec")


# --- back to a run --------------------------------------------------------------------------------------------------


def ranking_of(query_id: str, order: tuple[int, ...] = (0,)) -> Ranking:
    candidates = tuple(Candidate(f"d{place}", "text") for place in range(len(order)))
    return Ranking(RankingRequest("query", candidates, query_id=query_id), order)


@given(order=st.permutations(range(8)))
def test_rankings_come_out_in_the_order_of_their_requests(order):
    finished = ((place, ranking_of(str(place))) for place in order)
    assert [ranking.request.query_id for ranking in in_order(finished)] == [str(place) for place in range(8)]


def test_rankings_are_passed_on_as_soon_as_their_turn_has_come_and_none_is_lost_by_a_failure():
    taken = []

    def finished() -> Iterator[tuple[int, Ranking]]:
        for place in (1, 0, 5, 3):
            taken.append(place)
            yield place, ranking_of(str(place))
        raise BackendError("the server went away")

    ordered = in_order(finished())
    got = [next(ordered).request.query_id]
    assert taken == [1, 0]
    with pytest.raises(BackendError, match="went away"):
        for ranking in ordered:
            got.append(ranking.request.query_id)
    assert got == ["0", "1", "3", "5"]


@given(order=st.integers(1, 40).flatmap(lambda count: st.permutations(range(count))))
def test_entries_keep_the_order_with_scores_from_one_downwards(order):
    entries = entries_of(ranking_of("q", tuple(order)))
    assert [entry.doc_id for entry in entries] == [f"d{place}" for place in order]
    assert entries[0].score == 1
    assert all(above.score > below.score > 0 for above, below in itertools.pairwise(entries))
