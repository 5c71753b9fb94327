"""Runs against a baseline, query by query: differences, tests, intervals, and which queries got better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r1ranker_ir.errors import InputError

from .measures import Evaluation
from .settings import ComparisonSettings
from .significance import (
    ROUNDING,
    Interval,
    MeanEstimate,
    bootstrap_interval,
    correct,
    paired_t_test,
    randomisation_interval,
    randomisation_test,
    t_interval,
)

if TYPE_CHECKING:
    from ir_measures import Measure

# The same for every run, or no matter of quality.
_NOT_COMPARED = {"NumQ": "the queries", "NumRel": "the relevant documents", "NumRet": "the retrieved documents"}


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison."""

    name: str
    means: Mapping[Measure, MeanEstimate]  # intervals by the bootstrap
    missing: tuple[str, ...]  # judged queries of which it holds no document; they count as 0
    unjudged: tuple[str, ...]  # its queries without judgments; they do not count


@dataclass(frozen=True)
class Difference:
    """A run minus the baseline, by one measure."""

    run: str
    measure: Measure
    per_query: Mapping[str, float]  # 0 where the values are the same but for rounding errors (1e-12)
    mean: MeanEstimate  # of these, with the test's own interval
    relative: float | None  # the mean difference as a part of the baseline's mean; None where that is 0
    p_value: float
    corrected: float  # corrected for all tests of the comparison
    significant: bool  # corrected p-value <= alpha, and run and baseline have results for the same queries
    same_queries: bool = True

    @property
    def wins(self) -> int:
        """Queries that the run ranks better."""
        return sum(value > 0 for value in self.per_query.values())

    @property
    def losses(self) -> int:
        """Queries that the run ranks worse."""
        return sum(value < 0 for value in self.per_query.values())

    @property
    def ties(self) -> int:
        """Queries without a difference."""
        return len(self.per_query) - self.wins - self.losses


@dataclass(frozen=True)
class Comparison:
    """Runs against a baseline."""

    baseline: ComparedRun
    runs: tuple[ComparedRun, ...]  # the others
    measures: tuple[Measure, ...]
    differences: tuple[Difference, ...]  # of each run by each measure, measure by measure
    queries: int  # how many count
    settings: ComparisonSettings
    judged: int  # how many are judged; only `queries` of them count

    @property
    def all_runs(self) -> tuple[ComparedRun, ...]:
        """The baseline and the others."""
        return (self.baseline, *self.runs)

    def run(self, name: str) -> ComparedRun:
        """A run by its name."""
        return next(run for run in self.all_runs if run.name == name)

    def differences_of(self, name: str) -> dict[Measure, Difference]:
        """A run's differences by measure; none of the baseline."""
        return {each.measure: each for each in self.differences if each.run == name}


def check_comparable(measures: Sequence[Measure]) -> None:
    """Refuses measures by which no run is better than another."""
    for measure in measures:
        counted = _NOT_COMPARED.get(str(measure.NAME))
        # NumRet with a grade counts what was found of the relevant documents: the more the better.
        if counted is not None and not (measure.NAME == "NumRet" and "rel" in measure.params):
            raise InputError(
                f"measure {str(measure)!r} counts {counted}, which makes no run better than another: leave it out"
            )


def compare_runs(
    evaluations: Mapping[str, Evaluation],
    baseline: str,
    settings: ComparisonSettings | None = None,
    *,
    judged: int | None = None,
) -> Comparison:
    """Compares runs, measured alike, with a baseline; `judged` is how many queries are, where not all of them count.

    No difference counts as significant between runs that have results for different queries: what one of them lacks
    counts as 0, which says nothing of how it ranks.
    """
    settings, base = settings or ComparisonSettings(), evaluations[baseline]
    measures = tuple(base.mean)
    check_comparable(measures)
    runs = {}
    for name, each in evaluations.items():
        columns = {measure: [row[measure] for row in each.per_query.values()] for measure in measures}
        means = {measure: estimate(values, settings) for measure, values in columns.items()}
        runs[name] = ComparedRun(name, means, each.missing, each.unjudged)
    pairs = [(measure, name) for measure in measures for name in evaluations if name != baseline]
    per_query = [_per_query(evaluations[name], base, measure) for measure, name in pairs]
    tests = [tested(list(values.values()), settings) for values in per_query]
    corrected = correct([p_value for p_value, _ in tests], settings.correction)
    differences = []
    for (measure, name), values, (p_value, interval), final in zip(pairs, per_query, tests, corrected, strict=True):
        mean, before = math.fsum(values.values()) / len(values), runs[baseline].means[measure].mean
        same = set(runs[name].missing) == set(base.missing)
        found = (MeanEstimate(mean, interval), mean / before if before else None, p_value, final)
        differences.append(Difference(name, measure, values, *found, same and final <= settings.alpha, same))
    queries = len(base.per_query)
    compared = runs.pop(baseline), tuple(runs.values()), measures, tuple(differences)
    return Comparison(*compared, queries, settings, queries if judged is None else judged)


def _per_query(run: Evaluation, baseline: Evaluation, measure: Measure) -> dict[str, float]:
    """A run minus the baseline, without rounding errors."""
    differences = {
        query_id: run.per_query[query_id][measure] - row[measure] for query_id, row in baseline.per_query.items()
    }
    return {query_id: value if abs(value) > ROUNDING else 0.0 for query_id, value in differences.items()}


def tested(differences: Sequence[float], settings: ComparisonSettings) -> tuple[float, Interval | None]:
    """A p-value, and the interval that belongs to the test, so that the two never say different things."""
    if settings.test == "ttest":
        return paired_t_test(differences), t_interval(differences)
    drawn = {"resamples": settings.resamples, "seed": settings.seed}
    return randomisation_test(differences, **drawn), randomisation_interval(differences, **drawn)


def estimate(values: Sequence[float], settings: ComparisonSettings) -> MeanEstimate:
    """A mean, with its interval by the bootstrap."""
    interval = bootstrap_interval(values, resamples=settings.resamples, seed=settings.seed)
    return MeanEstimate(math.fsum(values) / len(values), interval)
