"""From a run to requests and back: depth, order, missing documents, shuffling, and rankings out of order."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.corpora import Corpus, open_corpus
from r1ranker_ir.errors import BackendError, InputError
from r1ranker_ir.reranking import entries_of, in_order, requests_of_run, trace_of
from r1ranker_ir.runs import Run, RunEntry
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

DOC_IDS = [f"d{number}" for number in range(12)]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    documents = [{"_id": doc_id, "text": f"text of {doc_id}"} for doc_id in DOC_IDS]
    queries = [{"_id": f"q{number}", "text": f"query {number}"} for number in (3, 1, 2)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(each) + "\n" for each in queries))
    return open_corpus(tmp_path)


def run_of(**doc_ids: list[str]) -> Run:
    return {
        query_id: tuple(RunEntry(doc_id, -float(place)) for place, doc_id in enumerate(ids))
        for query_id, ids in doc_ids.items()
    }


def ids_of(requests: list[RankingRequest]) -> dict[str, list[str]]:
    return {request.query_id: [candidate.id for candidate in request.candidates] for request in requests}


def test_each_query_keeps_its_top_documents_in_the_runs_order(corpus: Corpus) -> None:
    requests = requests_of_run(corpus, run_of(q1=["d5", "d2", "d9"], q3=["d1"]), 2)

    assert ids_of(requests) == {"q3": ["d1"], "q1": ["d5", "d2"]}
    assert requests[1].query == "query 1"
    assert requests[1].candidates[0] == Candidate("d5", "text of d5")


def test_the_first_queries_are_those_of_the_corpus_that_have_results(corpus: Corpus) -> None:
    run = run_of(q2=["d1"], q1=["d2"])

    assert ids_of(requests_of_run(corpus, run, 5, queries=1)) == {"q1": ["d2"]}
    assert ids_of(requests_of_run(corpus, run, 5, queries=9)) == {"q1": ["d2"], "q2": ["d1"]}


def test_queries_without_a_counterpart_are_reported(corpus: Corpus, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        requests_of_run(corpus, run_of(q1=["d1"], q7=["d1"], q8=["d1"]), 5)

    assert "2 queries of the run are not in corpus" in caplog.text
    assert "left out: q7, q8" in caplog.text
    assert "have no results in the run: q3, q2" in caplog.text


def test_missing_documents_stop_or_are_skipped_and_are_always_named(
    corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(q1=["d1", "x1", "d2", "below"], q2=["x2"], q3=["d3"])
    with pytest.raises(InputError, match=r"2 documents of the run are not in corpus .*: x1, x2\. .*--missing skip"):
        requests_of_run(corpus, run, 3)
    with caplog.at_level(logging.WARNING):
        requests = requests_of_run(corpus, run, 3, missing="skip")

    assert ids_of(requests) == {"q3": ["d3"], "q1": ["d1", "d2"]}
    assert "are skipped: x1, x2" in caplog.text
    assert "query q2 is left out: the corpus holds none of its documents" in caplog.text


def test_long_lists_of_missing_documents_are_cut_in_the_message_and_whole_in_the_log(
    corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(q1=["d1", *(f"x{number}" for number in range(30))])
    with caplog.at_level(logging.INFO, logger="r1ranker_ir"), pytest.raises(InputError, match="x19 and 10 more"):
        requests_of_run(corpus, run, 100)

    assert "x29" in caplog.text


def test_shuffling_depends_on_the_seed_and_the_query_alone(corpus: Corpus) -> None:
    run = run_of(q1=DOC_IDS, q2=DOC_IDS)
    first = ids_of(requests_of_run(corpus, run, 10, shuffle=1))

    assert first == ids_of(requests_of_run(corpus, run, 10, shuffle=1))
    assert first["q2"] == ids_of(requests_of_run(corpus, run_of(q2=DOC_IDS), 10, shuffle=1))["q2"]
    assert all(sorted(ids) == sorted(DOC_IDS[:10]) for ids in first.values())
    assert first["q1"] != first["q2"]
    assert first != ids_of(requests_of_run(corpus, run, 10, shuffle=2))
    # A fixed expectation: the order must be the same in every process and on every machine.
    assert first["q1"] == ["d8", "d4", "d3", "d7", "d6", "d5", "d0", "d2", "d1", "d9"]


def test_nothing_to_rank_is_an_error(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="none of the run's 1 queries is in corpus"):
        requests_of_run(corpus, run_of(other=["d1"]), 5)
    with pytest.raises(InputError, match="none of the run's 0 queries"):
        requests_of_run(corpus, {}, 5)
    with pytest.raises(InputError, match="holds none of the run's documents"):
        requests_of_run(corpus, run_of(q1=["x"]), 5, missing="skip")
    with pytest.raises(InputError, match="depth is 0"):
        requests_of_run(corpus, run_of(q1=["d1"]), 0)
    with pytest.raises(InputError, match="queries is 0"):
        requests_of_run(corpus, run_of(q1=["d1"]), 1, queries=0)


def ranking_of(query_id: str, order: tuple[int, ...] = (0,), steps: tuple[Step, ...] = ()) -> Ranking:
    candidates = tuple(Candidate(f"d{place}", "text") for place in range(len(order)))
    return Ranking(RankingRequest("query", candidates, query_id=query_id), order, steps)


@given(order=st.permutations(range(8)))
def test_rankings_come_out_in_the_order_of_their_requests(order: list[int]) -> None:
    finished = ((place, ranking_of(str(place))) for place in order)

    assert [ranking.request.query_id for ranking in in_order(finished)] == [str(place) for place in range(8)]


def test_rankings_are_passed_on_as_soon_as_their_turn_has_come() -> None:
    taken = []

    def finished() -> Iterator[tuple[int, Ranking]]:
        for place in (1, 0, 2):
            taken.append(place)
            yield place, ranking_of(str(place))

    ordered = in_order(finished())
    assert next(ordered).request.query_id == "0"
    assert taken == [1, 0]


def test_a_failure_loses_no_finished_ranking() -> None:
    def finished() -> Iterator[tuple[int, Ranking]]:
        yield 3, ranking_of("3")
        yield 1, ranking_of("1")
        raise BackendError("the server went away")

    got = []
    with pytest.raises(BackendError, match="went away"):
        for ranking in in_order(finished()):
            got.append(ranking.request.query_id)
    assert got == ["1", "3"]


@given(order=st.integers(1, 40).flatmap(lambda count: st.permutations(range(count))))
def test_entries_keep_the_order_with_scores_from_one_downwards(order: list[int]) -> None:
    entries = entries_of(ranking_of("q", tuple(order)))

    assert [entry.doc_id for entry in entries] == [f"d{place}" for place in order]
    assert entries[0].score == 1
    assert all(above.score > below.score > 0 for above, below in itertools.pairwise(entries))


def test_a_trace_names_documents_in_place_of_positions() -> None:
    step = Step(
        shown=(2, 0),
        outcome=(0,),
        thought="why",
        text="<think>why</think><answer>[2]</answer>",
        probabilities={0: 0.75, 2: 0.25},
        repaired=False,
        thought_closed=True,
        cut_passages=1,
        usage=Usage(1, 20, 5),
    )
    [line] = trace_of(ranking_of("q", (1, 2, 0), (step,)), "iterative")

    assert json.loads(json.dumps(line)) == {
        "query_id": "q",
        "query": "query",
        "task": "passage",
        "strategy": "iterative",
        "step": 1,
        "shown": ["d2", "d0"],
        "texts": {"d2": "text", "d0": "text"},
        "outcome": ["d0"],
        "thought": "why",
        "text": "<think>why</think><answer>[2]</answer>",
        "probabilities": [0.25, 0.75],
        "repaired": False,
        "thought_closed": True,
        "cut_passages": 1,
        "usage": {"calls": 1, "prompt_tokens": 20, "completion_tokens": 5},
    }


def test_a_trace_holds_each_text_once_a_ranking() -> None:
    candidates = tuple(Candidate(f"d{place}", f"text {place}") for place in range(3))
    shown = [(1, 2), (0, 1), (0, 1)]
    steps = tuple(Step(places, places[:1], "", "", None, False, False, 0, Usage()) for places in shown)

    for query in ("q", "again"):
        ranking = Ranking(RankingRequest(query, candidates), (0, 1, 2), steps)
        texts = [line["texts"] for line in trace_of(ranking, "direct")]
        assert texts == [{"d1": "text 1", "d2": "text 2"}, {"d0": "text 0"}, {}]
