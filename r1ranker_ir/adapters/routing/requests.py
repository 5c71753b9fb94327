"""Ranking requests of routing: a question, the language models that could answer it, and what each would bring."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Sequence

from r1ranker_ir.adapters.routing.llms import LLMProfile
from r1ranker_ir.adapters.routing.objectives import Objective
from r1ranker_ir.adapters.routing.observations import Observation
from r1ranker_ir.adapters.routing.utility import OUTPUT_TOKENS, CostScale, Outcome, mean_utilities, outcomes
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import RankingRequest

logger = logging.getLogger(__name__)

BEST_SINGLE = "best single"
IN_HINDSIGHT = f"{BEST_SINGLE} (in hindsight)"
_DIGITS = 6


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
    *,
    fit: Sequence[Observation] | None = None,
    cost_scale: CostScale = "question",
    output_tokens: int = OUTPUT_TOKENS,
    seed: int = 0,
    source: str = "routing",
) -> Iterator[JudgedRequest]:
    """Makes a ranking request of each question.

    Its gains are the utilities, spread over [0, 1] for each question; all 0 where all language models bring the same.
    Its values are effect, cost and utility. Its scores are the baselines: `oracle` (utility), `cheapest`, `largest`
    (where all profiles say a size), and `best single`, the mean utility on other questions. Where costs are not known,
    and do not count, there are neither `cost` nor `cheapest`.
    """
    ours = list(outcomes(observations, llms, objective, cost_scale=cost_scale, output_tokens=output_tokens))
    theirs = ours
    if fit is not None:
        if not fit or (lacking := [llm.name for llm in llms if llm.name not in fit[0].effects]):
            raise InputError(
                f"fit has no effects{f' of {lacking[0]!r}' if fit else ''}: give questions with all language models"
            )
        theirs = list(outcomes(fit, llms, objective, cost_scale=cost_scale, output_tokens=output_tokens))
    means = mean_utilities(theirs, llms)
    fixed = {IN_HINDSIGHT if fit is None else BEST_SINGLE: tuple(means.values())}
    if all(llm.parameters is not None for llm in llms):
        fixed["largest"] = tuple(llm.parameters or 0.0 for llm in llms)
    for outcome in ours:
        yield _request(outcome, llms, objective, fixed, seed, source)


def _request(
    outcome: Outcome,
    llms: Sequence[LLMProfile],
    objective: Objective,
    fixed: dict[str, tuple[float, ...]],
    seed: int,
    source: str,
) -> JudgedRequest:
    observation = outcome.observation
    order = list(range(len(llms)))
    random.Random(json.dumps([seed, observation.query_id])).shuffle(order)

    def ordered(column: Sequence[float]) -> tuple[float, ...]:
        return tuple(round(column[place], _DIGITS) for place in order)

    scores, values = {"oracle": outcome.utilities}, {"effect": outcome.effects}
    if outcome.costs is not None:
        scores["cheapest"] = tuple(-cost for cost in outcome.costs)
        values["cost"] = outcome.costs
    scores |= fixed
    values["utility"] = outcome.utilities
    return JudgedRequest(
        RankingRequest(
            observation.query,
            tuple(llms[place].candidate() for place in order),
            "model",
            observation.query_id,
            objective.aim,
        ),
        ordered(_gains(outcome.utilities)),
        source,
        {name: ordered(column) for name, column in scores.items()},
        {name: ordered(column) for name, column in values.items()},
    )


def _gains(utilities: Sequence[float]) -> list[float]:
    """Spreads utilities over [0, 1]; differences that are only those of floating point are none."""
    rounded = [round(utility, _DIGITS + 3) for utility in utilities]
    least, spread = min(rounded), max(rounded) - min(rounded)
    return [(utility - least) / spread if spread else 0.0 for utility in rounded]
