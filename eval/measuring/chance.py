"""What a random order reaches, exactly: expectations over all orders of a request's candidates, each equally likely.

With n candidates of which r are relevant, the first relevant one stands at rank k with the probability
C(n − k, r − 1) / C(n, r): the other relevant ones fill r − 1 of the n − k ranks behind it. For one relevant candidate
the expected reciprocal rank is H(n) / n, with H the harmonic numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, fsum, log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ir_measures import Measure


def expected_reciprocal_rank(count: int, relevant: int, cutoff: int | None = None) -> float:
    """Σ 1/k · C(n − k, r − 1) / C(n, r) over the ranks k up to the cutoff; 0 where nothing is relevant."""
    if not relevant:
        return 0.0
    last = count - relevant + 1 if cutoff is None else min(cutoff, count - relevant + 1)
    orders = comb(count, relevant)
    return fsum(comb(count - rank, relevant - 1) / (rank * orders) for rank in range(1, last + 1))


def expected_success(count: int, relevant: int, cutoff: int) -> float:
    """How likely a relevant candidate is among the first `cutoff`: 1 − C(n − r, k) / C(n, k)."""
    shown = min(cutoff, count)
    # In whole numbers up to the end: 1 − 4/5 would fall short of 1/5.
    return (comb(count, shown) - comb(count - relevant, shown)) / comb(count, shown)


def expected_ndcg(grades: Sequence[int], cutoff: int | None = None) -> float:
    """The mean grade at every rank over the best order's, with discounts 1 / log2(rank + 1) (trec_eval's)."""
    gains = sorted((max(grade, 0) for grade in grades), reverse=True)
    shown = len(gains) if cutoff is None else min(cutoff, len(gains))
    discounts = [1 / log2(rank + 1) for rank in range(1, shown + 1)]
    ideal = sum(gain * discount for gain, discount in zip(gains, discounts, strict=False))
    return sum(gains) / len(gains) * sum(discounts) / ideal if ideal else 0.0


def expected_measure(measure: Measure, grades: Sequence[int]) -> float | None:
    """What a random order of candidates with these grades reaches on average; `None` without a formula here.

    There are formulas for RR, Success and nDCG with a cutoff and the least relevant grade (`rel`) for parameters.
    """
    parameters = {str(name): value for name, value in measure.params.items()}
    cutoff, least = parameters.pop("cutoff", None), parameters.pop("rel", 1)
    relevant = sum(grade >= least for grade in grades)
    if parameters:
        return None
    if measure.NAME == "RR":
        return expected_reciprocal_rank(len(grades), relevant, cutoff)
    if measure.NAME == "Success" and cutoff is not None:
        return expected_success(len(grades), relevant, cutoff)
    if measure.NAME == "nDCG":
        return expected_ndcg(grades, cutoff)
    return None
