"""Easy to hard: by the number of candidates shown, or by where the rewards of a group still differ."""

from __future__ import annotations

import bisect
import itertools
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.errors import InputError

from .callback_state import KeptCallback
from .mixture import shuffled_place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stages:
    """Rows sorted into stages by the number of candidates that they show, the shortest lists first."""

    names: tuple[str, ...]
    stage_of: tuple[int, ...]

    def rows(self, stage: int) -> list[int]:
        """The places of the rows of a stage."""
        return [row for row, own in enumerate(self.stage_of) if own == stage]


def stages_by_length(lengths: Sequence[int], boundaries: Sequence[int] = ()) -> Stages:
    """Sorts rows into stages."""
    if not lengths:
        raise InputError("a curriculum of no rows: give at least one")
    if any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise InputError(f"stages end at {list(boundaries)} candidates: give rising numbers")
    tops = sorted(set(lengths)) if not boundaries else list(boundaries)
    found = [bisect.bisect_left(tops, length) for length in lengths]
    kept = sorted(set(found))
    names = []
    for stage in kept:
        inside = [length for length, own in zip(lengths, found, strict=True) if own == stage]
        names.append(str(min(inside)) if min(inside) == max(inside) else f"{min(inside)}-{max(inside)}")
    place = {stage: number for number, stage in enumerate(kept)}
    return Stages(tuple(names), tuple(place[stage] for stage in found))


def list_lengths(rows: Any) -> list[int]:
    """Counts the candidates that each row shows."""
    import pyarrow.compute as pc

    if not hasattr(rows, "num_rows"):
        raise InputError("the rows are streamed, and a curriculum has to choose among all of them: load them whole")
    table = rows.select_columns(["gains"]).with_format("arrow")[:]
    return [int(length) for length in pc.list_value_length(table.column("gains")).to_pylist()]


def order_by_length(
    rows: Any, *, boundaries: Sequence[int] = (), length: int | None = None, revisit: float = 0.0, seed: int = 0
) -> Any:
    """Orders rows easy to hard, from short lists to long ones; train on them unshuffled."""
    stages = stages_by_length(list_lengths(rows), boundaries)
    order = length_order(stages, length=length, revisit=revisit, seed=seed)
    repeated = len(order) - len(set(order))
    if repeated:
        logger.info("the curriculum shows %d rows, %d of them again", len(order), repeated)
    return rows.select(order)


def length_order(stages: Stages, *, length: int | None = None, revisit: float = 0.0, seed: int = 0) -> list[int]:
    """Puts rows in order, stage after stage.

    Stage s, of n_s rows, gets b_s of the `length` rows in proportion to n_s (by largest remainders), of which
    round(revisit·b_s) are drawn from the stages before it. Without a length it shows its own rows and
    round(n_s·revisit/(1 − revisit)) of the stages before it.
    """
    if not 0 <= revisit < 1:
        raise InputError(f"revisit is {revisit}: give a share of at least 0 and below 1")
    if length is not None and length < 1:
        raise InputError(f"a curriculum of {length} rows: give at least 1, or leave the length out")
    rows = [stages.rows(stage) for stage in range(len(stages.names))]
    budgets = None if length is None else _shares(length, [len(own) for own in rows])
    order: list[int] = []
    earlier: list[int] = []
    for stage, own in enumerate(rows):
        if budgets is None:
            known = round(len(own) * revisit / (1 - revisit)) if earlier else 0
            new = len(own)
        else:
            known = round(revisit * budgets[stage]) if earlier else 0
            new = budgets[stage] - known
        chosen = [own[shuffled_place(len(own), turn, f"{seed}:{stage}")] for turn in range(new)]
        chosen += [earlier[shuffled_place(len(earlier), turn, f"{seed}:{stage}:earlier")] for turn in range(known)]
        random.Random(f"{seed}:{stage}:order").shuffle(chosen)
        order += chosen
        earlier += own
    return order


@dataclass
class _Progress:
    """What a run has seen of a stage."""

    drawn: int = 0
    measured: int = 0
    zero_variance: float = 0.0


class VarianceCurriculum(KeptCallback):
    """Draws prompts from the stages where rewards of a group still differ, opening stage after stage.

    Stage s is open once stage s − 1 has been measured on `warm_up` groups. Each group is drawn from an open stage with
    a probability proportional to max(floor, 1 − z_s), where z_s is the moving average of the share of groups without
    variance: z_s ← z_s + (x − z_s)/min(n_s, memory) after the n_s-th group, x being 1 for one without variance. A stage
    that nothing is known of has z_s = 0. Within a stage, rows come in an order shuffled by the seed, anew each round.

    What is drawn depends only on the seed and on what was observed, so all processes draw the same, and a training that
    is resumed goes on exactly.
    """

    def __init__(
        self, stages: Stages, *, floor: float = 0.05, memory: int = 64, warm_up: int = 64, seed: int = 0
    ) -> None:
        if not 0 < floor <= 1:
            raise InputError(f"the curriculum's floor is {floor}: give a weight above 0 and at most 1")
        if memory < 1 or warm_up < 1:
            raise InputError(f"the curriculum's memory is {memory}, its warm-up {warm_up}: give at least 1 group each")
        self.stages = stages
        self.floor = floor
        self.memory = memory
        self.warm_up = warm_up
        self.seed = seed
        self._rows = [stages.rows(stage) for stage in range(len(stages.names))]
        self._progress = [_Progress() for _ in stages.names]

    def weights(self) -> tuple[float, ...]:
        """The probability of each stage to be drawn from next."""
        raw = []
        is_open = True
        for progress in self._progress:
            raw.append(max(self.floor, 1 - progress.zero_variance) if is_open else 0.0)
            is_open = is_open and progress.measured >= self.warm_up
        return tuple(weight / sum(raw) for weight in raw)

    def draw(self, groups: int) -> list[int]:
        """Draws prompts for groups."""
        weights = self.weights()
        drawn = sum(progress.drawn for progress in self._progress)
        chosen = random.Random(f"{self.seed}:{drawn}").choices(range(len(weights)), weights, k=groups)
        places = []
        for stage in chosen:
            own = self._rows[stage]
            places.append(own[shuffled_place(len(own), self._progress[stage].drawn, f"{self.seed}:{stage}")])
            self._progress[stage].drawn += 1
        return places

    def observe(self, rows: Sequence[int], zero_variance: Sequence[bool]) -> None:
        """Takes in how the rewards of groups came out."""
        for row, is_zero in zip(rows, zero_variance, strict=True):
            progress = self._progress[self.stages.stage_of[row]]
            progress.measured += 1
            progress.zero_variance += (is_zero - progress.zero_variance) / min(progress.measured, self.memory)

    def metrics(self) -> dict[str, float]:
        """Each stage's probability, and its share of groups without variance where it has been measured."""
        found = {}
        for name, weight, progress in zip(self.stages.names, self.weights(), self._progress, strict=True):
            found[f"curriculum/weight/{name}"] = weight
            if progress.measured:
                found[f"curriculum/zero_variance/{name}"] = progress.zero_variance
        return found

    def kept(self) -> dict[str, Any]:
        """The stages, and what has been seen of each."""
        return {"names": list(self.stages.names), "progress": [list(vars(own).values()) for own in self._progress]}

    def take_over(self, kept: dict[str, Any]) -> None:
        """Goes on with what has been seen of each stage; raises `InputError` where they are others."""
        names = list(self.stages.names)
        if list(kept["names"]) != names:
            raise InputError(
                f"the checkpoint's curriculum has the stages {kept['names']}, this training {names}: go on with the "
                "same data and stages"
            )
        self._progress = [_Progress(int(drawn), int(seen), float(zero)) for drawn, seen, zero in kept["progress"]]


def local_rows(rows: Sequence[int], num_generations: int, processes: int, process_index: int) -> list[int]:
    """Cuts what was drawn for all processes to what one of them generates for."""
    repeated = [row for row in rows for _ in range(num_generations)]
    share = len(repeated) // processes
    return repeated[process_index * share : (process_index + 1) * share]


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divides a number in proportion to weights, by largest remainders; ties go to the first."""
    exact = [divmod(total * weight, sum(weights)) for weight in weights]
    shares = [whole for whole, _ in exact]
    rest = sorted(range(len(weights)), key=lambda place: -exact[place][1])[: total - sum(shares)]
    for place in rest:
        shares[place] += 1
    return shares
