"""Several sample files in one training, in exact proportions."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from r1ranker_ir.errors import InputError

logger = logging.getLogger(__name__)

_MOST_ROWS = 100_000_000


@dataclass(frozen=True)
class MixedSource:
    """What a mixture took from one of its data sets."""

    name: str
    size: int
    share: float
    rows: int
    repeats: int


@dataclass(frozen=True)
class Mixture:
    """Rows of several data sets in the order in which a training sees them."""

    rows: Any
    sources: tuple[MixedSource, ...]


def mix(
    datasets: Sequence[Any],
    weights: Sequence[float] | None = None,
    *,
    exhausted: Literal["repeat", "stop"] = "repeat",
    length: int | None = None,
    seed: int = 0,
) -> Mixture:
    """Mixes data sets so that every beginning of the mixture keeps to the weights.

    After any number of rows, each data set has given its share of them, rounded up or down (see `apportion`). The rows
    of a data set come in an order shuffled by the seed, in another one each time that they are repeated.
    """
    from datasets import concatenate_datasets

    sizes = [_size(dataset, place) for place, dataset in enumerate(datasets)]
    whole = _whole_weights(sizes, weights)
    if length is not None and length < 1:
        raise InputError(f"a mixture of {length} rows: give at least 1, or leave the length out")
    for place, dataset in enumerate(datasets):
        if dataset.features != datasets[0].features:
            raise InputError(
                f"data set {place + 1} has the columns {dict(dataset.features)}, the first one "
                f"{dict(datasets[0].features)}: mix files that were made alike"
            )
    longest = max(math.ceil(Fraction(size * sum(whole), weight)) for size, weight in zip(sizes, whole, strict=True))
    if exhausted == "repeat" and length is None and longest > _MOST_ROWS:
        raise InputError(
            f"with these weights the largest data set would be through after {longest:,} rows: give a length, "
            "weights nearer to the sizes, or stop where the first data set is exhausted"
        )
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    shown = [0] * len(sizes)
    order: list[int] = []
    for place in apportion(whole):
        ended = all(count >= size for count, size in zip(shown, sizes, strict=True)) if length is None else False
        if ended or len(order) == length or (exhausted == "stop" and shown[place] == sizes[place]):
            break
        order.append(starts[place] + shuffled_place(sizes[place], shown[place], f"{seed}:{place}"))
        shown[place] += 1
    sources = tuple(
        MixedSource(_name(dataset, place), size, weight / sum(whole), count, max(0, count - size))
        for place, (dataset, size, weight, count) in enumerate(zip(datasets, sizes, whole, shown, strict=True))
    )
    _report(sources, len(order), length)
    return Mixture(concatenate_datasets(list(datasets)).select(order), sources)


def apportion(weights: Sequence[int]) -> Iterator[int]:
    """Picks places in proportion to weights, so evenly that every beginning keeps to the proportions.

    Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980): with n places of shares λ_i,
    of which place i has been picked x_i times before pick t, those with λ_i·t − x_i ≥ 1/(2n − 2) may be picked, and the
    one with the least ⌈(x_i + 1 − 1/(2n − 2)) / λ_i⌉ is. Then |λ_i·t − x_i| ≤ 1 − 1/(2n − 2) after every pick.
    """
    total, count = sum(weights), len(weights)
    if count == 1:
        while True:
            yield 0
    # In whole numbers, so that no rounding moves a pick.
    parts = 2 * count - 2
    picked = [0] * count
    pick = 0
    while True:
        pick += 1
        chosen, least = -1, 0
        for place, weight in enumerate(weights):
            if parts * (weight * pick - picked[place] * total) < total:
                continue
            deadline = -(-(parts * (picked[place] + 1) - 1) * total // (parts * weight))
            if chosen < 0 or deadline < least:
                chosen, least = place, deadline
        picked[chosen] += 1
        yield chosen


def shuffled_place(size: int, turn: int, seed: str) -> int:
    """Walks through places in rounds, each of which shows every place once, shuffled anew."""
    round_number, step = divmod(turn, size)
    return _shuffled(size, f"{seed}:{round_number}")[step]


@lru_cache(maxsize=64)
def _shuffled(size: int, seed: str) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order


def _size(dataset: Any, place: int) -> int:
    if not hasattr(dataset, "num_rows"):
        raise InputError(
            f"data set {place + 1} is streamed: its size is not known, so it can't be mixed; load it whole"
        )
    if not dataset.num_rows:
        raise InputError(f"data set {place + 1} is empty: leave it out")
    return int(dataset.num_rows)


def _whole_weights(sizes: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    if not sizes:
        raise InputError("nothing to mix: give at least one data set")
    if weights is None:
        return list(sizes)
    if len(weights) != len(sizes):
        raise InputError(f"{len(weights)} weights for {len(sizes)} data sets: give one each")
    for weight in weights:
        if not math.isfinite(weight) or weight <= 0:
            raise InputError(f"weight {weight!r}: give a positive number, or leave its data set out")
    # 0.1 is meant as a tenth, and not as the binary fraction next to it.
    exact = [Fraction(weight).limit_denominator(10**9) or Fraction(weight) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    return [int(weight * scale) for weight in exact]


def _name(dataset: Any, place: int) -> str:
    names = dataset.unique("source") if "source" in dataset.column_names else []
    return str(names[0]) if len(names) == 1 and names[0] else f"data set {place + 1}"


def _report(sources: Sequence[MixedSource], rows: int, length: int | None) -> None:
    for source in sources:
        logger.info("%s: %d of %d rows of the mixture, from %d", source.name, source.rows, rows, source.size)
        if source.repeats:
            logger.warning(
                "%s is repeated: its %d rows are shown %.1f times each on average, for %.1f%% of the mixture",
                source.name,
                source.size,
                source.rows / source.size,
                100 * source.share,
            )
    if length is not None and rows < length:
        logger.warning("the mixture ends after %d of %d rows, where a data set is exhausted", rows, length)
