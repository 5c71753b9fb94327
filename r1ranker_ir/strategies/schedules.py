"""How many candidates an elimination excludes at a step."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.errors import InputError

SCHEDULES = ("one", "fixed:K", "halving", "halving:M", "confident:P", "all")
"""How schedules are written."""

_PATTERN = re.compile(r"(one|all|halving)|(fixed|halving):0*([1-9]\d*)|(confident):(0?\.0*[1-9]\d*)")
# Sums over the logarithm of time at this distance are exact to about 1e-9: both ends fall off doubly exponentially.
_STEP = 0.25
_EARLIEST = -24.0
_LEAST_CHANCE = 1e-100


@dataclass(frozen=True)
class Schedule:
    """How many candidates leave at a step; see `parse_schedule` for kinds and their numbers."""

    kind: Literal["one", "fixed", "halving", "confident", "all"] = "one"
    number: float = 1

    def __str__(self) -> str:
        plain = self.kind in ("one", "all") or (self.kind == "halving" and self.number == 1)
        return self.kind if plain else f"{self.kind}:{self.number:g}"

    @property
    def by_probabilities(self) -> bool:
        """Whether a step may need to know more than the one that is answered."""
        return self.kind != "one" and not (self.kind == "fixed" and self.number == 1)

    def leaving(self, remaining: int, chances: Sequence[float] | None) -> int:
        """Says how many leave now, 1 to `remaining` - 1.

        `chances` are probabilities of being the worst, in the order in which candidates would leave.
        """
        most = remaining - 1
        if self.kind == "all":
            return most
        if self.kind == "fixed":
            return min(int(self.number), most)
        if self.kind == "halving":
            return max(1, min(remaining // 2, remaining - int(self.number)))
        if self.kind == "confident" and chances is not None:
            joint = joint_chances(chances)[:most]
            return max((count for count, chance in enumerate(joint, start=1) if chance >= self.number), default=1)
        return 1


PUBLISHED_SCHEDULE = Schedule()


def parse_schedule(text: str) -> Schedule:
    """Reads a schedule, as written in `SCHEDULES`.

    `one` leaves at a step (the paper's); `fixed:K` leave; `halving`: the worse half, rounded down; `halving:M`: the
    same until M remain, then one by one; `confident:P`: the largest set that holds the worst ones with a probability of
    at least P, and one where there is none; `all` but the best, so that one call orders the list.
    """
    found = _PATTERN.fullmatch(str(text).strip().lower())
    if found is None:
        raise InputError(
            f"schedule is {text!r}: use one of {', '.join(SCHEDULES)}, where K and M are whole numbers of at least 1 "
            "and P is a probability between 0 and 1, as in halving:5 and confident:0.9"
        )
    kind, number = [*filter(None, found.groups()), "1"][:2]
    return Schedule(kind, float(number))


def joint_chances(chances: Sequence[float]) -> list[float]:
    """How probable it is that the first k are the k worst, in any order among them, for each k.

    Luce's choice axiom (1959; Plackett 1975): the worst of what is left is chosen in proportion to the probabilities p
    at the first choice. Clocks that ring after exponential times with rates p ring in such an order (Yellott 1977), so
    that the set S is through before all others, whose rates sum to R, with probability
    ∫ R·exp(-R·t) · Π_{i in S} (1 - exp(-p_i·t)) dt.
    """
    import numpy as np

    rates = np.maximum(np.asarray(chances, dtype=float), _LEAST_CHANCE)
    rates /= rates.sum()
    # Summed from the end, so that small rests are not lost in a difference from 1.
    rests = np.append(np.cumsum(rates[::-1])[::-1][1:], 0.0)
    latest = math.log(50 / rates.min())
    times = np.exp(np.arange(_EARLIEST, latest, _STEP))
    through = np.cumprod(-np.expm1(-np.outer(rates, times)), axis=0)
    joint = (rests[:, None] * times * np.exp(-np.outer(rests, times)) * through).sum(axis=1) * _STEP
    joint[-1] = 1.0
    return [float(chance) for chance in np.clip(joint, 0.0, 1.0)]
