"""Scores that are probabilities of relevance, where the checkpoint has a calibration; marked in every answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import NumbersBackend, Running, numbers_source, running

from r1ranker_ir.models.calibration import Calibration, FittedOn, Reliability, calibration_data
from r1ranker_ir.serving.service import Service

TEXTS = ["number 5", "number 1", "number 9", "number 3"]
FITTED = FittedOn(corpus="c", queries=9, candidates=9, relevant=3, relevant_from=1, unjudged="skip", seed=0)
FIGURES = dict.fromkeys(("brier", "error", "places_brier", "places_error", "constant_brier"), 0.1)
HELD_OUT = Reliability(queries=1, candidates=1, relevant=0, bins=[], **FIGURES)
# Without probabilities a rank counts half a place up: 1 is -0.5, 4 is -3.5.
MAP = Calibration(
    by="places",
    conditions=numbers_source(NumbersBackend()).conditions(),
    signals=[-3.5, -1.5, -0.5],
    relevance=[0.1, 0.5, 0.9],
    fitted_on=FITTED,
    held_out=HELD_OUT,
)


@pytest.fixture
def calibrated(tmp_path: Path, backend: NumbersBackend) -> Iterator[Running]:
    content = {"calibration": {"iterative": calibration_data(MAP)}}
    (tmp_path / "r1ranker.json").write_text(json.dumps(content))
    source = numbers_source(backend, settings_from=tmp_path)
    other = numbers_source(NumbersBackend(), settings_from=tmp_path, votes=3)
    sources = {"sure": source, "plain": numbers_source(NumbersBackend()), "other": other}
    with running(Service(sources, fallback=True)) as found:
        yield found


def test_scores_are_probabilities_where_there_is_a_map(calibrated: Running, backend: NumbersBackend) -> None:
    models = calibrated.get("/v1/models").json()["data"]
    assert [(each["id"], each["calibrated"]) for each in models] == [("sure", True), ("plain", False), ("other", False)]
    body = {"query": "the smallest", "documents": TEXTS}
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = calibrated.post(path, body).json()
        assert answer["calibrated"] is True
        scored = [(each["index"], each["relevance_score"]) for each in answer["results"]]
        assert scored == [(1, pytest.approx(0.9)), (3, pytest.approx(0.5)), (0, pytest.approx(0.3)), (2, 0.1)]
    texts = calibrated.post("/rerank", {"query": "q", "texts": TEXTS, "model": "sure"}).json()
    assert [each["score"] for each in texts] == pytest.approx([0.9, 0.5, 0.3, 0.1])
    for name in ("plain", "other"):
        plain = calibrated.post("/v1/rerank", {**body, "model": name}).json()
        assert plain["calibrated"] is False and plain["results"][0]["relevance_score"] == 1.0
    backend.fails = True
    fallen = calibrated.post("/v1/rerank", body).json()
    assert (fallen["order"], fallen["calibrated"]) == ("input", False)
