"""The PyTerrier transformer, on frames: `pt.Experiment` and grid search included."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

import pytest

pt = pytest.importorskip("pyterrier", reason="PyTerrier is not installed (extra pyterrier)")

import pandas as pd  # noqa: E402
from pyterrier.testing import transformer_test_class  # noqa: E402

from r1ranker_ir import Ranker  # noqa: E402
from r1ranker_ir.backends.oracle import OracleBackend  # noqa: E402
from r1ranker_ir.errors import InputError  # noqa: E402
from r1ranker_ir.integrations.pyterrier import R1RankerTransformer  # noqa: E402
from r1ranker_ir.rankers.cascade import Cascade  # noqa: E402
from r1ranker_ir.runs.traces import read_trace  # noqa: E402

pytestmark = pytest.mark.latest

TEXTS = ("wheels turn", "a flea lives for weeks", "cats sleep", "fleas bite")
TOPICS = pd.DataFrame({"qid": ["q1", "q2"], "query": ["fleas", "wheels"]})
QRELS = pd.DataFrame({"qid": ["q1", "q1", "q2"], "docno": ["d1", "d3", "d0"], "label": [1, 2, 1]})
GAINS = {"q1": {"d1": 1.0, "d3": 2.0}, "q2": {"d0": 1.0}}
FOUND = pd.DataFrame(
    [
        {"qid": qid, "query": query, "docno": f"d{number}", "text": text, "score": float(score)}
        for qid, query, scores in (("q2", "wheels", (1, 2, 3, 4)), ("q1", "fleas", (4, 1, 3, 2)))
        for number, (text, score) in enumerate(zip(TEXTS, scores, strict=True))
    ]
)
BM25 = pt.Transformer.from_df(FOUND)


@pytest.fixture
def ranker() -> Ranker:
    return Ranker("oracle", strategy="iterative", backend=OracleBackend(gains=GAINS))


def test_a_pipeline_has_ranks_scores_and_traces(ranker: Ranker, tmp_path: Path) -> None:
    ranked = (BM25 >> R1RankerTransformer(ranker))(TOPICS)
    assert ranked[ranked.qid == "q1"].docno.tolist()[:2] == ["d3", "d1"]
    assert ranked[ranked.qid == "q2"].docno.tolist()[0] == "d0"
    for _, rows in ranked.groupby("qid"):
        assert rows["rank"].tolist() == [0, 1, 2, 3] and rows.score.tolist() == [1, 0.75, 0.5, 0.25]
        trace = rows.trace.iloc[0]
        assert trace["order"] == rows.docno.tolist() and all(each is trace for each in rows.trace)
        path = tmp_path / "trace.jsonl"
        path.write_text(json.dumps(trace) + "\n")
        [traced] = read_trace(path)
        assert traced.strategy == "iterative" and len(traced.ranking.steps) == 3
        # The first stage's order is that of the scores, not of the rows.
        first = FOUND[FOUND.qid == trace["query_id"]].sort_values("score").docno.iloc[-1]
        assert traced.ranking.request.candidates[0].id == first
    assert "trace" not in (BM25 >> R1RankerTransformer(ranker, traces=False))(TOPICS)
    assert (BM25 >> R1RankerTransformer(ranker) % 1).compile()(TOPICS).docno.tolist() == ["d3", "d0"]


def test_ranks_of_the_first_stage_come_before_its_scores_and_depth_keeps_the_rest(ranker: Ranker) -> None:
    found = FOUND[FOUND.qid == "q1"].assign(rank=[3, 2, 1, 0])
    ranked = R1RankerTransformer(ranker, depth=2)(found)
    assert ranked.docno.tolist() == ["d3", "d2", "d1", "d0"] and len(ranked.trace[0]["order"]) == 2
    assert found.columns.tolist() == ["qid", "query", "docno", "text", "score", "rank"]


def test_an_experiment_and_a_grid_search(ranker: Ranker, capsys: pytest.CaptureFixture[str]) -> None:
    transformer = R1RankerTransformer(ranker)
    pipeline = BM25 >> transformer
    measured = pt.Experiment([BM25, pipeline], TOPICS, QRELS, ["map"], names=["bm25", "reranked"], validate="error")
    assert measured.set_index("name")["map"].to_dict() == {"bm25": pytest.approx(1 / 3), "reranked": 1.0}
    grid: dict[Any, Any] = {transformer: {"depth": [1, None], "max_calls": [9, 1], "window_size": [20]}}
    scanned = pt.GridScan(pipeline, grid, TOPICS, QRELS, ["map"])
    assert len(scanned) == 4 and scanned["map"].max() == 1.0 and scanned["map"].min() < 0.5
    best, _, setting = pt.GridSearch(pipeline, grid, TOPICS, QRELS, "map", return_type="both")
    assert {name: value for _, name, value in setting} == {"depth": None, "max_calls": 9, "window_size": 20}
    assert grid[transformer] and transformer.get_parameter("max_calls") == 9 and ranker.options.max_calls is None
    assert best(TOPICS).docno.tolist()[0] == "d3" and ranker.summary.queries > 4


@pytest.mark.filterwarnings("ignore")
def test_pyterriers_own_checks_pass(ranker: Ranker) -> None:
    case = transformer_test_class(lambda: R1RankerTransformer(ranker))
    done = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(done)
    assert done.testsRun == 2 and done.wasSuccessful(), done.errors + done.failures
    outputs = pt.inspect.transformer_outputs(R1RankerTransformer(ranker), ["qid", "query", "docno", "text"])
    assert outputs == ["qid", "query", "docno", "text", "score", "rank", "trace"]


def test_cascades_rank_too(ranker: Ranker) -> None:
    transformer = R1RankerTransformer(Cascade(ranker, ranker, depth=2))
    ranked = (BM25 >> transformer)(TOPICS)
    assert ranked.docno.tolist()[0] == "d3" and ranked.trace[0]["strategy"] == "cascade"
    assert repr(transformer) == f"R1RankerTransformer(Cascade({ranker!r}, {ranker!r}, depth=2))"


def test_what_makes_no_sense_is_refused(ranker: Ranker) -> None:
    with pytest.raises(InputError, match="ranker is 'r1ranker-iterative': give a Ranker"):
        R1RankerTransformer("r1ranker-iterative")  # type: ignore[arg-type]
    transformer = R1RankerTransformer(ranker)
    with pytest.raises(InputError, match="depth is 0: give at least 1"):
        transformer.set_parameter("depth", 0)
    with pytest.raises(InputError, match=r"unknown parameter 'colour': use one of depth, .*schedule"):
        transformer.set_parameter("colour", 1)
    with pytest.raises(InputError, match="schedule"):
        transformer.set_parameter("schedule", "sideways")
    with pytest.raises(InputError, match="the text of document 'd3' is nan: give a text"):
        transformer(FOUND.assign(text=float("nan")))
    with pytest.raises(pt.validate.InputValidationError, match="text"):
        transformer(FOUND.drop(columns="text"))
