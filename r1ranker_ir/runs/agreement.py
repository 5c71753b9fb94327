"""How far two orders of the same things agree."""

from __future__ import annotations

from collections.abc import Sequence

PERSISTENCE = 0.9
"""How probable it is that a reader goes on from one place to the next, for `rank_biased_overlap`."""


def kendall_tau(order: Sequence[int]) -> float:
    """Compares an order with that of the numbers in it.

    Args:
        order: different numbers, at least two.

    Returns:
        Kendall's tau: 1 if they rise throughout, -1 if they fall throughout.

    Source:
        Kendall, "A new measure of rank correlation", Biometrika 1938.
    """
    rising = sum(one < other for place, one in enumerate(order) for other in order[place + 1 :])
    return 4 * rising / (len(order) * (len(order) - 1)) - 1


def rank_biased_overlap(order: Sequence[int], persistence: float = PERSISTENCE) -> float:
    """Compares an order with that of the numbers in it, the top counting most.

    Args:
        order: different numbers, at least one.
        persistence: the weight of a place compared with that of the one before.

    Returns:
        Rank-biased overlap, extrapolated beyond the end, where both hold the same: from 0 to 1, if they are the same.

    Source:
        Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", TOIS 2010, equation 32.
    """
    other, agreed = sorted(order), 0.0
    seen: set[int] = set()
    common = 0
    for depth, (one, two) in enumerate(zip(order, other, strict=True), start=1):
        common += (one in seen) + (two in seen) + (one == two)
        seen |= {one, two}
        agreed += persistence**depth * common / depth
    return (1 - persistence) / persistence * agreed + persistence ** len(order)
