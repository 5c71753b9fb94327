"""Probabilities of relevance: what the map starts from, how it is fitted and measured, and that it travels whole."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import r1ranker, said
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from r1ranker_ir.errors import CheckpointError, InputError, MissingExtraError
from r1ranker_ir.eval.measuring.calibrating import (
    CalibrationSettings,
    brier_score,
    calibration_error,
    fit_calibration,
)
from r1ranker_ir.models.calibration import signals_of
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.runs.traces import TracedRanking, TraceWriter
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

MADE = {"model": "made", "template": "0123"}


def elimination(query_id: str, worst_first: list[int], sure: float) -> TracedRanking:
    """A ranking whose every call was so sure of the one that it excludes."""
    left, steps = sorted(worst_first), []
    for worst in worst_first[:-1]:
        chances = {place: sure if place == worst else (1 - sure) / (len(left) - 1) for place in left}
        steps.append(Step(tuple(left), (worst,), "", "", chances, False, False, 0, Usage(1)))
        left.remove(worst)
    candidates = tuple(Candidate(f"d{place}", "text") for place in range(len(worst_first)))
    request = RankingRequest("q", candidates, query_id=query_id)
    return TracedRanking("iterative", Ranking(request, tuple(reversed(worst_first)), tuple(steps)), conditions=MADE)


def judged(count: int = 60, depth: int = 6) -> tuple[list[TracedRanking], dict[str, dict[str, float]]]:
    """Rankings whose first candidates are relevant more often than the last ones."""
    draw, rankings, gains = random.Random(1), [], {}
    for number in range(count):
        order = draw.sample(range(depth), depth)
        rankings.append(elimination(f"q{number}", order, draw.uniform(0.4, 0.99)))
        chances = {place: (rank + 1) / (depth + 1) for rank, place in enumerate(order)}
        gains[f"q{number}"] = {f"d{place}": float(draw.random() < chance) for place, chance in chances.items()}
    return rankings, gains


def test_what_a_map_starts_from() -> None:
    ranking = elimination("q", [2, 0, 1], 0.8).ranking
    by, found = signals_of(ranking, "worst")
    # The winner was not the worst with 0.8; the others were with 0.8, in their last calls.
    assert by == "places" and found == pytest.approx((-1 + 0.8, -2 + 0.2, -3 + 0.2))
    step = Step((0, 1, 2), (1, 0, 2), "", "", None, False, False, 0, Usage(1))
    assert signals_of(Ranking(ranking.request, (1, 0, 2), (step,)), "order")[1] == (-0.5, -1.5, -2.5)
    grades = [
        Step((place,), (place,), "", "", None, False, False, 0, Usage(1), grade=4.0 - place) for place in range(3)
    ]
    assert signals_of(Ranking(ranking.request, (0, 1, 2), tuple(grades)), "grade") == ("scores", (4.0, 3.0, 2.0))


def test_the_map_is_scikit_learns_and_measured_on_other_queries() -> None:
    rankings, gains = judged()
    strategy, found = fit_calibration(rankings, gains, CalibrationSettings(held_out=0.4, seed=3), corpus="made")
    assert strategy == "iterative" and found.by == "places" and found.fitted_on.corpus == "made"
    assert found.conditions == MADE
    assert (found.fitted_on.queries, found.held_out.queries) == (36, 24)
    query_ids = sorted(gains)
    random.Random(3).shuffle(query_ids)
    by_id = {each.ranking.request.query_id: each.ranking for each in rankings}

    def of(some: list[str]) -> tuple[list[float], list[float]]:
        signals = [signal for name in some for signal in signals_of(by_id[name], "worst")[1]]
        return signals, [gains[name][each.id] for name in some for each in by_id[name].best_first]

    fitted = IsotonicRegression(out_of_bounds="clip").fit(*of(query_ids[24:]))
    signals, relevant = of(query_ids[:24])
    chances = fitted.predict(signals)
    assert found.map(signals) == pytest.approx(chances)
    assert found.held_out.brier == pytest.approx(brier_score_loss(relevant, chances))
    shares, means = calibration_curve(relevant, chances, n_bins=10)
    assert [each.relevant for each in found.held_out.bins] == pytest.approx(shares)
    assert [each.said for each in found.held_out.bins] == pytest.approx(means)
    assert found.held_out.brier < min(found.held_out.places_brier, found.held_out.constant_brier)
    assert found == fit_calibration(rankings, gains, CalibrationSettings(held_out=0.4, seed=3), corpus="made")[1]


def test_errors_of_probabilities() -> None:
    said_, relevant = np.array([0.0, 0.25, 0.25, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    assert brier_score(said_, relevant) == pytest.approx((0.75**2 + 0.25**2) / 4)
    assert calibration_error(said_, relevant) == pytest.approx(0.25 / 2)


@given(st.permutations(range(6)), st.floats(0.01, 0.99))
def test_probabilities_never_rise_down_the_ranking(order: list[int], sure: float) -> None:
    rankings, gains = judged(20)
    _, found = fit_calibration(rankings, gains)
    ranking = elimination("new", order, sure).ranking
    chances = found.relevance_of(ranking, "worst")
    assert chances is not None and len(chances) == 6
    assert list(chances) == sorted(chances, reverse=True) and 0 <= chances[-1] <= chances[0] <= 1
    cut = Ranking(ranking.request, ranking.order, ranking.steps, budget_reached=True)
    assert found.relevance_of(cut, "worst") is None


@pytest.mark.parametrize(
    ("rankings", "gains", "expected"),
    [
        (judged(3)[0], judged(3)[1], "3 queries of the trace are judged: give at least 4"),
        (judged(6)[0], {}, "no query of the trace is judged"),
        (judged(6)[0], {f"q{number}": {} for number in range(6)}, "are not relevant: there is nothing to tell apart"),
        (judged(6)[0] * 2, judged(6)[1], "twice"),
        ([TracedRanking("cascade", judged(1)[0][0].ranking)], judged(1)[1], "cascade"),
        ([TracedRanking("iterative", judged(1)[0][0].ranking)], judged(1)[1], "does not say under which conditions"),
        (
            [replace(each, conditions={**MADE, "votes": place % 2}) for place, each in enumerate(judged(6)[0])],
            judged(6)[1],
            "of query 'q1' votes is 1, and was 0 before",
        ),
        (
            [*judged(6)[0], replace(elimination("q6", [1, 0], 0.5), strategy="setwise")],
            judged(7)[1],
            "several kinds",
        ),
    ],
)
def test_what_can_t_be_fitted_is_said(rankings: Any, gains: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        fit_calibration(rankings, gains)


def test_scikit_learn_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(MissingExtraError, match=r'pip install "r1ranker-ir\[calibrate\]"'):
        fit_calibration(*judged(8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rankings, gains = judged(12)
    with TraceWriter(tmp_path / "trace.jsonl", "iterative", conditions=MADE) as writer:
        for traced in rankings:
            writer.write(traced.ranking)
    lines = [f"{name} 0 {doc_id} {int(grade)}\n" for name, each in gains.items() for doc_id, grade in each.items()]
    (tmp_path / "own.qrels").write_text("".join(lines))
    return tmp_path


def test_the_command_adds_the_map_to_what_the_checkpoint_says(folder: Path) -> None:
    given = ("calibrate", folder / "trace.jsonl", "--corpus", "demo-collection", "--qrels", folder / "own.qrels")
    done = r1ranker(*given, "--checkpoint", "r1ranker-iterative-tiny", "--output", folder / "made")
    for part in (
        "Brier score",
        "calibration error",
        "Reliability of iterative",
        "fitted on 8 queries of demo-collection",
        "It holds under model=made, template=0123.",
    ):
        assert part in said(done)
    content = json.loads((folder / "made" / "r1ranker.json").read_text())
    assert content["template_hash"] and set(content["calibration"]) == {"iterative"}
    assert content["calibration"]["iterative"]["digest"] in said(done)
    settings = read_settings(folder / "made")
    assert settings.window_size == 10 and settings.calibration["iterative"].fitted_on.queries == 8
    r1ranker(*given, "--checkpoint", folder / "made", "--seed", 1)  # in place, with what else is there
    assert read_settings(folder / "made").calibration["iterative"].fitted_on.seed == 1
    r1ranker(
        "report",
        "--traces",
        folder / "trace.jsonl",
        *given[2:],
        "--calibration",
        folder / "made",
        "--output",
        folder / "a",
    )
    assert "Reliability diagram" in (folder / "a").read_text()
    refused = r1ranker(*given, "--checkpoint", "r1ranker-iterative-tiny", code=1)
    assert "is not a folder of yours: give one as --output" in said(refused)
    (folder / "made").rename(folder / "other")
    refused = r1ranker(*given, "--checkpoint", folder / "other", code=1)
    assert "the trace was made by 'made'" in said(refused)
    text = (folder / "trace.jsonl").read_text().replace('"template": "0123"', '"template": "4567"')
    (folder / "trace.jsonl").write_text(text)
    done = r1ranker(*given, "--checkpoint", folder / "other", "--output", folder / "other")
    assert "is replaced: template is '4567', and was '0123'" in said(done)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"relevance": [0.0, 1.0]}, "no monotone map"),
        ({"digest": "0"}, "it was changed. Calibrate again"),
        ({"by": "colour"}, "'by'"),
        (None, "is not an object"),
        ({"conditions": None}, "'conditions'"),
    ],
)
def test_a_map_that_was_changed_is_refused(tmp_path: Path, change: Any, expected: str) -> None:
    from r1ranker_ir.models.calibration import calibration_data

    data = calibration_data(fit_calibration(*judged(8))[1])
    changed = None if change is None else data | change
    (tmp_path / "r1ranker.json").write_text(json.dumps({"calibration": {"iterative": changed}}))
    with pytest.raises(CheckpointError, match=expected):
        read_settings(tmp_path)
