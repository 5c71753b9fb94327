"""Fits the map from a ranker's places and probabilities to a probability of relevance, and says how well it holds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.eval.measuring.settings import CalibrationSettings
from r1ranker_ir.models.calibration import (
    By,
    Calibration,
    FittedOn,
    Reliability,
    ReliabilityBin,
    condition_differences,
    signals_of,
)
from r1ranker_ir.runs.traces import CASCADE, TracedRanking, once_each
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Condition, place_score

BINS = 10
"""How many equal parts of 0 to 1 the calibration error is summed over."""
_LEAST_QUERIES = 2
_Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class _Judged:
    """The judged candidates of one query."""

    signals: list[float]
    places: list[float]  # 1 − (rank − 1) / n
    relevant: list[float]  # 1 or 0


def fit_calibration(
    rankings: Iterable[TracedRanking],
    gains: Mapping[str, Mapping[str, float]],
    settings: CalibrationSettings | None = None,
    *,
    corpus: str = "",
) -> tuple[str, Calibration]:
    """Fits a map on some of the judged queries, and measures it on the others.

    Args:
        rankings: a trace of one ranker, made under the conditions under which the map is to hold.
        gains: query id to document id to grade; queries without any are left out.
        settings: how to split, and what counts as relevant.
        corpus: what the map says that it was fitted on.

    Returns:
        The strategy that made the rankings, and the map.

    Raises:
        InputError: if there are too few queries, all candidates are alike, or the trace does not say, or says in two
            ways, under which conditions it was made.
        MissingExtraError: without scikit-learn.
    """
    settings = settings or CalibrationSettings()
    strategy, by, conditions, judged = _judged(rankings, gains, settings)
    query_ids = sorted(judged)
    if len(query_ids) < 2 * _LEAST_QUERIES:
        raise InputError(
            f"{len(query_ids)} queries of the trace are judged: give at least {2 * _LEAST_QUERIES}, some hundreds for "
            "a map to rely on"
        )
    random.Random(settings.seed).shuffle(query_ids)
    kept = round(settings.held_out * len(query_ids))
    kept = min(max(kept, _LEAST_QUERIES), len(query_ids) - _LEAST_QUERIES)
    held_out, fitted = ([judged[query_id] for query_id in some] for some in (query_ids[:kept], query_ids[kept:]))
    signals, relevant = _joined(each.signals for each in fitted), _joined(each.relevant for each in fitted)
    if relevant.min() == relevant.max():
        alike = "relevant" if relevant[0] else "not relevant"
        raise InputError(f"all {len(relevant)} candidates to fit on are {alike}: there is nothing to tell apart")
    risers, chances = _isotonic(signals, relevant)
    told = FittedOn(
        corpus=corpus,
        queries=len(fitted),
        candidates=len(signals),
        relevant=int(relevant.sum()),
        relevant_from=settings.relevant_from,
        unjudged=settings.unjudged,
        seed=settings.seed,
    )
    said = np.interp(_joined(each.signals for each in held_out), risers, chances)
    measured = _reliability(held_out, said, float(relevant.mean()))
    return strategy, Calibration(
        by=by,
        conditions=dict(conditions),
        signals=risers,
        relevance=chances,
        fitted_on=told,
        held_out=measured,
    )


def _judged(
    rankings: Iterable[TracedRanking], gains: Mapping[str, Mapping[str, float]], settings: CalibrationSettings
) -> tuple[str, By, Mapping[str, Condition], dict[str, _Judged]]:
    found: dict[str, _Judged] = {}
    kinds: set[tuple[str, By]] = set()
    conditions: Mapping[str, Condition] = {}
    for traced in once_each(rankings, "the trace"):
        ranking, query_id = traced.ranking, traced.ranking.request.query_id
        if traced.strategy == CASCADE:
            raise InputError("the trace is of a cascade, whose calls come of two rankers: calibrate one of them")
        if query_id not in gains or ranking.budget_reached or not ranking.steps:
            continue
        if not traced.conditions:
            raise InputError(
                f"the trace does not say under which conditions query {query_id!r} was ranked, as those of earlier "
                "versions: make it again (rerank --save-traces), from the cached answers"
            )
        conditions = conditions or traced.conditions
        if unlike := condition_differences(traced.conditions, conditions):
            raise InputError(
                f"the trace is of several kinds of rankings: of query {query_id!r} {'; '.join(unlike)} before: give "
                "the trace of one ranker"
            )
        by, signals = signals_of(ranking, asked_by(traced.strategy))
        kinds.add((traced.strategy, by))
        grades = [gains[query_id].get(candidate.id) for candidate in ranking.best_first]
        kept = [place for place, grade in enumerate(grades) if grade is not None or settings.unjudged == "irrelevant"]
        found[query_id] = _Judged(
            [signals[place] for place in kept],
            [place_score(place, len(grades)) for place in kept],
            [float((grades[place] or 0) >= settings.relevant_from) for place in kept],
        )
    if len(kinds) > 1:
        named = ", ".join(sorted(f"{strategy} by {by}" for strategy, by in kinds))
        raise InputError(f"the trace is of several kinds of rankings ({named}): give the trace of one ranker")
    if not kinds:
        raise InputError("no query of the trace is judged: give the judgments of its own corpus")
    [(strategy, by)] = kinds
    return strategy, by, conditions, found


def _isotonic(signals: _Values, relevant: _Values) -> tuple[list[float], list[float]]:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise missing_extra("Calibration", "calibrate", error) from error
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(signals, relevant)
    risers, chances = fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()
    # Rounding may turn a level stretch into a fall.
    return risers, np.maximum.accumulate(np.clip(chances, 0.0, 1.0)).tolist()


def _reliability(judged: Sequence[_Judged], said: _Values, share: float) -> Reliability:
    relevant, places = _joined(each.relevant for each in judged), _joined(each.places for each in judged)
    return Reliability(
        queries=len(judged),
        candidates=len(relevant),
        relevant=int(relevant.sum()),
        brier=brier_score(said, relevant),
        error=calibration_error(said, relevant),
        places_brier=brier_score(places, relevant),
        places_error=calibration_error(places, relevant),
        constant_brier=brier_score(np.full(len(relevant), share), relevant),
        bins=[
            ReliabilityBin(
                said=float(said[some].mean()), relevant=float(relevant[some].mean()), candidates=int(some.sum())
            )
            for some in _binned(said)
        ],
    )


def brier_score(said: _Values, relevant: _Values) -> float:
    """The mean squared difference of probabilities and what came true (Brier, 1950)."""
    return float(np.mean((said - relevant) ** 2))


def calibration_error(said: _Values, relevant: _Values) -> float:
    """The expected calibration error: how far probabilities are from shares, over ten bins of equal width.

    Each bin counts as its part of the candidates (Naeini, Cooper and Hauskrecht, AAAI 2015).
    """
    gaps = (abs(float(said[some].mean() - relevant[some].mean())) * float(some.mean()) for some in _binned(said))
    return sum(gaps)


def _binned(said: _Values) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    numbers = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], said)
    return [numbers == number for number in range(BINS) if (numbers == number).any()]


def _joined(parts: Iterable[Sequence[float]]) -> _Values:
    return np.array([value for part in parts for value in part], dtype=np.float64)
