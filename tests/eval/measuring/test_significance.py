"""Tests of significance: published figures, scipy called directly, every sign by brute force, and what always holds."""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError, MissingExtraError
from r1ranker_ir.eval.measuring.significance import (
    Correction,
    Interval,
    bootstrap_interval,
    correct,
    paired_t_test,
    randomisation_interval,
    randomisation_test,
    t_interval,
)

# Hours of sleep that the second drug of Cushny and Peebles gained over the first; Student 1908, R's data set `sleep`.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
# Eighths of an inch by which Darwin's crossed plants outgrew the self-fertilised; Fisher, The Design of Experiments.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

differences = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=9)
several = differences.filter(lambda values: len(values) > 1)
p_lists = st.lists(st.floats(0, 1), max_size=12)


def sums_of_all_signs(values: list[float]) -> list[float]:
    signs = itertools.product((-1, 1), repeat=len(values))
    return [math.fsum(sign * value for sign, value in zip(each, values, strict=True)) for each in signs]


@pytest.fixture(autouse=True)
def warnings_are_errors() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        (SLEEP, pytest.approx(0.002833, abs=5e-7)),  # R's documentation of t.test: t = -4.0621, df = 9
        (DARWIN, pytest.approx(0.0497, abs=5e-5)),  # Fisher: t = 2.148 with 14 degrees of freedom
        # Mean 2, s = 2, t = sqrt 3; with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2).
        ([0.0, 2.0, 4.0], pytest.approx(1 - math.sqrt(3) / math.sqrt(5))),
        ([0.0, 0.0, 0.0], 1.0),
        ([0.3], 1.0),
        ([0.3, 0.3, 0.3], 0.0),
        ([0.1 + 0.2, 0.3, 0.3], 0.0),  # equal but for rounding errors
        ([1e-16, -1e-16, 3e-17], 1.0),
        ([0.5, -0.5], pytest.approx(1.0)),
    ],
)
def test_t_test_gives_known_figures(differences: list[float], p_value: object) -> None:
    assert paired_t_test(differences) == p_value


@given(differences.filter(lambda values: len(set(values)) > 1))
def test_t_test_agrees_with_scipy_on_pairs(values: list[float]) -> None:
    run = [0.5 + value for value in values]
    assert paired_t_test(values) == pytest.approx(scipy.stats.ttest_rel(run, [0.5] * len(run)).pvalue, abs=1e-9)


@pytest.mark.parametrize(
    ("differences", "resamples", "p_value"),
    [
        # Of 2^15 = 32,768 signs, 863 give a sum of 314 or more, and as many -314 or less: 5.267%.
        (DARWIN, 32_768, 2 * 863 / 32_768),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 10_000, 2 / 32),  # only all plus and all minus reach the sum
        ([-1, 2, 3, 5, -4], 10_000, 20 / 32),
        ([0.0] * 5, 10_000, 1.0),
        ([0.3], 10_000, 1.0),
        ([0.1, 0.2, -0.3], 10_000, 1.0),
        ([0.3] * 100, 199, 2 / 200),
        ([*SLEEP, *[0.0] * 300], 10_000, 2 / 2**9),  # queries without a difference change nothing
    ],
)
def test_randomisation_test_gives_known_figures(differences: list[float], resamples: int, p_value: float) -> None:
    assert randomisation_test(differences, resamples=resamples) == pytest.approx(p_value)


@given(differences)
def test_few_queries_are_counted_one_by_one(values: list[float]) -> None:
    seen = abs(math.fsum(values))
    extreme = [abs(total) >= seen - 1e-9 for total in sums_of_all_signs(values)]
    assert randomisation_test(values, resamples=1000) == pytest.approx(sum(extreme) / len(extreme))


def test_many_queries_are_sampled_with_a_seed() -> None:
    drawn = [randomisation_test(DARWIN, resamples=5000, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn == pytest.approx([2 * 863 / 32_768] * 3, abs=0.02)


@given(differences)
def test_tests_see_no_direction_and_give_probabilities(values: list[float]) -> None:
    for test in (paired_t_test, randomisation_test):
        assert 0 <= test(values) <= 1
        assert test(values) == pytest.approx(test([-value for value in values]))


# --- corrections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "correction", "corrected"),
    [
        # R's p.adjust.
        ([0.01, 0.02, 0.03, 0.04, 0.05], "holm", (0.05, 0.08, 0.09, 0.09, 0.09)),
        ([0.01, 0.02, 0.03, 0.04, 0.05], "bonferroni", (0.05, 0.10, 0.15, 0.20, 0.25)),
        ([0.01, 0.02], "none", (0.01, 0.02)),
        # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.06 again since 0.04 would fall.
        ([0.01, 0.04, 0.03, 0.005], "holm", (0.03, 0.06, 0.06, 0.02)),
        ([0.9, 0.5], "holm", (1.0, 1.0)),
        ([], "holm", ()),
    ],
)
def test_corrections_give_known_figures(
    p_values: list[float], correction: Correction, corrected: tuple[float, ...]
) -> None:
    assert correct(p_values, correction) == pytest.approx(corrected)


@given(p_lists)
def test_corrected_values_lie_where_they_must(p_values: list[float]) -> None:
    holm, bonferroni = correct(p_values, "holm"), correct(p_values, "bonferroni")
    assert all(raw <= less <= more <= 1 for raw, less, more in zip(p_values, holm, bonferroni, strict=True))
    for one, other in itertools.permutations(range(len(p_values)), 2):
        assert p_values[one] > p_values[other] or holm[one] <= holm[other]
    assert min(holm, default=1) == min(bonferroni, default=1)


@given(p_lists.filter(bool), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    # Holm's own words: go on while the least of those left, times their number, is no more than alpha.
    kept = (len(p_values) - place for place in range(len(p_values)))
    steps = itertools.takewhile(lambda pair: pair[0] * pair[1] <= alpha, zip(kept, sorted(p_values), strict=True))
    assert sum(value <= alpha for value in correct(p_values, "holm")) == len(list(steps))


# --- intervals ------------------------------------------------------------------------------------------------------


def test_intervals_are_percentiles_of_drawn_means() -> None:
    found = bootstrap_interval(SLEEP, resamples=20_000)
    drawn = np.random.default_rng(7).choice(SLEEP, (20_000, len(SLEEP))).mean(axis=1)
    assert found == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
    assert bootstrap_interval(SLEEP, resamples=20_000) == found
    assert bootstrap_interval(SLEEP, resamples=100) != bootstrap_interval(SLEEP, resamples=100, seed=1)


def test_intervals_of_degenerate_values() -> None:
    for interval in (bootstrap_interval, t_interval):
        assert interval([0.25] * 5) == Interval(0.25, 0.25)
        assert interval([0.25]) is None
    rounded = bootstrap_interval([-0.489] * 3, resamples=100)
    assert rounded is not None and rounded.low <= rounded.high


@given(several)
def test_intervals_lie_within_the_values(values: list[float]) -> None:
    interval = bootstrap_interval(values, resamples=100)
    assert interval is not None
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_t_intervals_are_students() -> None:
    # R: t.test(sleep$extra[11:20], sleep$extra[1:10], paired = TRUE)$conf.int
    assert t_interval(SLEEP) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


@given(several)
def test_a_t_interval_leaves_out_0_where_its_test_says_so_and_nowhere_else(values: list[float]) -> None:
    interval, p_value = t_interval(values), paired_t_test(values)
    assert interval is not None
    assert abs(p_value - 0.05) <= 1e-9 or (interval.low > 0 or interval.high < 0) is (p_value < 0.05)


@given(several)
def test_a_randomisation_interval_leaves_out_0_where_its_test_says_so_and_nowhere_else(values: list[float]) -> None:
    interval, p_value = randomisation_interval(values), randomisation_test(values)
    if interval is None:
        assert len(values) < 6 and p_value > 0.05
        return
    assert (interval.low > 0 or interval.high < 0) is (p_value <= 0.05)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_a_randomisation_interval_holds_the_shifts_that_brute_force_does_not_reject() -> None:
    interval = randomisation_interval(SLEEP)
    assert interval is not None
    for shift in np.linspace(-0.5, 4.0, 46):
        if min(abs(shift - interval.low), abs(shift - interval.high)) > 1e-6:
            # On each side 2.5%, as the test doubles the smaller side.
            shifted = [value - shift for value in SLEEP]
            seen, sums = math.fsum(shifted), sums_of_all_signs(shifted)
            smaller = min(sum(each >= seen - 1e-9 for each in sums), sum(each <= seen + 1e-9 for each in sums))
            assert (interval.low < shift < interval.high) == (2 * smaller / len(sums) > 0.05)


def test_drawn_randomisation_intervals_are_near_to_students() -> None:
    values = np.random.default_rng(5).normal(0.1, 1.0, 400).tolist()
    drawn = randomisation_interval(values)
    assert drawn == randomisation_interval(values) == pytest.approx(t_interval(values), abs=0.02)


# --- what can't be tested -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [paired_t_test, randomisation_test, bootstrap_interval, t_interval, randomisation_interval]
)
@pytest.mark.parametrize("values", [[], [0.1, math.nan], [0.1, math.inf]])
def test_no_values_and_values_that_are_no_numbers_are_refused(
    function: Callable[[list[float]], object], values: list[float]
) -> None:
    with pytest.raises(InputError, match="give a finite number for each query"):
        function(values)


def test_a_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"r1ranker-ir\[eval\]\""):
        paired_t_test(SLEEP)
