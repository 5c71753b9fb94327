"""What a random order reaches: formulas against every order there is, measured by ir_measures."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.eval.measuring.chance import (
    expected_measure,
    expected_ndcg,
    expected_reciprocal_rank,
    expected_success,
)
from r1ranker_ir.eval.measuring.measures import parse_measures

MEASURES = parse_measures("RR RR@1 RR@2 RR(rel=2) RR(rel=2)@3 Success@1 Success@3 Success(rel=2)@2 nDCG nDCG@2 nDCG@10")


@settings(max_examples=15)
@given(grades=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_expectations_are_means_over_all_orders(grades: list[int]) -> None:
    import ir_measures

    orders = list(permutations(range(len(grades))))
    qrels = [ir_measures.Qrel(str(q), str(d), grades[d]) for q in range(len(orders)) for d in range(len(grades))]
    run = {
        str(q): {str(document): float(-rank) for rank, document in enumerate(order)} for q, order in enumerate(orders)
    }
    means = ir_measures.calc_aggregate(MEASURES, qrels, run)
    for measure in MEASURES:
        assert expected_measure(measure, grades) == pytest.approx(means[measure], abs=1e-9), str(measure)


@given(count=st.integers(1, 300))
def test_one_relevant_candidate_has_a_harmonic_reciprocal_rank(count: int) -> None:
    harmonic = sum(1 / rank for rank in range(1, count + 1))
    assert expected_reciprocal_rank(count, 1) == pytest.approx(harmonic / count, rel=1e-12)
    assert expected_success(count, 1, 3) == pytest.approx(min(3, count) / count, rel=1e-12)


def test_published_levels_of_chance() -> None:
    # As the papers' tables of 5, 10 and 20 candidates have it.
    assert [round(expected_reciprocal_rank(count, 1), 4) for count in (5, 10, 20)] == [0.4567, 0.2929, 0.1799]


@given(count=st.integers(1, 40), data=st.data())
def test_more_relevant_candidates_are_found_sooner(count: int, data: st.DataObject) -> None:
    relevant = data.draw(st.integers(0, count))
    cutoff = data.draw(st.integers(1, 50))
    found = expected_reciprocal_rank(count, relevant, cutoff)
    close = 1e-12  # sums of floating point
    assert 0 <= found <= expected_reciprocal_rank(count, relevant) + close <= 1 + 2 * close
    assert found <= expected_success(count, relevant, cutoff) + close <= 1 + 2 * close
    if relevant:
        assert found + close >= expected_reciprocal_rank(count, relevant - 1, cutoff)
    else:
        assert found == 0
    if relevant == count:
        assert found == expected_success(count, relevant, cutoff) == 1
        assert expected_ndcg([1] * count, cutoff) == pytest.approx(1)


def test_other_measures_have_no_expectation() -> None:
    for measure in parse_measures("AP P@3 Success(judged_only=True)@3 nDCG(dcg='exp-log2')@3 RR(judged_only=True)"):
        assert expected_measure(measure, [1, 0]) is None, str(measure)
