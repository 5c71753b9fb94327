"""Tests of paired differences, corrections for many tests, and intervals of means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from r1ranker_ir.errors import InputError, missing_extra

from .settings import RESAMPLES, Correction

LEVEL = 0.95
"""How much of the distribution an interval covers."""
ROUNDING = 1e-12
"""Differences up to this are rounding errors, and count as none."""
# Random samples are drawn in batches of about this many values, so that memory stays flat.
_BATCH_VALUES = 2_000_000

_Values = np.ndarray[Any, np.dtype[np.float64]]


class Interval(NamedTuple):
    """Where a mean lies."""

    low: float
    high: float


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its 95% interval; `None` where there is no interval, as for a single value."""

    mean: float
    interval: Interval | None

    def text(self, sign: str = "") -> str:
        """Four decimals of each; with the sign `+` for differences."""
        mean, *ends = (f"{round(value, 4) + 0.0:{sign}.4f}" for value in (self.mean, *(self.interval or ())))
        return f"{mean} ({' to '.join(ends)})" if ends else mean


def paired_t_test(differences: Sequence[float]) -> float:
    """The two-sided p-value of Student's t that a mean difference is 0 (Student, 1908).

    It is 1 for a single query or no difference at all, and 0 if all differences are the same, other than 0: they leave
    no variance to judge them by.
    """
    values = _checked(differences)
    if len(values) == 1 or not values.any():
        return 1.0
    if np.ptp(values) <= ROUNDING:
        return 0.0
    return float(_scipy_stats().ttest_1samp(values, 0.0).pvalue)


def t_interval(values: Sequence[float]) -> Interval | None:
    """The interval of Student's t, which leaves out 0 exactly where `paired_t_test` gives less than 0.05.

    A point if all values are the same; `None` for a single value.
    """
    checked = _checked(values)
    count, mean = len(checked), float(checked.mean())
    if count == 1:
        return None
    if np.ptp(checked) <= ROUNDING:
        return Interval(mean, mean)
    reach = float(_scipy_stats().t.ppf((1 + LEVEL) / 2, count - 1)) * float(checked.std(ddof=1)) / math.sqrt(count)
    return Interval(mean - reach, mean + reach)


def t_estimate(values: Sequence[float]) -> MeanEstimate:
    """A mean with the interval of Student's t."""
    return MeanEstimate(math.fsum(values) / len(values), t_interval(values))


def randomisation_test(differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The two-sided p-value of swapping the two runs of random queries (Fisher, 1935; Smucker et al., CIKM 2007).

    Where there are no more than `resamples` swaps, each is counted and the p-value is exact; a drawn one is at least
    2 / (resamples + 1). It is 1 if no more than one query differs, or the mean does not.
    """
    values = _checked(differences)
    values = values[values != 0]  # to swap equal values changes nothing
    if len(values) < 2 or abs(values.mean()) <= ROUNDING:
        return 1.0
    swapped = {"permutation_type": "samples", "alternative": "two-sided"}
    return float(_resampled("permutation_test", values, resamples, seed, **swapped).pvalue)


def randomisation_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """The interval of a mean difference that `randomisation_test` would not reject (Hartigan, JASA 1969).

    To shift all differences by the mean of some of them makes the swap of just these queries as good as no swap. So the
    shifts that the test rejects are those beyond nearly all means of subsets. Where all subsets are counted it leaves
    out 0 exactly where the test gives no more than 0.05. `None` with fewer than six values, unless all are 0.
    """
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


def _subset_means(values: _Values, count: int, drawing: np.random.Generator) -> _Values:
    """The means of `count` random subsets, none of them empty."""
    found: list[_Values] = []
    while (missing := count - sum(map(len, found))) > 0:
        chosen = drawing.random((min(missing, _batch(values)), len(values))) < 0.5
        sizes = chosen.sum(axis=1)
        found.append((chosen @ values)[sizes > 0] / sizes[sizes > 0])
    return np.concatenate(found)


def bootstrap_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """The percentile interval of means of queries drawn with replacement (Efron, 1979); `None` for a single value."""
    checked = _checked(values)
    if len(checked) == 1:
        return None
    drawn = _resampled("bootstrap", checked, resamples, seed, confidence_level=LEVEL, method="percentile")
    # The percentiles of equal means may differ in their last digit, either way.
    return Interval(*sorted(map(float, drawn.confidence_interval)))


def _resampled(function: str, values: _Values, resamples: int, seed: int, **options: Any) -> Any:
    compute, rng = getattr(_scipy_stats(), function), np.random.default_rng(seed)
    return compute((values,), np.mean, n_resamples=resamples, vectorized=True, batch=_batch(values), rng=rng, **options)


def _batch(values: _Values) -> int:
    return max(1, _BATCH_VALUES // len(values))


def correct(p_values: Sequence[float], correction: Correction) -> tuple[float, ...]:
    """Corrects the p-values of one family of tests (Holm, 1979), to be compared with the same alpha."""
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


def _checked(values: Sequence[float]) -> _Values:
    checked = np.array(values, dtype=np.float64)
    if not len(checked) or not np.isfinite(checked).all():
        raise InputError(f"{list(values)[:5]} can't be tested: give a finite number for each query")
    checked[np.abs(checked) <= ROUNDING] = 0.0
    return checked


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise missing_extra("Comparing runs", "eval", error) from error
    return stats
