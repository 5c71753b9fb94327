"""How training on one task moves the others, as a pilot has measured it, and the order of tasks that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.significance import Interval, MeanEstimate, t_estimate
from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.files.records import OpenRecord

from .json_records import read_record
from .record import DataFile, describe_file

TRANSFERS_FILE = "transfers.json"
MOST_TASKS = 12
"""The best order is found exactly, in time that doubles with each task."""
MEASURE = "RR"
"""What transfers are differences of, list by list."""


class Estimate(OpenRecord):
    """A mean difference over a task's held-out lists, and its 95% interval; `None` for a single list."""

    mean: float
    low: float | None = None
    high: float | None = None

    def as_mean(self) -> MeanEstimate:
        """The same as measures have it."""
        return MeanEstimate(self.mean, None if self.low is None or self.high is None else Interval(self.low, self.high))


class Task(OpenRecord):
    """A task of a pilot: what it is trained on and measured with, and the measure before any training."""

    name: str
    data: DataFile
    held_out: DataFile
    lists: int
    before: float


class Transfers(OpenRecord):
    """What a pilot has found; `transfers[i][j]` is what training on task i did to task j."""

    method: str
    base_model: str
    seed: int
    steps: int
    measure: str = MEASURE
    tasks: list[Task] = Field(min_length=2)
    transfers: list[list[Estimate]]
    order: list[str]
    lead: Estimate

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.tasks)
        if [len(row) for row in self.transfers] != [count] * count:
            raise ValueError(f"transfers need {count} rows of {count} values, one for each task")
        if sorted(self.order) != sorted(task.name for task in self.tasks):
            raise ValueError("order must name each task once")
        return self

    def sheet(self) -> Sheet:
        """The matrix as a table."""
        names = [task.name for task in self.tasks]
        rows = [("before any", *(f"{task.before:.4f}" for task in self.tasks))]
        rows += [
            (name, *(each.as_mean().text("+") for each in row)) for name, row in zip(names, self.transfers, strict=True)
        ]
        title = f"{self.measure} on held-out lists of each task after {self.steps} steps on one, less before (95%)"
        return Sheet(title, ("trained on", *names), tuple(rows))

    def lines(self) -> list[str]:
        """The order, and how sure it is."""
        low, high = self.lead.low, self.lead.high
        sure = low is not None and high is not None and not low <= 0 <= high
        said = "" if sure else ": the interval holds 0, so these lists do not tell the two orders apart"
        return [
            f"order: {', '.join(self.order)}",
            f"what later tasks do to earlier ones, less in the reverse order: {self.lead.as_mean().text('+')}{said}",
        ]


def best_order(transfers: Sequence[Sequence[float]]) -> list[int]:
    """Orders tasks so that those trained later move those trained earlier upward, or harm them least.

    It is the order with the greatest sum of `transfers[later][earlier]` over all pairs, the backward transfer that
    Omni-Thinker (arXiv 2507.14783) orders tasks by; of equal orders the one nearest to the tasks' own. Exact, by
    dynamic programming over the sets that may come first.
    """
    count = len(transfers)
    if count > MOST_TASKS:
        raise InputError(f"{count} tasks can't be put in order: give at most {MOST_TASKS}")
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for chosen in range(1, 2**count):
        ways = []
        for last in range(count):
            if chosen >> last & 1:
                value, before = best[chosen ^ 1 << last]
                # Rounded, so that orders whose sums differ by the order of adding count as equal.
                total = round(value + math.fsum(transfers[last][earlier] for earlier in before), 12)
                ways.append((total, tuple(-place for place in (*before, last))))
        value, negated = max(ways)
        best.append((value, tuple(-place for place in negated)))
    return list(best[-1][1])


def lead_over_reverse(differences: Sequence[Sequence[Sequence[float]]], order: Sequence[int]) -> Estimate:
    """How much more later tasks add to earlier ones in an order than in its reverse.

    `differences[i][j]` are those of training on task i on the lists of task j. The lists of different tasks are
    independent: half-widths of intervals are added in squares.
    """
    parts = []
    for place, earlier in enumerate(order):
        signs = {each: 1 if later > place else -1 for later, each in enumerate(order) if each != earlier}
        columns = zip(*(differences[trained][earlier] for trained in signs), strict=True)
        parts.append(t_estimate([math.fsum(map(_times, signs.values(), values)) for values in columns]))
    mean = math.fsum(part.mean for part in parts)
    intervals = [part.interval for part in parts if part.interval is not None]
    if len(intervals) < len(parts):
        return Estimate(mean=mean)
    half = math.sqrt(math.fsum((each.high - each.low) ** 2 / 4 for each in intervals))
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def _times(sign: int, value: float) -> float:
    return sign * value


def estimate_of(differences: Sequence[float]) -> Estimate:
    """The mean of differences with its interval."""
    found = t_estimate(differences)
    low, high = found.interval or (None, None)
    return Estimate(mean=found.mean, low=low, high=high)


def found_transfers(tasks: Sequence[Task], differences: Sequence[Sequence[Sequence[float]]], **told: Any) -> Transfers:
    """Puts together what a pilot has measured."""
    matrix = [[estimate_of(cell) for cell in row] for row in differences]
    order = best_order([[cell.mean for cell in row] for row in matrix])
    lead = lead_over_reverse(differences, order)
    named = [tasks[place].name for place in order]
    return Transfers(tasks=list(tasks), transfers=matrix, order=named, lead=lead, **told)


def turns_of(path: str | Path, train_files: Sequence[str | Path]) -> list[int]:
    """Finds a pilot's order of files: their places, by their contents."""
    found = read_record(Transfers, Path(path), "run r1ranker train pilot again", finite=True)
    known = {task.name: task.data.sha256 for task in found.tasks}
    digests = [describe_file(each).sha256 for each in train_files]
    if sorted(digests) != sorted(known.values()):
        strange = [str(each) for each, digest in zip(train_files, digests, strict=True) if digest not in known.values()]
        told = f"{strange[0]!r} is not among them" if strange else "give each of them once"
        raise InputError(
            f"transfers {str(path)!r} were measured with {', '.join(task.data.name for task in found.tasks)}, and "
            f"{told}: run r1ranker train pilot with these train_files"
        )
    return [digests.index(known[name]) for name in found.order]
