"""Runs against a baseline, query by query: differences, tests, intervals, and which queries got better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r1ranker_ir.errors import InputError

from .measures import Evaluation
from .significance import (
    RESAMPLES,
    ROUNDING,
    Correction,
    MeanEstimate,
    Test,
    bootstrap_interval,
    check_resamples,
    correct,
    paired_t_test,
    randomisation_interval,
    randomisation_test,
    t_estimate,
)

if TYPE_CHECKING:
    from ir_measures import Measure

# The same for every run, or no matter of quality.
_NOT_COMPARED = {"NumQ": "the queries", "NumRel": "the relevant documents", "NumRet": "the retrieved documents"}


@dataclass(frozen=True)
class ComparisonSettings:
    """How runs are tested."""

    test: Test = "ttest"  # a paired two-sided test over the queries
    correction: Correction = "holm"  # for the number of tests: over all runs and measures of the comparison
    alpha: float = 0.05  # from which corrected p-value down a difference counts as significant
    resamples: int = RESAMPLES  # random samples of the randomisation test and of the intervals that are drawn
    seed: int = 0  # of these samples; the same ones are drawn for every run and measure

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}: give the probability of a false alarm, such as 0.05")
        check_resamples(self.resamples)


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison."""

    name: str
    means: Mapping[Measure, MeanEstimate]  # intervals by the bootstrap
    missing: tuple[str, ...]  # judged queries of which it holds no document; they count as 0
    unjudged: tuple[str, ...]  # its queries without judgments; they do not count
    calls: float | None  # model calls per query, if known


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
    def ties(self) -> int:
        """Queries without a difference."""
        return sum(value == 0 for value in self.per_query.values())

    @property
    def losses(self) -> int:
        """Queries that the run ranks worse."""
        return sum(value < 0 for value in self.per_query.values())


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
    calls: Mapping[str, float] | None = None,
    judged: int | None = None,
) -> Comparison:
    """Compares runs with a baseline.

    No difference counts as significant between runs that have results for different queries: what one of them lacks
    counts as 0, which says nothing of how it ranks.
    """
    settings = settings or ComparisonSettings()
    base = evaluations.get(baseline)
    if base is None or len(evaluations) < 2:
        raise InputError(f"there is nothing to compare with {baseline!r}: give a baseline and at least one other run")
    measures = tuple(base.mean)
    check_comparable(measures)
    for name, evaluation in evaluations.items():
        if evaluation.per_query.keys() != base.per_query.keys() or set(evaluation.mean) != set(measures):
            raise InputError(
                f"{name!r} and {baseline!r} were measured differently: use the same judgments and measures"
            )
    pairs = [(measure, name) for measure in measures for name in evaluations if name != baseline]
    per_query = [_per_query(evaluations[name], base, measure) for measure, name in pairs]
    p_values = [_p_value(list(values.values()), settings) for values in per_query]
    corrected = correct(p_values, settings.correction)
    runs = {}
    for name, each in evaluations.items():
        columns = {measure: [row[measure] for row in each.per_query.values()] for measure in measures}
        means = {measure: _estimate(values, settings) for measure, values in columns.items()}
        runs[name] = ComparedRun(name, means, each.missing, each.unjudged, (calls or {}).get(name))
    differences = []
    for (measure, name), values, raw, final in zip(pairs, per_query, p_values, corrected, strict=True):
        mean, before = _difference(list(values.values()), settings), runs[baseline].means[measure].mean
        relative = mean.mean / before if before else None
        same = set(runs[name].missing) == set(base.missing)
        significant = same and final <= settings.alpha
        differences.append(Difference(name, measure, values, mean, relative, raw, final, significant, same))
    queries = len(base.per_query)
    found = runs.pop(baseline), tuple(runs.values()), measures, tuple(differences)
    return Comparison(*found, queries, settings, queries if judged is None else judged)


def _per_query(run: Evaluation, baseline: Evaluation, measure: Measure) -> dict[str, float]:
    """A run minus the baseline, without rounding errors."""
    differences = {
        query_id: run.per_query[query_id][measure] - row[measure] for query_id, row in baseline.per_query.items()
    }
    return {query_id: value if abs(value) > ROUNDING else 0.0 for query_id, value in differences.items()}


def _p_value(differences: Sequence[float], settings: ComparisonSettings) -> float:
    if settings.test == "ttest":
        return paired_t_test(differences)
    return randomisation_test(differences, resamples=settings.resamples, seed=settings.seed)


def _difference(values: Sequence[float], settings: ComparisonSettings) -> MeanEstimate:
    """A mean difference with the interval of its test, so that the two never say different things."""
    if settings.test == "ttest":
        return t_estimate(values)
    interval = randomisation_interval(values, resamples=settings.resamples, seed=settings.seed)
    return MeanEstimate(math.fsum(values) / len(values), interval)


def _estimate(values: Sequence[float], settings: ComparisonSettings) -> MeanEstimate:
    interval = bootstrap_interval(values, resamples=settings.resamples, seed=settings.seed)
    return MeanEstimate(math.fsum(values) / len(values), interval)
