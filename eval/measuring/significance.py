"""Tests of paired differences, corrections for many tests, and intervals of means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from r1ranker_ir.errors import InputError, missing_extra

Test = Literal["ttest", "randomisation"]
Correction = Literal["none", "holm", "bonferroni"]

LEVEL = 0.95
"""How much of the distribution an interval covers."""
RESAMPLES = 10_000
"""How many random samples randomisation tests and intervals take."""
LEAST_RESAMPLES = 100
"""With fewer, 95% can't be told from all."""
ROUNDING = 1e-12
"""Differences up to this are rounding errors, and count as none."""
# Random samples are drawn in batches of about so many values, so that memory stays flat.
_BATCH_VALUES = 2_000_000


class Interval(NamedTuple):
    """Where a mean lies."""

    low: float  # the lower end
    high: float  # the upper end


def paired_t_test(differences: Sequence[float]) -> float:
    """Tests with Student's t whether a mean difference is 0.

    Student, "The probable error of a mean", 1908.
    """
    values = _checked(differences)
    if len(values) == 1 or not values.any():
        return 1.0
    if np.ptp(values) <= ROUNDING:
        return 0.0
    return float(_scipy_stats().ttest_1samp(values, 0.0).pvalue)


def randomisation_test(differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Tests by swapping the two runs of random queries whether a mean difference is 0.

    Fisher, "The Design of Experiments", 1935; for information retrieval Smucker, Allan and Carterette, CIKM 2007.
    """
    check_resamples(resamples)
    values = _checked(differences)
    values = values[values != 0]  # to swap equal values changes nothing
    if len(values) < 2 or abs(values.mean()) <= ROUNDING:
        return 1.0
    tested = _scipy_stats().permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        alternative="two-sided",
        n_resamples=resamples,
        vectorized=True,
        batch=_batch(len(values)),
        rng=np.random.default_rng(seed),
    )
    return float(tested.pvalue)


def bootstrap_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Estimates where a mean lies by drawing queries with replacement.

    Efron, "Bootstrap methods: another look at the jackknife", 1979; the percentile interval.
    """
    check_resamples(resamples)
    checked = _checked(values)
    if len(checked) == 1:
        return None
    drawn = _scipy_stats().bootstrap(
        (checked,),
        np.mean,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        vectorized=True,
        batch=_batch(len(checked)),
        rng=np.random.default_rng(seed),
    )
    # The percentiles of equal means may differ in their last digit, either way.
    return Interval(*sorted(map(float, drawn.confidence_interval)))


def t_interval(values: Sequence[float]) -> Interval | None:
    """Estimates where a mean lies by Student's t: what `paired_t_test` would not reject.

    Student, "The probable error of a mean", 1908.
    """
    checked = _checked(values)
    count, mean = len(checked), float(checked.mean())
    if count == 1:
        return None
    if np.ptp(checked) <= ROUNDING:
        return Interval(mean, mean)
    reach = float(_scipy_stats().t.ppf((1 + LEVEL) / 2, count - 1)) * float(checked.std(ddof=1)) / math.sqrt(count)
    return Interval(mean - reach, mean + reach)


def randomisation_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Estimates where a mean difference lies by random subsets of the queries: what `randomisation_test` would not
    reject.

    To shift all differences by the mean of some of them makes the swap of just these queries as good as no swap. So the
    shifts that the test rejects are those beyond nearly all means of subsets.

    Hartigan, "Using subsample values as typical values", JASA 1969.
    """
    check_resamples(resamples)
    checked = _checked(values)
    count = len(checked)
    if count > 1 and not checked.any():
        return Interval(0.0, 0.0)
    if 2**count <= resamples:
        chosen = (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1
        means = chosen @ checked / chosen.sum(axis=1)
    else:
        means = _subset_means(checked, resamples, np.random.default_rng(seed))
    rejected = int((1 - LEVEL) / 2 * (len(means) + 1) + ROUNDING)
    if rejected < 1:
        return None
    means[np.abs(means) <= ROUNDING] = 0.0
    means.sort()
    return Interval(float(means[rejected - 1]), float(means[-rejected]))


def _subset_means(
    values: np.ndarray[Any, np.dtype[np.float64]], count: int, drawing: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The means of so many random subsets, none of them empty."""
    found: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    while (missing := count - sum(map(len, found))) > 0:
        chosen = drawing.random((min(missing, _batch(len(values))), len(values))) < 0.5
        sizes = chosen.sum(axis=1)
        found.append((chosen @ values)[sizes > 0] / sizes[sizes > 0])
    return np.concatenate(found)


def correct(p_values: Sequence[float], correction: Correction) -> tuple[float, ...]:
    """Corrects p-values for their number.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics, 1979.
    """
    if wrong := [value for value in p_values if not 0 <= value <= 1]:
        raise InputError(f"p-value {wrong[0]!r} is not between 0 and 1")
    count = len(p_values)
    if correction == "none":
        return tuple(p_values)
    if correction == "bonferroni":
        return tuple(min(1.0, count * value) for value in p_values)
    corrected, least = [1.0] * count, 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (count - rank) * p_values[place]))
        corrected[place] = least
    return tuple(corrected)


def check_resamples(resamples: int) -> None:
    """Refuses too few random samples."""
    if resamples < LEAST_RESAMPLES:
        raise InputError(
            f"resamples is {resamples}: at least {LEAST_RESAMPLES} are needed, and {RESAMPLES:,} are usual"
        )


def _checked(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    if not len(values):
        raise InputError("there are no values to test: give one for each query")
    if wrong := [value for value in values if not math.isfinite(value)]:
        raise InputError(f"value {wrong[0]!r} is not a finite number: it can't be tested")
    checked = np.array(values, dtype=np.float64)
    checked[np.abs(checked) <= ROUNDING] = 0.0
    return checked


def _batch(count: int) -> int:
    return max(1, _BATCH_VALUES // count)


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise missing_extra("Comparing runs", "eval", error) from error
    return stats
