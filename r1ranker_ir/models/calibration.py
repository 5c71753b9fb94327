"""From a ranker's places and probabilities to a probability of relevance: a monotone map, kept in `r1ranker.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.files.digests import text_digest
from r1ranker_ir.files.records import Record, checked_record
from r1ranker_ir.quoting import quoted
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import Asked, Condition, Ranking

By = Literal["places", "scores"]
"""What a map starts from: the place and the probability behind it, or the score that the strategy gives."""
_DIGITS = 16
_UNKNOWN = 0.5


class ReliabilityBin(Record):
    """Candidates whose probabilities are about the same: how probable they were said to be, and how many were."""

    said: float  # mean probability of relevance
    relevant: float  # share that is relevant
    candidates: int


class Reliability(Record):
    """How well probabilities hold on queries that they were not fitted on."""

    queries: int
    candidates: int
    relevant: int
    brier: float  # mean squared difference of probability and relevance
    error: float  # expected calibration error
    places_brier: float  # the same of 1 − (rank − 1) / n, taken for a probability
    places_error: float
    constant_brier: float  # the same of the share of relevant candidates, said of each
    bins: list[ReliabilityBin]


class FittedOn(Record):
    corpus: str
    queries: int
    candidates: int
    relevant: int
    relevant_from: int  # the least grade that counts as relevant
    unjudged: Literal["irrelevant", "skip"]
    seed: int  # of the split of queries


class Calibration(Record):
    """A monotone map, linear between its knots, to a probability of relevance."""

    by: By
    conditions: dict[str, Condition]  # under which the rankings were made, and it holds; see `rankers.conditions`
    signals: list[float]  # rising
    relevance: list[float]  # never falling
    fitted_on: FittedOn
    held_out: Reliability

    def digest(self) -> str:
        """The first 16 digits of the SHA-256 of all that it says."""
        return text_digest(json.dumps(self.model_dump(), sort_keys=True))[:_DIGITS]

    def relevance_of(self, ranking: Ranking, asks: Asked | None) -> tuple[float, ...] | None:
        """Beside each of `best_first` its probability of relevance, never rising; `None` where it can't be told."""
        if ranking.budget_reached or not ranking.steps:
            return None
        by, signals = signals_of(ranking, asks)
        return tuple(accumulate(self.map(signals), min)) if by == self.by else None

    def differences(self, conditions: Mapping[str, Condition], but: str = "") -> tuple[str, ...]:
        """Each condition that is not the one it was fitted under, in words, except for the one that does not count."""
        return condition_differences(conditions, self.conditions, but)

    def map(self, signals: Sequence[float]) -> list[float]:
        import numpy as np

        mapped: list[float] = np.interp(signals, self.signals, self.relevance).tolist()
        return mapped


def signals_of(ranking: Ranking, asks: Asked | None) -> tuple[By, tuple[float, ...]]:
    """What says most of each of `best_first`, the higher the better: its score where the strategy gives one.

    Else its rank from 1, negative, and behind the point how sure the last call was that could have answered it: the
    probability that it was the best, or that it was not the worst; a half where the backend gives no probabilities.
    """
    scores = [score for score in ranking.scores if score is not None]
    if scores and len(scores) == len(ranking.order):
        return "scores", tuple(scores)
    sure = dict[int, float]()
    for step in ranking.steps:
        if not step.decides:
            continue
        for position in step.shown:
            chance = None if step.probabilities is None else step.probabilities.get(position)
            if position not in step.marked:
                sure[position] = _UNKNOWN if chance is None else 1 - chance if asks == "worst" else chance
    placed = enumerate(ranking.order, start=1)
    return "places", tuple(sure.get(position, _UNKNOWN) - rank for rank, position in placed)


def condition_differences(
    here: Mapping[str, Condition], there: Mapping[str, Condition], but: str = ""
) -> tuple[str, ...]:
    """In what two sets of conditions differ: each with the value here, and the one of the calibration."""
    names = [name for name in {**here, **there} if name != but and here.get(name) != there.get(name)]
    return tuple(f"{name} is {_said(here, name)}, and was {_said(there, name)}" for name in names)


def _said(conditions: Mapping[str, Condition], name: str) -> str:
    return repr(conditions[name]) if name in conditions else "left at its default"


def calibration_data(calibration: Calibration) -> dict[str, Any]:
    """A map as it stands in `r1ranker.json`, with its digest."""
    return {**calibration.model_dump(), "digest": calibration.digest()}


def read_calibrations(content: object, where: str) -> dict[str, Calibration]:
    """The maps of a settings file by strategy; what was changed by hand no longer has its digest, and is refused."""
    again = "calibrate again (r1ranker calibrate), or remove it"
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{where}: calibration is {quoted(content)}: give an object by strategy, or leave it out")
    found = {}
    for strategy, given in content.items():
        named = f"{where}: calibration of {quoted(strategy)}"
        if strategy not in STRATEGIES or not isinstance(given, Mapping):
            raise CheckpointError(f"{named} is not an object of one of {', '.join(STRATEGIES)}: {again}")
        fields = {name: each for name, each in given.items() if name != "digest"}
        if "conditions" not in fields:
            raise CheckpointError(
                f"{named} does not say under which conditions it holds, as of earlier versions: {again}"
            )
        calibration = checked_record(Calibration, fields, named, error=CheckpointError)
        lengths = {len(calibration.signals), len(calibration.relevance)}
        if len(lengths) != 1 or not calibration.signals or not _rises(calibration.signals, calibration.relevance):
            raise CheckpointError(f"{named} is no monotone map: {again}")
        if given.get("digest") != calibration.digest():
            raise CheckpointError(
                f"{named} has the digest {quoted(given.get('digest'))}, but what it says makes "
                f"{calibration.digest()!r}: it was changed. {again[0].upper()}{again[1:]}"
            )
        found[strategy] = calibration
    return found


def _rises(signals: Sequence[float], relevance: Sequence[float]) -> bool:
    signals_rise = all(one < other for one, other in pairwise(signals))
    return signals_rise and list(relevance) == sorted(relevance) and 0 <= relevance[0] <= relevance[-1] <= 1
