"""Ranking requests of routing: a question, the language models that could answer it, and what each would bring.

Utility is effect × its weight − cost × its weight, as in R1-Ranker (arXiv 2506.21638), with cost in [0, 1].
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from r1ranker_ir.adapters.routing.llms import LLMProfile
from r1ranker_ir.adapters.routing.objectives import Objective
from r1ranker_ir.adapters.routing.observations import Observation
from r1ranker_ir.adapters.routing.protocol import RoutingProtocol
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import RankingRequest

logger = logging.getLogger(__name__)

BEST_SINGLE = "best single"
IN_HINDSIGHT = f"{BEST_SINGLE} (in hindsight)"
_DIGITS = 6

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 in a token, where tokens were not counted: about what BPE vocabularies reach on English."""

_USUAL = RoutingProtocol()


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
    protocol: RoutingProtocol = _USUAL,
) -> Iterator[Outcome]:
    """Weighs effects against costs.

    A cost that is not given is computed from prices and tokens. Tokens that were not counted are assumed: a fourth of
    the question's bytes for what is read, the protocol's `output_tokens` for what is written.
    """
    costs = [_costs(observation, llms, protocol.output_tokens) for observation in observations]
    if protocol.cost_scale == "file":
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
        scale = greatest if protocol.cost_scale == "file" else max(row)
        scaled = [cost / scale if scale else 0.0 for cost in row]
        weighed = (
            objective.effect * effect - objective.cost * cost for effect, cost in zip(effects, scaled, strict=True)
        )
        yield Outcome(observation, tuple(effects), tuple(scaled), tuple(weighed))


def assumed_tokens(observation: Observation) -> bool:
    """Whether a question's costs rest on tokens that nobody counted."""
    return observation.costs is None and (observation.input_tokens is None or observation.output_tokens is None)


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


def observed_llms(observations: Sequence[Observation], llms: Sequence[LLMProfile]) -> tuple[LLMProfile, ...]:
    """The language models that questions have effects of, in the profiles' order; others are named in the log."""
    if not observations:
        raise InputError("there are no questions: give at least one")
    observed = observations[0]
    known = {llm.name for llm in llms}
    if lacking := [name for name in observed.effects if name not in known]:
        raise InputError(
            f"{observed.where or observed.query_id}: effects of {', '.join(map(repr, lacking))}, but no profile: add "
            f"one, or leave what is no language model out of the effects"
        )
    if unobserved := [llm.name for llm in llms if llm.name not in observed.effects]:
        logger.warning("profiles without effects are left out: %s", ", ".join(unobserved))
    return tuple(llm for llm in llms if llm.name in observed.effects)


def routing_requests(
    observations: Sequence[Observation],
    llms: Sequence[LLMProfile],
    objective: Objective,
    protocol: RoutingProtocol = _USUAL,
    *,
    fit: Sequence[Observation] | None = None,
    source: str = "routing",
) -> Iterator[JudgedRequest]:
    """Makes a ranking request of each question.

    Its gains are the utilities, spread over [0, 1] for each question; all 0 where all language models bring the same.
    Its values are effect, cost and utility. Its scores are the baselines: `oracle` (utility), `cheapest`, `largest`
    (where all profiles say a size), and `best single`, the mean utility on other questions. Where costs are not known,
    and do not count, there are neither `cost` nor `cheapest`.
    """
    ours = list(outcomes(observations, llms, objective, protocol))
    theirs = ours
    if fit is not None:
        if not fit or (lacking := [llm.name for llm in llms if llm.name not in fit[0].effects]):
            raise InputError(
                f"fit has no effects{f' of {lacking[0]!r}' if fit else ''}: give questions with all language models"
            )
        theirs = list(outcomes(fit, llms, objective, protocol))
    means = tuple(sum(column) / len(theirs) for column in zip(*(each.utilities for each in theirs), strict=True))
    fixed = {IN_HINDSIGHT if fit is None else BEST_SINGLE: means}
    if all(llm.parameters is not None for llm in llms):
        fixed["largest"] = tuple(llm.parameters or 0.0 for llm in llms)
    for outcome in ours:
        query, query_id = outcome.observation.query, outcome.observation.query_id
        order = list(range(len(llms)))
        random.Random(json.dumps([protocol.seed, query_id])).shuffle(order)
        scores, values = {"oracle": outcome.utilities}, {"effect": outcome.effects}
        if outcome.costs is not None:
            scores["cheapest"] = tuple(-cost for cost in outcome.costs)
            values["cost"] = outcome.costs
        scores |= fixed
        values["utility"] = outcome.utilities
        values["regret"] = tuple(max(outcome.utilities) - utility for utility in outcome.utilities)
        candidates = tuple(llms[place].candidate() for place in order)
        request = RankingRequest(query, candidates, "model", query_id, objective.aim)
        ordered, brought = (
            {name: _in_order(column, order) for name, column in table.items()} for table in (scores, values)
        )
        gains = _in_order(_gains(outcome.utilities), order)
        yield JudgedRequest(request, gains, source, ordered, brought, outcome.observation.tag)


def _in_order(column: Sequence[float], order: Sequence[int]) -> tuple[float, ...]:
    return tuple(round(column[place], _DIGITS) for place in order)


def _gains(utilities: Sequence[float]) -> list[float]:
    """Spreads utilities over [0, 1]; differences that are only those of floating point are none."""
    rounded = [round(utility, _DIGITS + 3) for utility in utilities]
    least, spread = min(rounded), max(rounded) - min(rounded)
    return [(utility - least) / spread if spread else 0.0 for utility in rounded]
