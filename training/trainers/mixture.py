"""Which samples are seen when: files in exact proportions, or one after the other; short lists before long ones."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

from r1ranker_ir.errors import InputError

logger = logging.getLogger(__name__)


def mix(
    datasets: Sequence[Any],
    weights: Sequence[float],
    *,
    length: int | None = None,
    seed: int = 0,
    turns: Sequence[int] | None = None,
    replay: float = 0.0,
) -> Any:
    """Mixes data sets so that every beginning of the mixture keeps to the weights.

    After any number of rows, each data set has given its share of them, rounded up or down (see `apportion`). The rows
    of a data set come in an order shuffled by the seed, in another one each time that they are repeated. Without a
    `length` the mixture ends when all of them have been shown. With `turns`, the places of the data sets in an order,
    the very same rows come one data set after the other (see `in_turn`).
    """
    from datasets import concatenate_datasets

    sizes = [len(dataset) for dataset in datasets]
    if not all(sizes):
        raise InputError(f"data set {sizes.index(0) + 1} of the mixture is empty: leave it out")
    if len(weights) != len(sizes) or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError(f"weights {list(weights)} for {len(sizes)} data sets: give a positive number for each")
    whole = _whole_numbers(weights)
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    given, places = [0] * len(sizes), list[int]()
    for place in apportion(whole):
        if len(places) == length or (length is None and all(map(int.__ge__, given, sizes))):
            break
        places.append(place)
        given[place] += 1
    if turns is not None:
        places = [turns[turn] for turn in in_turn([given[place] for place in turns], replay)]
    shown = [0] * len(sizes)
    order: list[int] = []
    for place in places:
        round_number, turn = divmod(shown[place], sizes[place])
        order.append(starts[place] + _shuffled(sizes[place], f"{seed}:{place}:{round_number}")[turn])
        shown[place] += 1
    for place, (size, count) in enumerate(zip(sizes, shown, strict=True), start=1):
        said = "data set %d gives %d of %d rows of the mixture, each of its %d rows %.1f times on average"
        level = logging.WARNING if count > size else logging.INFO
        logger.log(level, said, place, count, len(order), size, count / size)
    return concatenate_datasets(list(datasets)).select(order)


def apportion(weights: Sequence[int]) -> Iterator[int]:
    """Picks places in proportion to weights, so evenly that every beginning keeps to the proportions.

    Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980): with n places of shares λ_i,
    of which place i has been picked x_i times before pick t, those with λ_i·t − x_i ≥ 1/(2n − 2) may be picked, and the
    one with the least ⌈(x_i + 1 − 1/(2n − 2)) / λ_i⌉ is. Then |λ_i·t − x_i| ≤ 1 − 1/(2n − 2) after every pick.
    """
    # In whole numbers, so that no rounding moves a pick; of a single place every pick is.
    total, parts = sum(weights), max(1, 2 * len(weights) - 2)
    picked = [0] * len(weights)
    pick = 0
    while True:
        pick += 1
        due = [
            (-(-(parts * (picked[place] + 1) - 1) * total // (parts * weight)), place)
            for place, weight in enumerate(weights)
            if parts * (weight * pick - picked[place] * total) >= total
        ]
        chosen = min(due)[1]
        picked[chosen] += 1
        yield chosen


def in_turn(counts: Sequence[int], replay: float) -> list[int]:
    """Puts places one after the other, each as often as it counts; a share of every later stage replays earlier places.

    The replayed rows are taken from the earlier places' own stages, in proportion to the counts and evenly spread, so
    that nothing is shown more or less often than in a mixture of these counts: only the order differs.
    """
    if not 0 <= replay < 1:
        raise InputError(f"replay is {replay}: give a share from 0 to below 1")
    left, stages = list(counts), list[list[int]]()
    for place in reversed(range(len(counts))):
        # What is replayed later is gone from the stage of its own.
        earlier = counts[:place]
        wanted = round(left[place] * replay / (1 - replay)) if sum(earlier) else 0
        again = Counter(islice(apportion(earlier), wanted)) if wanted else Counter[int]()
        if lacking := [each for each, count in again.items() if count >= left[each]]:
            raise InputError(
                f"replay is {replay:g}, which takes {again[lacking[0]]} rows of data set {lacking[0] + 1} for the "
                f"stage of data set {place + 1}, and {left[lacking[0]]} are left: lower it"
            )
        for each, count in again.items():
            left[each] -= count
        shown = [each for each in (*sorted(again), place) if again[each] or (each == place and left[place])]
        amounts = [again[each] or left[each] for each in shown]
        stages.insert(0, [shown[pick] for pick in islice(apportion(amounts), sum(amounts))] if shown else [])
    return [place for stage in stages for place in stage]


@lru_cache(maxsize=64)
def _shuffled(size: int, seed: str) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order


def _whole_numbers(weights: Sequence[float]) -> list[int]:
    """Weights as whole numbers of the same proportions."""
    # 0.1 is meant as a tenth, and not as the binary fraction next to it.
    exact = [Fraction(weight).limit_denominator(10**9) or Fraction(weight) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    return [int(weight * scale) for weight in exact]


def order_by_length(rows: Any, *, length: int | None = None, seed: int = 0) -> Any:
    """Orders rows from short lists to long ones, those of one length shuffled; train on them unshuffled.

    With a `length` it takes that many rows, of lists of each length their share, and repeats rows where there are
    fewer.
    """
    lengths = [len(gains) for gains in rows["gains"]]
    shuffled = random.Random(seed)

    def in_order(places: list[int]) -> list[int]:
        shuffled.shuffle(places)
        return sorted(places, key=lengths.__getitem__)

    order = in_order(list(range(len(lengths))))
    if length is not None:
        order = in_order([order[turn * len(order) // length] for turn in range(length)])
    return rows.select(order)
