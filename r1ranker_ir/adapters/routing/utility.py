"""What choosing a language model for a question brings: effect, cost, and the two weighed against each other.

Utility is effect × its weight − cost × its weight, as in R1-Ranker (arXiv 2506.21638), with cost in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.adapters.routing.llms import LLMProfile
from r1ranker_ir.adapters.routing.objectives import Objective
from r1ranker_ir.adapters.routing.observations import Observation
from r1ranker_ir.errors import InputError

CostScale = Literal["question", "file"]
COST_SCALES: tuple[CostScale, ...] = ("question", "file")

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 in a token, where tokens were not counted: about what BPE vocabularies reach on English."""
OUTPUT_TOKENS = 256
"""Tokens of an answer, where they were not counted."""


@dataclass(frozen=True)
class Outcome:
    """What each language model would bring on a question, in the order of the profiles; costs are from 0 to 1."""

    observation: Observation
    effects: tuple[float, ...]
    costs: tuple[float, ...] | None
    utilities: tuple[float, ...]


def outcomes(
    observations: Sequence[Observation],
    llms: Sequence[LLMProfile],
    objective: Objective,
    *,
    cost_scale: CostScale = "question",
    output_tokens: int = OUTPUT_TOKENS,
) -> Iterator[Outcome]:
    """Weighs effects against costs.

    A cost that is not given is computed from prices and tokens. Tokens that were not counted are assumed: a fourth of
    the question's bytes for what is read, `output_tokens` for what is written.
    """
    if cost_scale not in COST_SCALES:
        raise InputError(f"cost_scale is {cost_scale!r}: use one of {', '.join(COST_SCALES)}")
    if output_tokens < 0:
        raise InputError(f"output_tokens is {output_tokens}: give a number of at least 0")
    costs = [_costs(observation, llms, output_tokens) for observation in observations]
    if cost_scale == "file":
        _check_units(observations)
    unknown = next((each for each, row in zip(observations, costs, strict=True) if row is None), None)
    if unknown is not None and objective.cost:
        raise InputError(
            f"{unknown.where or unknown.query_id}: costs count, but are neither given nor known from prices: give them "
            f"with the effects, or prices in the profiles (--llms)"
        )
    greatest = max((max(row) for row in costs if row is not None), default=0.0)
    for observation, row in zip(observations, costs, strict=True):
        effects = [observation.effects[llm.name] for llm in llms]
        if row is None or unknown is not None:
            yield Outcome(observation, tuple(effects), None, tuple(objective.effect * effect for effect in effects))
            continue
        scale = greatest if cost_scale == "file" else max(row)
        scaled = [cost / scale if scale else 0.0 for cost in row]
        weighed = (
            objective.effect * effect - objective.cost * cost for effect, cost in zip(effects, scaled, strict=True)
        )
        yield Outcome(observation, tuple(effects), tuple(scaled), tuple(weighed))


def assumed_tokens(observation: Observation) -> bool:
    """Whether a question's costs rest on tokens that nobody counted."""
    return observation.costs is None and (observation.input_tokens is None or observation.output_tokens is None)


def mean_utilities(outcomes: Sequence[Outcome], llms: Sequence[LLMProfile]) -> dict[str, float]:
    """Mean utility over questions by language model."""
    return {
        llm.name: sum(outcome.utilities[place] for outcome in outcomes) / len(outcomes)
        for place, llm in enumerate(llms)
    }


def _check_units(observations: Sequence[Observation]) -> None:
    given = [observation for observation in observations if observation.costs is not None]
    if given and len(given) < len(observations):
        lacking = next(observation for observation in observations if observation.costs is None)
        raise InputError(
            f"{given[0].where} gives costs and {lacking.where} does not: on the scale of the file all must be given, "
            f"or none; or take the scale of the question (--cost-scale question)"
        )


def _costs(observation: Observation, llms: Sequence[LLMProfile], output_tokens: int) -> list[float] | None:
    """Costs of the answers in one unit: the given one, or dollars; `None` where prices are needed and not known."""
    if observation.costs is not None:
        return [observation.costs[llm.name] for llm in llms]
    read = _counts(observation.input_tokens, llms, len(observation.query.encode("utf-8", "replace")) / BYTES_PER_TOKEN)
    written = _counts(observation.output_tokens, llms, output_tokens)
    prices = [llm.price(*tokens) for llm, *tokens in zip(llms, read, written, strict=True)]
    known = [price for price in prices if price is not None]
    return known if len(known) == len(prices) else None


def _counts(given: Mapping[str, float] | None, llms: Sequence[LLMProfile], assumed: float) -> list[float]:
    return [assumed if given is None else given[llm.name] for llm in llms]
