"""How far two orders of the same things agree."""

from __future__ import annotations

from collections.abc import Sequence

PERSISTENCE = 0.9
"""How probable it is that a reader goes on from one place to the next, for `rank_biased_overlap`."""


def kendall_tau(order: Sequence[int]) -> float:
    """Compares an order with that of the numbers in it.

    Kendall, "A new measure of rank correlation", Biometrika 1938.
    """
    rising = sum(one < other for place, one in enumerate(order) for other in order[place + 1 :])
    return 4 * rising / (len(order) * (len(order) - 1)) - 1


def rank_biased_overlap(order: Sequence[int], persistence: float = PERSISTENCE) -> float:
    """Compares an order with that of the numbers in it, the top counting most.

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
