"""What a reward function is called with, as checked rows, and what it gives back, from the rows' components."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.records import sample_strategies
from r1ranker_ir.types import Asked

LogMetric = Callable[[str, float], None]
Completion = str | Sequence[Mapping[str, Any]]
Components = Mapping[str, float]

_Entry = TypeVar("_Entry")

# Where TRL puts the thought of a tokenizer that has a schema for its responses.
_PARSED_THOUGHT = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class RewardRow:
    """One completion to score."""

    place: int
    output: str
    gains: tuple[float, ...]


def rows_to_score(
    own: Asked,
    completions: Sequence[Completion],
    gains: Sequence[Sequence[float]],
    opening: Sequence[str | None] | None,
    strategy: Sequence[str] | None,
) -> list[RewardRow | None]:
    """Puts the columns that a reward is called with together, row by row."""
    outputs = whole_outputs(completions, opening)
    gains = _column("gains", gains, len(outputs))
    strategies = [None] * len(outputs) if strategy is None else _column("strategy", strategy, len(outputs))
    rows: list[RewardRow | None] = []
    known = sample_strategies()
    for place, (output, row_gains, row_strategy) in enumerate(zip(outputs, gains, strategies, strict=True)):
        if strategy is not None and row_strategy not in known:
            raise InputError(f"strategy of row {place} is {row_strategy!r}: use one of {', '.join(known)}")
        scored = row_strategy is None or STRATEGIES[row_strategy].asks == own
        rows.append(RewardRow(place, output, _checked_gains(place, row_gains)) if scored else None)
    return rows


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
    openings = [None] * len(completions) if opening is None else _column("opening", opening, len(completions))
    outputs = []
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
        parsed = [field for field in _PARSED_THOUGHT if message.get(field)]
        if parsed:
            raise InputError(
                f"completion {place} comes with its thought parsed out ({parsed[0]!r}), so its tags can't be scored: "
                "set the tokenizer's response_schema and response_template to None before training"
            )
        content = message.get("content")
        if not isinstance(content, str):
            raise InputError(f"content of completion {place} is {content!r}: give text")
        texts.append(content)
    return "".join(texts)


def _column(name: str, values: Sequence[_Entry], count: int) -> Sequence[_Entry]:
    if isinstance(values, str) or len(values) != count:
        raise InputError(f"{name} holds {len(values)} entries for {count} completions: give a list of one each")
    return values


def reference_orders(
    rows: Sequence[RewardRow | None], reference_order: Sequence[Sequence[int] | None] | None
) -> dict[int, Sequence[int]]:
    """Finds the order that each row's answer is compared with."""
    given = [None] * len(rows) if reference_order is None else _column("reference_order", reference_order, len(rows))
    references: dict[int, Sequence[int]] = {}
    for row in rows:
        if row is None:
            continue
        order, everything = given[row.place], range(len(row.gains))
        if order is None:
            order = sorted(everything, key=lambda position: -row.gains[position])
        elif len(order) != len(everything) or set(order) != set(everything):
            raise InputError(
                f"reference_order of row {row.place} is {order!r}: "
                f"give each of the positions 0 to {len(row.gains) - 1} once, best first"
            )
        references[row.place] = order
    return references


def score_rows(
    name: str,
    rows: Sequence[RewardRow | None],
    components: Callable[[RewardRow], Components],
    log_metric: LogMetric | None = None,
    weights: Mapping[str, float] = MappingProxyType({}),
) -> list[float | None]:
    """Sums each row's components and tells their means."""
    results = [None if row is None else components(row) for row in rows]
    scored = [result for result in results if result is not None]
    if log_metric is not None and scored:
        for part in scored[0]:
            log_metric(f"rewards/{name}/{part}", math.fsum(result[part] for result in scored) / len(scored))
    return [
        None if result is None else math.fsum(weights.get(part, 1.0) * value for part, value in result.items())
        for result in results
    ]
