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
    Interval,
    Test,
    bootstrap_interval,
    check_resamples,
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
class ComparisonSettings:
    """How runs are tested.

    Args:
        test: a paired two-sided test over the queries.
        correction: for the number of tests: over all runs and measures of the comparison.
        alpha: from which corrected p-value down a difference counts as significant.
        resamples: random samples of the randomisation test and of the intervals that are drawn.
        seed: of these samples; the same ones are drawn for every run and measure.

    Raises:
        InputError: if alpha is not between 0 and 1, or there are fewer resamples than 100.
    """

    test: Test = "ttest"
    correction: Correction = "holm"
    alpha: float = 0.05
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}: give the probability of a false alarm, such as 0.05")
        check_resamples(self.resamples)


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over the queries.

    Args:
        mean: of the queries' values; also for measures that are usually summed.
        interval: its 95% interval: of a run's mean by the bootstrap, of a difference the one that belongs to the test;
            `None` where there is none, as for a single query.
    """

    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Args:
        name: what it is called.
        means: by measure.
        missing: judged queries of which it holds no document; they count as 0.
        unjudged: its queries without judgments; they do not count.
        calls: model calls per query, if known.
    """

    name: str
    means: Mapping[Measure, MeanEstimate]
    missing: tuple[str, ...]
    unjudged: tuple[str, ...]
    calls: float | None


@dataclass(frozen=True)
class Difference:
    """A run minus the baseline, by one measure.

    Args:
        run: the run's name.
        measure: what is compared.
        per_query: query id to difference; 0 where both values are the same but for rounding errors (1e-12).
        mean: of these.
        relative: the mean difference as a part of the baseline's mean; `None` where that is 0.
        p_value: as the test gives it.
        corrected: corrected for all tests of the comparison.
        significant: the corrected p-value is no greater than alpha, and run and baseline have results for the same
            queries.
        same_queries: they have.
    """

    run: str
    measure: Measure
    per_query: Mapping[str, float]
    mean: MeanEstimate
    relative: float | None
    p_value: float
    corrected: float
    significant: bool
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
    """Runs against a baseline.

    Args:
        baseline: the baseline.
        runs: the others, in the order in which they were given.
        measures: what they are compared by.
        differences: of each run by each measure, measure by measure.
        queries: how many count.
        settings: how they were tested.
        judged: how many are judged, of which the others were left out; the same as `queries` where none was.
    """

    baseline: ComparedRun
    runs: tuple[ComparedRun, ...]
    measures: tuple[Measure, ...]
    differences: tuple[Difference, ...]
    queries: int
    settings: ComparisonSettings
    judged: int


def check_comparable(measures: Sequence[Measure]) -> None:
    """Refuses measures by which no run is better than another.

    Args:
        measures: to compare by.

    Raises:
        InputError: if one counts queries, relevant documents or retrieved documents.
    """
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

    Args:
        evaluations: name of a run to what `evaluate` says of it; all with the same judgments and measures.
        baseline: whose name is the baseline's.
        settings: how to test.
        calls: name of a run to its model calls per query, where known.
        judged: how many queries are judged, where only some of them were measured (see `measures.common_queries`).

    Returns:
        Means, differences and tests.

    Raises:
        InputError: if there is nothing to compare, the runs were measured by other measures or over other queries, or
            a measure can't be compared.
        MissingExtraError: if scipy is not installed.
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
    runs = {
        name: ComparedRun(
            name,
            {
                measure: _estimate([row[measure] for row in evaluation.per_query.values()], settings)
                for measure in measures
            },
            evaluation.missing,
            evaluation.unjudged,
            (calls or {}).get(name),
        )
        for name, evaluation in evaluations.items()
    }
    differences = []
    for (measure, name), values, raw, final in zip(pairs, per_query, p_values, corrected, strict=True):
        mean, before = _difference(list(values.values()), settings), runs[baseline].means[measure].mean
        relative = mean.mean / before if before else None
        same = set(runs[name].missing) == set(base.missing)
        significant = same and final <= settings.alpha
        differences.append(Difference(name, measure, values, mean, relative, raw, final, significant, same))
    queries = len(base.per_query)
    return Comparison(
        *(runs.pop(baseline), tuple(runs.values()), measures, tuple(differences), queries, settings),
        judged=queries if judged is None else judged,
    )


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
    mean = math.fsum(values) / len(values)
    if settings.test == "ttest":
        return MeanEstimate(mean, t_interval(values))
    return MeanEstimate(mean, randomisation_interval(values, resamples=settings.resamples, seed=settings.seed))


def _estimate(values: Sequence[float], settings: ComparisonSettings) -> MeanEstimate:
    interval = bootstrap_interval(values, resamples=settings.resamples, seed=settings.seed)
    return MeanEstimate(math.fsum(values) / len(values), interval)
