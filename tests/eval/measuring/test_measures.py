"""Measures: against pytrec_eval, against known figures, and the treatment of missing queries and bad names."""

from __future__ import annotations

import logging
from pathlib import Path

import ir_measures
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import Qrel

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import RunEntry, read_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import evaluate, measures_json, parse_measures
from r1ranker_ir.eval.output.sheets import measures_sheet

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"

QRELS = [Qrel("q1", "a", 2), Qrel("q1", "b", 1), Qrel("q1", "c", 0), Qrel("q2", "a", 1), Qrel("q3", "x", 1)]
RUN = {
    "q1": (RunEntry("c", 3.0), RunEntry("b", 2.0), RunEntry("a", 1.0)),
    "q2": (RunEntry("a", 1.0),),
    "q9": (RunEntry("a", 1.0),),
}


# ir_measures' name, and what pytrec_eval asks for and answers.
TREC_EVAL = {
    "nDCG@10": ("ndcg_cut.10", "ndcg_cut_10"),
    "nDCG": ("ndcg", "ndcg"),
    "AP": ("map", "map"),
    "RR": ("recip_rank", "recip_rank"),
    "P@5": ("P.5", "P_5"),
    "R@100": ("recall.100", "recall_100"),
    "Success@5": ("success.5", "success_5"),
    "Bpref": ("bpref", "bpref"),
}
QUERY_IDS, DOC_IDS = st.sampled_from(["q1", "q2", "q3"]), st.sampled_from("abcdefgh")
# Ties, and scores that differ in double precision only: trec_eval holds single precision.
SCORES = st.one_of(st.integers(-2, 3).map(float), st.sampled_from([1 + 1e-12, 1 + 1e-6, 1e300, -1e300]))


def by_pytrec_eval(
    grades: dict[str, dict[str, int]], run: dict[str, dict[str, float]], level: int = 1
) -> dict[str, dict[str, float]]:
    """Values per judged query by pytrec_eval itself; 0 where the run has none, or nothing can be relevant."""
    survivable = {query_id: judged for query_id, judged in grades.items() if max(judged.values()) >= 0}
    asked = {asked for asked, _ in TREC_EVAL.values()}
    found = pytrec_eval.RelevanceEvaluator(survivable, asked, relevance_level=level).evaluate(run)
    return {
        query_id: {name: found.get(query_id, {}).get(key, 0.0) for name, (_, key) in TREC_EVAL.items()}
        for query_id in grades
    }


@given(
    grades=st.dictionaries(QUERY_IDS, st.dictionaries(DOC_IDS, st.integers(-2, 3), min_size=1), min_size=1),
    scores=st.dictionaries(QUERY_IDS, st.dictionaries(DOC_IDS, SCORES, min_size=1)),
)
def test_values_agree_with_pytrec_eval(grades: dict[str, dict[str, int]], scores: dict[str, dict[str, float]]) -> None:
    if scores and not set(scores) & set(grades):
        return
    qrels = [Qrel(query_id, doc_id, grade) for query_id, docs in grades.items() for doc_id, grade in docs.items()]
    run = {query_id: tuple(RunEntry(*item) for item in docs.items()) for query_id, docs in scores.items()}
    measures = parse_measures(" ".join(TREC_EVAL))
    found = evaluate(qrels, run, [*measures, *parse_measures("AP(rel=2) RR@10 RR@2")])
    expected, stricter = by_pytrec_eval(grades, scores), by_pytrec_eval(grades, scores, level=2)
    assert list(found.per_query) == list(grades)
    for query_id, values in found.per_query.items():
        named = {str(measure): value for measure, value in values.items()}
        # By another provider of ir_measures, which must see the same order of documents.
        reciprocal = named["RR"]
        assert named.pop("RR@10") == pytest.approx(reciprocal)
        assert named.pop("RR@2") == pytest.approx(reciprocal if reciprocal >= 0.5 else 0)
        assert named.pop("AP(rel=2)") == pytest.approx(stricter[query_id]["AP"])
        assert named == pytest.approx(expected[query_id])
    for measure in measures:
        assert found.mean[measure] == pytest.approx(
            sum(values[str(measure)] for values in expected.values()) / len(grades)
        )
    assert set(found.missing) == set(grades) - set(scores)
    assert set(found.unjudged) == set(scores) - set(grades)


def test_ties_are_broken_by_falling_document_id_whatever_computes_a_measure() -> None:
    tied = {"q1": (RunEntry("a", 1.0), RunEntry("z", 1.0), RunEntry("b", 1.0 + 1e-12))}
    names = "RR RR@10 RR(rel=2)@10 P@1 P@2 Judged@1 Judged@2 Accuracy"
    values = evaluate(QRELS, tied, parse_measures(names)).per_query["q1"].values()
    # z, b, a, of which z is not judged, b has 1 and a 2; Accuracy has one not relevant one before both.
    assert list(values) == pytest.approx([1 / 2, 1 / 2, 1 / 3, 0, 1 / 2, 0, 1 / 2, 0])


def test_queries_for_which_a_measure_has_no_value_count_as_zero() -> None:
    qrels = [Qrel("q1", "a", 1), Qrel("q1", "b", 0), Qrel("q2", "a", 1)]
    run = {"q1": (RunEntry("a", 2.0), RunEntry("b", 1.0)), "q2": (RunEntry("b", 1.0),)}
    [accuracy] = parse_measures("Accuracy")
    found = evaluate(qrels, run, [accuracy])
    assert {query_id: values[accuracy] for query_id, values in found.per_query.items()} == {"q1": 1.0, "q2": 0.0}
    assert found.mean[accuracy] == 0.5


def test_queries_with_negative_grades_alone_are_measured_as_zero() -> None:
    qrels = [*QRELS, Qrel("q8", "x", -2), Qrel("q9", "a", -1), Qrel("q9", "b", -2)]
    found = evaluate(qrels, {**RUN, "q8": (RunEntry("x", 1.0),)}, parse_measures("nDCG@10 nDCG AP Judged@10"))
    for query_id in ("q8", "q9"):
        assert [round(value, 4) for value in found.per_query[query_id].values()] == [0, 0, 0, 1]


@pytest.mark.parametrize("grade", [100_001, 2**31, 2**63, -(2**63)])
def test_grades_that_trec_eval_does_not_survive_are_an_error(grade: int) -> None:
    with pytest.raises(InputError, match=rf"grade {grade} of document 'x', query 'q1', is beyond 100,000"):
        evaluate([*QRELS, Qrel("q1", "x", grade)], RUN, parse_measures("nDCG@10"))


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


def test_an_empty_run_is_all_zero_and_empty_judgments_are_an_error() -> None:
    measures = parse_measures("nDCG@10 AP")
    for empty in ({}, {"q1": (), "q3": ()}):
        found = evaluate(QRELS, empty, measures)
        assert set(found.mean.values()) == {0.0} and found.missing == ("q1", "q2", "q3")
    with pytest.raises(InputError, match="no judgments"):
        evaluate([], RUN, measures)


def test_a_run_of_another_corpus_is_an_error() -> None:
    with pytest.raises(InputError, match=r"none of its 1 queries is judged \(the run has 'x1'"):
        evaluate(QRELS, {"x1": (RunEntry("a", 1.0),)}, parse_measures("AP"))


def test_graded_relevance_levels_and_spaces_in_brackets() -> None:
    measures = parse_measures("RR(rel=2)@10, nDCG@10  P(rel=2, judged_only=True)@1 AP AP")
    assert list(map(str, measures)) == ["RR(rel=2)@10", "nDCG@10", "P(rel=2,judged_only=True)@1", "AP"]
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
        ("nDCG@10 foo@10", "measure 'foo@10' can't be computed (there is no"),
        ("nDCG@ten", "measure 'nDCG@ten' can't"),
        ("nDCG(10)", "measure 'nDCG(10)' can't"),
        ("RR(", "measure 'RR(' can't"),
        ("AP __import__('os')", "measure \"__import__('os')\" can't"),
        ("P", "measure 'P' can't be computed (it needs a value for cutoff"),
        ("RR(rel='a')@10", "measure \"RR(rel='a')@10\" can't be computed"),
        ("nDCG(depth=3)@10", "unsupported params found: ['depth']"),
    ],
)
def test_bad_measures_are_named(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_measures(text)
    assert said in str(caught.value)


def test_table_and_json_hold_means_and_values_per_query() -> None:
    measures = parse_measures("nDCG@10 RR@10")
    evaluations = {"first.trec": evaluate(QRELS, RUN, measures), "none.trec": evaluate(QRELS, {}, measures)}
    sheet = measures_sheet(evaluations)
    ndcg = evaluations["first.trec"].mean[measures[0]]
    assert sheet.headings == ("run", "nDCG@10", "RR@10")
    assert sheet.rows == (("first.trec", f"{ndcg:.4f}", "0.5000"), ("none.trec", "0.0000", "0.0000"))
    [entry] = measures_json({"run.trec": evaluate(QRELS, RUN, parse_measures("RR@10"))})
    per_query = {"q1": {"RR@10": 0.5}, "q2": {"RR@10": 1.0}, "q3": {"RR@10": 0.0}}
    told = {"run": "run.trec", "mean": {"RR@10": 0.5}, "missing": ["q3"], "unjudged": ["q9"]}
    assert entry == {**told, "per_query": per_query}


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
