"""What a reward function is called with, as checked rows, and what it gives back, from the rows' components."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.records import sample_strategies
from r1ranker_ir.types import Asked

RewardFunction = Callable[..., list[float | None]]
LogMetric = Callable[[str, float], None]
Completion = str | Sequence[Mapping[str, Any]]
Components = Mapping[str, float]

_Entry = TypeVar("_Entry")

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
            count = len(outputs)
            references = _column("reference_order", reference_order, count)
            columns = _column("gains", gains, count), _column("strategy", strategy, count)
            results: list[Components | None] = []
            for place, (row_gains, row_strategy) in enumerate(zip(*columns, strict=True)):
                if strategy is None or _asks(place, row_strategy) == asks:
                    row = RewardRow(place, outputs[place], _checked_gains(place, row_gains), references[place])
                    results.append(components(row))
                else:
                    results.append(None)
            told = [result for result in results if result is not None]
            if logged_as and log_metric is not None and told:
                for part in told[0]:
                    log_metric(f"rewards/{logged_as}/{part}", math.fsum(each[part] for each in told) / len(told))
            return [
                None if each is None else math.fsum(weights.get(part, 1.0) * value for part, value in each.items())
                for each in results
            ]

        del scored.__wrapped__  # it is called otherwise
        return scored

    return make


def _asks(place: int, strategy: Any) -> Asked:
    if strategy not in sample_strategies():
        raise InputError(f"strategy of row {place} is {strategy!r}: use one of {', '.join(sample_strategies())}")
    return STRATEGIES[strategy].asks


def _checked_gains(place: int, gains: Any) -> tuple[float, ...]:
    try:
        checked = () if isinstance(gains, str) else tuple(float(gain) for gain in gains)
    except (TypeError, ValueError):
        checked = ()
    if not checked or not all(math.isfinite(gain) and gain >= 0 for gain in checked):
        raise InputError(f"gains of row {place} are {gains!r}: give each candidate a finite number of at least 0")
    return checked


def whole_outputs(completions: Sequence[Completion], opening: Sequence[str | None] | None) -> list[str]:
    """Joins each opening with its completion."""
    outputs = []
    openings = _column("opening", opening, len(completions))
    for place, (completion, start) in enumerate(zip(completions, openings, strict=True)):
        if start is not None and not isinstance(start, str):
            raise InputError(f"opening of row {place} is {start!r}: give text")
        outputs.append(((start or "") + _completion_text(place, completion)).strip())
    return outputs


def _completion_text(place: int, completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(message, Mapping) for message in completion):
        raise InputError(f"completion {place} is {completion!r}: give text or a list of messages")
    texts = []
    for message in completion:
        if message.get("role", "assistant") != "assistant":
            continue
        if parsed := [field for field in _PARSED_THOUGHT if message.get(field)]:
            raise InputError(
                f"completion {place} comes with its thought parsed out ({parsed[0]!r}), so its tags can't be scored: "
                "set the tokenizer's response_schema and response_template to None before training"
            )
        content = message.get("content")
        if not isinstance(content, str):
            raise InputError(f"content of completion {place} is {content!r}: give text")
        texts.append(content)
    return "".join(texts)


def _column(name: str, values: Sequence[_Entry] | None, count: int) -> Sequence[_Entry | None]:
    if values is None:
        return [None] * count
    if isinstance(values, str) or len(values) != count:
        raise InputError(f"{name} holds {len(values)} entries for {count} completions: give a list of one each")
    return values


def reference_of(row: RewardRow) -> Sequence[int]:
    """The order that a row's answer is compared with: the one given, else that of the gains."""
    everything = range(len(row.gains))
    if row.reference is None:
        return sorted(everything, key=lambda position: -row.gains[position])
    if len(row.reference) != len(everything) or set(row.reference) != set(everything):
        raise InputError(
            f"reference_order of row {row.place} is {row.reference!r}: "
            f"give each of the positions 0 to {len(row.gains) - 1} once, best first"
        )
    return row.reference
