"""What a reward function is called with, as checked rows, and what it gives back, from the rows' components."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.records import sample_strategies
from r1ranker_ir.types import Asked

RewardFunction = Callable[..., list[float | None]]
LogMetric = Callable[[str, float], None]
Completion = str | Sequence[Mapping[str, Any]]
Components = Mapping[str, float]

# Where TRL puts the thought of a tokenizer that has a schema for its responses.
_PARSED_THOUGHT = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class RewardRow:
    """One completion to score: the assistant's whole turn, and the gains of the candidates by their identifiers."""

    place: int
    output: str
    gains: tuple[float, ...]
    reference: Sequence[int] | None = None


def reward(
    asks: Asked, logged_as: str = "", weights: Mapping[str, float] = MappingProxyType({})
) -> Callable[[Callable[[RewardRow], Components]], RewardFunction]:
    """Makes a function in TRL's form of one that says the components of a row.

    It gets one entry per completion in every column, and returns one number per completion: the sum of the components,
    weighted where weights are given, or `None` for rows of strategies that do not ask for this. With a name, the
    components' means over the rows scored go to `log_metric` as `rewards/<name>/<component>`.
    """

    def make(components: Callable[[RewardRow], Components]) -> RewardFunction:
        @functools.wraps(components)
        def scored(
            completions: Sequence[Completion],
            gains: Sequence[Sequence[float]],
            opening: Sequence[str | None] | None = None,
            strategy: Sequence[str] | None = None,
            reference_order: Sequence[Sequence[int] | None] | None = None,
            log_metric: LogMetric | None = None,
            **kwargs: object,
        ) -> list[float | None]:
            outputs = whole_outputs(completions, opening)
            check_lengths(len(outputs), gains=gains, strategy=strategy, reference_order=reference_order)
            told: dict[int, Components] = {}
            for place, output in enumerate(outputs):
                if strategy is None or asked_of(place, strategy[place]) == asks:
                    reference = None if reference_order is None else reference_order[place]
                    told[place] = components(RewardRow(place, output, checked_gains(place, gains[place]), reference))
            return summed(told, len(outputs), logged_as, log_metric, weights)

        del scored.__wrapped__  # it is called otherwise
        return scored

    return make


def summed(
    told: Mapping[int, Components],
    count: int,
    logged_as: str = "",
    log_metric: LogMetric | None = None,
    weights: Mapping[str, float] = MappingProxyType({}),
) -> list[float | None]:
    """What a reward function returns for `count` completions of which some have components, whose means are logged."""
    if logged_as and log_metric is not None and told:
        for part in next(iter(told.values())):
            mean = math.fsum(each[part] for each in told.values()) / len(told)
            log_metric(f"rewards/{logged_as}/{part}", mean)
    sums = {
        place: math.fsum(weights.get(part, 1.0) * value for part, value in each.items()) for place, each in told.items()
    }
    return [sums.get(place) for place in range(count)]


def check_lengths(count: int, **columns: Sequence[Any] | None) -> None:
    """Refuses columns that do not have one entry per completion."""
    for name, values in columns.items():
        if values is not None and (isinstance(values, str) or len(values) != count):
            raise InputError(f"{name} holds {len(values)} entries for {count} completions: give a list of one each")


def asked_of(place: int, strategy: Any) -> Asked:
    """What the strategy of a row asks for."""
    if strategy not in sample_strategies():
        raise InputError(f"strategy of row {place} is {strategy!r}: use one of {', '.join(sample_strategies())}")
    return STRATEGIES[strategy].asks


def checked_gains(place: int, gains: Any) -> tuple[float, ...]:
    """The gains of a row."""
    try:
        checked = () if isinstance(gains, str) else tuple(map(float, gains))
    except (TypeError, ValueError):
        checked = ()
    if not checked or not all(math.isfinite(gain) and gain >= 0 for gain in checked):
        raise InputError(f"gains of row {place} are {gains!r}: give each candidate a finite number of at least 0")
    return checked


def whole_outputs(completions: Sequence[Completion], opening: Sequence[str | None] | None) -> list[str]:
    """Joins each opening with its completion."""
    check_lengths(len(completions), opening=opening)
    outputs = []
    for place, completion in enumerate(completions):
        start = "" if opening is None else opening[place] or ""
        try:
            outputs.append((start + _text_of(completion)).strip())
        except (TypeError, KeyError, AttributeError) as error:
            given = f"opening {start!r} and completion {completion!r}"
            raise InputError(f"row {place} has {given}: give text, or a list of messages as completion") from error
    return outputs


def _text_of(completion: Completion) -> str:
    """What the assistant says in a completion."""
    if isinstance(completion, str):
        return completion
    said = [message for message in completion if message.get("role", "assistant") == "assistant"]
    if parsed := [name for name in _PARSED_THOUGHT for message in said if message.get(name)]:
        raise InputError(
            f"a completion comes with its thought parsed out ({parsed[0]!r}), so its tags can't be scored: "
            "set the tokenizer's response_schema and response_template to None before training"
        )
    return "".join(message["content"] for message in said)


def reference_of(row: RewardRow) -> Sequence[int]:
    """The order that a row's answer is compared with: the one given, else that of the gains."""
    places = range(len(row.gains))
    if row.reference is None:
        return sorted(places, key=lambda position: -row.gains[position])
    if len(row.reference) != len(places) or set(row.reference) != set(places):
        raise InputError(
            f"reference_order of row {row.place} is {row.reference!r}: "
            f"give each of the positions 0 to {len(row.gains) - 1} once, best first"
        )
    return row.reference
