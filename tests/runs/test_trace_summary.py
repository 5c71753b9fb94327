"""`r1ranker trace summary`: figures by hand, every strategy, interrupted files, pipes, and measures."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from commands import COLLECTION, r1ranker
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.trace_summary import kendall_tau, rank_biased_overlap, repair_of, summarise
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage


def summary(*arguments: object, code: int = 0, stdin: bytes | None = None) -> Any:
    return r1ranker("trace", "summary", *arguments, code=code, stdin=stdin)


def request(query_id: str, count: int = 4) -> RankingRequest:
    ids = (f"p{number:03}" for number in range(1, count + 1))
    return RankingRequest("how long does a flea live", tuple(Candidate(each, each) for each in ids), query_id=query_id)


def step(shown: Sequence[int], outcome: Sequence[int], text: str = "", **fields: Any) -> Step:
    values: dict[str, Any] = {
        **{"thought": "a b c", "probabilities": None, "repaired": False, "thought_closed": False, "cut_passages": 0},
        "usage": Usage(1, 100, 10),
    }
    return Step(
        tuple(shown), tuple(outcome), text=text or "<think>a b c</think><answer>[1]</answer>", **values | fields
    )


def eliminated(query_id: str, *, repaired: bool = False) -> Ranking:
    """An elimination of four: the fourth, the first and the second leave; the third is the best."""
    steps = (
        step((0, 1, 2, 3), (3,)),
        step((0, 1, 2), (0,), thought_closed=True, closed_at="limit", cut_passages=2),
        step((1, 2), (1,), "<think>a b c</think><answer>[7]</answer>", repaired=repaired),
    )
    return Ranking(request(query_id), (2, 1, 0, 3), steps)


def written(path: Path, strategy: str, rankings: Sequence[Ranking], notes: Sequence[str] = ()) -> Path:
    with TraceWriter(path, strategy, notes) as writer:
        for ranking in rankings:
            writer.write(ranking)
    return path


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_those_counted_by_hand(tmp_path):
    trace = written(
        tmp_path / "t.jsonl", "iterative", [eliminated("q01"), eliminated("q02", repaired=True)], ["mind me"]
    )
    found = json.loads(summary(trace, "--format", "json").stdout)
    assert (found["rankings"], found["queries"], found["strategies"]) == (2, 2, {"iterative": 2})
    assert found["usage"] == {"calls": 6, "prompt_tokens": 600, "completion_tokens": 60}
    assert found["calls"] == {"least": 3, "median": 3, "most": 3, "mean": 3}
    # Places 4, 1 and 1, and in the second ranking 4 and 1, as the last answer was repaired.
    assert [(each["place"], each["named"], each["able"]) for each in found["places"]] == [
        (1, 3, 5),
        (2, 0, 5),
        (3, 0, 4),
        (4, 2, 2),
    ]
    assert found["places"][0]["expected"] == pytest.approx(2 / 4 + 2 / 3 + 1 / 2)
    assert found["repairs"] == {"an identifier that was not shown": 1}
    assert found["endings"] == {"closed by the model": 4, "cut off at the limit": 2}
    assert found["thought_words"]["median"] == 3
    assert found["cut_passages"] == 4
    assert found["agreement"] == {
        **{"lists": 2, "unchanged": 0, "first_kept": 0, "tau": 0.0},
        "overlap": pytest.approx(rank_biased_overlap((2, 1, 0, 3))),
    }
    text = summary(trace).stdout
    assert "! Mind me." in text
    assert "Repairs: 1 of 6 answers (16.7%)" in text and "1 an identifier that was not shown" in text
    assert "2 cut off at the limit" in text


@pytest.mark.parametrize(
    ("text", "fields", "kind"),
    [
        ("<think>on and on", {"thought_closed": True, "closed_at": "limit"}, "the thought never came to an answer"),
        ("<think>x</think> ", {}, "nothing answered"),
        ("<think>x</think>I can't say", {}, "no identifier in the answer"),
        ("<think>x</think><answer>[9]</answer>", {}, "an identifier that was not shown"),
        ("<think>x</think><answer>[2] > [2]</answer>", {}, "an identifier named twice"),
        ("<think>x</think><answer>[2] [1]</answer>", {}, "several identifiers where one was asked for"),
        ("<think>x</think><answer>[1]</answer>", {"marked": (0,)}, "a candidate that was excluded before"),
        ("<think>x</think><answer>[3] > [1]</answer>", {"outcome": (2, 0, 1)}, "not all identifiers of an order"),
        ("<think>x</think><answer>good</answer>", {"grade": 5.0}, "no grade in the answer"),
        ("<think>x</think><answer>[77]</answer>", {"grade": 5.0}, "not one whole grade in range"),
    ],
)
def test_repairs_are_told_by_kind(text, fields, kind):
    outcome = fields.pop("outcome", (1,))
    assert repair_of(step((0, 1, 2), outcome, text, repaired=True, thought="x", **fields)) == kind


@given(st.permutations(range(6)))
def test_agreement_is_that_of_its_definitions(order):
    assert kendall_tau(order) == pytest.approx(scipy.stats.kendalltau(order, range(6)).statistic)
    agreed = [len(set(order[:depth]) & set(range(depth))) / depth for depth in range(1, 7)]
    defined = 0.1 / 0.9 * math.fsum(0.9**depth * share for depth, share in enumerate(agreed, 1)) + 0.9**6
    assert rank_biased_overlap(order) == pytest.approx(defined)
    assert rank_biased_overlap(sorted(order)) == pytest.approx(1)


# --- traces of all kinds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("iterative", {}),
        ("iterative", {"layout": "mark"}),
        ("iterative", {"votes": 3}),
        ("direct", {"window_size": 3}),
        ("setwise", {}),
        ("pointwise", {}),
    ],
)
def test_every_strategy_has_a_summary(strategy, options, tmp_path):
    requests = [request(f"q{number:02}", 6) for number in range(1, 5)]
    gains = {each.query_id: {f"p{place:03}": float(place * 7 % 5) for place in range(1, 7)} for each in requests}
    rankings = Ranker("oracle", strategy=strategy, backend="oracle", gains=gains, **options).rank(requests)
    trace = written(tmp_path / "t.jsonl.gz", strategy, rankings)
    found = json.loads(summary(trace, "--format", "json").stdout)
    assert found["usage"]["calls"] == found["answers"] == sum(len(ranking.steps) for ranking in rankings)
    assert sum(each["named"] for each in found["places"]) == (0 if strategy == "pointwise" else found["answers"])
    assert sum(found["grades"].values()) == (found["answers"] if strategy == "pointwise" else 0)
    assert found["agreement"]["lists"] == 4
    assert ("Grades" in summary(trace).stdout) is (strategy == "pointwise")


def test_a_model_that_does_not_rank_is_told(tmp_path):
    steps = [step((0, 1, 2, 3), (0,)), step((1, 2, 3), (1,)), step((2, 3), (2,))]
    rankings = [Ranking(request(f"q{number:02}"), (3, 2, 1, 0), tuple(steps)) for number in range(1, 8)]
    text = summary(written(tmp_path / "t.jsonl", "iterative", rankings)).stdout
    assert "! 21 of 21 answers name the first candidate shown" in text


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_an_interrupted_run_left_is_summed_up(tmp_path):
    whole = written(tmp_path / "t.jsonl", "iterative", [eliminated("q01"), eliminated("q02")]).read_bytes()
    cut = tmp_path / "cut.jsonl.partial"
    cut.write_bytes(whole[:-40])
    result = summary(cut, "--format", "json")
    assert json.loads(result.stdout)["rankings"] == 1
    assert "the file ends within this line" in result.stderr and "what stands before is taken" in result.stderr
    packed = tmp_path / "cut.jsonl.gz.partial"
    packed.write_bytes(gzip.compress(whole)[:-8])  # without the checksum: all lines are there
    result = summary(packed, "--format", "json")
    assert json.loads(result.stdout)["rankings"] == 2 and "damaged gzip data" in result.stderr
    (tmp_path / "bad.jsonl").write_bytes(b"{]\n" + whole)
    assert "bad.jsonl:1: not valid JSON" in summary(tmp_path / "bad.jsonl", code=1).stderr


def test_standard_input_is_read_and_an_empty_or_missing_file_says_so(tmp_path):
    trace = written(tmp_path / "t.jsonl", "iterative", [eliminated("q01")])
    assert summary("-", stdin=trace.read_bytes()).stdout == summary(trace).stdout
    (tmp_path / "empty.jsonl").write_text("")
    empty = "is empty: give the trace of a run that has finished queries"
    assert empty in summary(tmp_path / "empty.jsonl", code=1).stderr and empty in summary("-", stdin=b"", code=1).stderr
    assert "can't be read" in summary(tmp_path / "none.jsonl", code=1).stderr


# --- measures ---------------------------------------------------------------------------------------------------------


def test_measures_before_and_after_are_those_of_the_runs(bm25_run, tmp_path):
    output, trace, corpus = tmp_path / "out.trec", tmp_path / "t.jsonl", ("--corpus", COLLECTION)
    few = ("--run", bm25_run, "--depth", 3, "--queries", 4, "--reranker", "r1ranker-direct-tiny")
    r1ranker("rerank", *corpus, *few, "--output", output, "--save-traces", trace)
    top = tmp_path / "top.trec"
    lines = [line for line in bm25_run.read_text().splitlines() if int(line.split()[3]) <= 3]
    top.write_text("\n".join(lines) + "\n")
    measures = ("--measures", "nDCG@3 RR", "--format", "json")
    found = json.loads(summary(trace, *corpus, *measures).stdout)["measures"]
    expected = json.loads(r1ranker("evaluate", *corpus, *measures, "--only-run-queries", top, output).stdout)
    for name, each in zip(("before", "after"), expected, strict=True):
        assert found[name] == pytest.approx(each["mean"])
    assert (found["counted"], found["judged"]) == (4, 32)
    assert "Measures over 4 of 32 judged queries" in summary(trace, *corpus).stdout


def test_a_query_that_is_ranked_twice_is_not_measured(tmp_path):
    trace = written(tmp_path / "t.jsonl", "iterative", [eliminated("q01"), eliminated("q01")])
    assert summarise(read_trace(trace)).queries == 1
    said = summary(trace, "--corpus", COLLECTION, code=1).stderr
    assert "ranks query 'q01' twice" in said
