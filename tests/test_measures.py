"""Measures: against pytrec_eval, against known figures, and the treatment of missing queries and bad names."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import ir_measures
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import Qrel
from rich.console import Console

from r1ranker_ir.corpora import open_corpus
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measures import evaluate, measures_json, measures_table, parse_measures
from r1ranker_ir.runs import RunEntry, read_run

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

QRELS = [Qrel("q1", "a", 2), Qrel("q1", "b", 1), Qrel("q1", "c", 0), Qrel("q2", "a", 1), Qrel("q3", "x", 1)]
RUN = {
    "q1": (RunEntry("c", 3.0), RunEntry("b", 2.0), RunEntry("a", 1.0)),
    "q2": (RunEntry("a", 1.0),),
    "q9": (RunEntry("a", 1.0),),
}


@given(
    grades=st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]),
        st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=1),
        min_size=1,
    ),
    scores=st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]),
        st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5), min_size=1),
    ),
)
def test_values_agree_with_pytrec_eval(grades: dict[str, dict[str, int]], scores: dict[str, dict[str, int]]) -> None:
    if scores and not set(scores) & set(grades):
        return
    qrels = [Qrel(query_id, doc_id, grade) for query_id, docs in grades.items() for doc_id, grade in docs.items()]
    run = {query_id: tuple(RunEntry(*item) for item in docs.items()) for query_id, docs in scores.items()}
    ndcg, average_precision = parse_measures("nDCG@3 AP(rel=2)")
    found = evaluate(qrels, run, [ndcg, average_precision])

    plain_run = {
        query_id: {doc_id: float(score) for doc_id, score in docs.items()} for query_id, docs in scores.items()
    }
    expected = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.3"}).evaluate(plain_run)
    expected_ap = pytrec_eval.RelevanceEvaluator(grades, {"map"}, relevance_level=2).evaluate(plain_run)
    assert list(found.per_query) == list(grades)
    for query_id, values in found.per_query.items():
        assert values[ndcg] == pytest.approx(expected.get(query_id, {}).get("ndcg_cut_3", 0.0))
        assert values[average_precision] == pytest.approx(expected_ap.get(query_id, {}).get("map", 0.0))
    assert found.mean[ndcg] == pytest.approx(sum(each[ndcg] for each in found.per_query.values()) / len(grades))
    assert set(found.missing) == set(grades) - set(scores)


def test_judged_queries_that_the_run_lacks_count_as_zero_and_are_said(caplog: pytest.LogCaptureFixture) -> None:
    [measure] = parse_measures("RR@10")
    with caplog.at_level(logging.WARNING):
        found = evaluate(QRELS, RUN, [measure], name="my.trec")

    assert {query_id: values[measure] for query_id, values in found.per_query.items()} == {"q1": 0.5, "q2": 1, "q3": 0}
    assert found.mean[measure] == pytest.approx(0.5)
    assert found.missing == ("q3",)
    assert found.unjudged == ("q9",)
    assert "my.trec: 1 of 3 judged queries have no results and count as 0: q3" in caplog.text
    assert "my.trec: 1 of 3 queries are not judged and do not count: q9" in caplog.text


def test_a_query_without_documents_counts_as_missing() -> None:
    [measure] = parse_measures("nDCG@10")

    assert evaluate(QRELS, {**RUN, "q3": ()}, [measure]).missing == ("q3",)


def test_an_empty_run_is_all_zero_and_empty_judgments_are_an_error() -> None:
    measures = parse_measures("nDCG@10 AP")
    found = evaluate(QRELS, {}, measures)

    assert set(found.mean.values()) == {0.0}
    assert found.missing == ("q1", "q2", "q3")
    with pytest.raises(InputError, match="no judgments"):
        evaluate([], RUN, measures)


def test_a_run_of_another_corpus_is_an_error() -> None:
    with pytest.raises(InputError, match=r"none of its 1 queries is judged \(the run has 'x1'"):
        evaluate(QRELS, {"x1": (RunEntry("a", 1.0),)}, parse_measures("AP"))


def test_graded_relevance_levels_and_spaces_in_brackets() -> None:
    measures = parse_measures("RR(rel=2)@10, nDCG@10  P(rel=2, judged_only=True)@1 AP AP")

    assert list(map(str, measures)) == [
        "RR(rel=2)@10",
        "nDCG@10",
        "P(rel=2,judged_only=True)@1",
        "AP",
    ]
    assert evaluate(QRELS, RUN, measures).per_query["q1"][measures[0]] == pytest.approx(1 / 3)


def test_a_measure_whose_program_fails_is_an_error_of_ours() -> None:
    # gdeval, which computes ERR, is a Perl script that takes numbered queries only.
    with pytest.raises(InputError, match=r"ERR@5"):
        evaluate(QRELS, RUN, parse_measures("ERR@5"))


@pytest.mark.parametrize("text", ["nDCG@10", "RR(rel=2)@10", "AP", "P@5", "Judged@10", "IPrec@0.1", "SetF(beta=0.5)"])
def test_names_mean_what_ir_measures_means_by_them(text: str) -> None:
    [measure] = parse_measures(text)

    assert measure == ir_measures.parse_measure(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no measure given"),
        ("nDCG@10 foo@10", "measure 'foo@10' is unknown"),
        ("nDCG@ten", "measure 'nDCG@ten' can't be read"),
        ("nDCG(10)", "measure 'nDCG(10)' can't be read"),
        ("RR(", "measure 'RR(' can't be read"),
        ("AP __import__('os')", "measure \"__import__('os')\" can't be read"),
        ("P", "measure 'P' needs a value for cutoff"),
        ("RR(rel='a')@10", "measure \"RR(rel='a')@10\" can't be computed"),
        ("nDCG(depth=3)@10", "unsupported params found: ['depth']"),
    ],
)
def test_bad_measures_are_named(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_measures(text)
    assert said in str(caught.value)


def test_the_table_has_a_row_a_run_and_four_decimals() -> None:
    measures = parse_measures("nDCG@10 RR@10")
    evaluations = {"first.trec": evaluate(QRELS, RUN, measures), "none.trec": evaluate(QRELS, {}, measures)}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(measures_table(evaluations))
    rows = [line.split() for line in console.export_text().splitlines() if line.strip()]

    ndcg = evaluations["first.trec"].mean[measures[0]]
    assert rows[0] == ["run", "nDCG@10", "RR@10"]
    assert ["first.trec", f"{ndcg:.4f}", "0.5000"] in rows
    assert ["none.trec", "0.0000", "0.0000"] in rows


def test_json_holds_means_and_values_per_query() -> None:
    [entry] = measures_json({"run.trec": evaluate(QRELS, RUN, parse_measures("RR@10"))})

    assert entry == {
        "run": "run.trec",
        "mean": {"RR@10": 0.5},
        "per_query": {"q1": {"RR@10": 0.5}, "q2": {"RR@10": 1.0}, "q3": {"RR@10": 0.0}},
        "missing": ["q3"],
        "unjudged": ["q9"],
    }


def test_bm25_on_trec_dl_2019_gives_the_known_figures() -> None:
    folder = SHARED / "trec-dl-2019"
    if not folder.is_dir():
        pytest.skip("TREC DL 2019 is not beside this checkout (../shared/data/trec-dl-2019)")
    found = evaluate(
        open_corpus(folder).qrels(), read_run(folder / "run.bm25.trec"), parse_measures("nDCG@10 RR(rel=2)@10")
    )

    assert [round(value, 4) for value in found.mean.values()] == [0.5058, 0.7024]
    assert len(found.per_query) == 43
    assert found.missing == ()
