"""What is wanted of routing: how much an answer's worth and its cost count."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r1ranker_ir.adapters.domains import ROUTING_WEIGHTS, aim_of
from r1ranker_ir.errors import InputError


@dataclass(frozen=True)
class Objective:
    """The weights of a utility, effect × effect's weight − cost × cost's weight, and its words for the prompt."""

    effect: float
    cost: float
    aim: str

    def __post_init__(self) -> None:
        for name, weight in (("effect", self.effect), ("cost", self.cost)):
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"objective: the weight of {name} is {weight!r}: give a number of at least 0")
        if self.effect == self.cost == 0:
            raise InputError("objective: both weights are 0, so that all language models are alike: raise one of them")

    def __str__(self) -> str:
        return f"{self.effect:g} × effect − {self.cost:g} × cost"


def objective_of(objective: str | tuple[float, float] | Objective) -> Objective:
    """Finds the weights and the words of an objective: its name, or the weights as a pair or with a comma between them.

    Weights that stand in the same proportion as those of a named one have its words.
    """
    if isinstance(objective, Objective):
        return objective
    weights = _weights(objective)
    for name, (effect, cost) in ROUTING_WEIGHTS.items():
        if math.isclose(weights[0] * cost, weights[1] * effect, rel_tol=1e-9) and weights != (0, 0):
            return Objective(*weights, aim_of(name))
    effect, cost = weights
    words = f"a good answer and a low cost, weighed {effect:g} to {cost:g}" if effect else "the lowest cost"
    return Objective(effect, cost, words)


def _weights(objective: object) -> tuple[float, float]:
    if isinstance(objective, str) and objective in ROUTING_WEIGHTS:
        return ROUTING_WEIGHTS[objective]
    parts = objective.split(",") if isinstance(objective, str) else objective
    try:
        effect, cost = (float(part) for part in parts)  # type: ignore[attr-defined]  # what is no pair fails here
    except (TypeError, ValueError):
        known = ", ".join(ROUTING_WEIGHTS)
        raise InputError(
            f"objective is {objective!r}: use one of {known}, or two numbers, the weights of effect and cost"
        ) from None
    return effect, cost
