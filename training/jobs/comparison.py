"""Comparison of trainings over their seeds: held-out measures before and after, gains, costs, paired differences."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.significance import LEVEL as LEVEL
from r1ranker_ir.eval.measuring.significance import paired_t_test, t_interval
from r1ranker_ir.files.records import OpenRecord
from r1ranker_ir.models.checkpoints import SETTINGS_FILE

from .held_out_file import HeldOutRanks, read_ranks
from .json_records import read_record
from .record import ReadRecord

logger = logging.getLogger(__name__)

MEASURE = "RR"
"""What gains and paired differences are about."""


@dataclass(frozen=True)
class TrainedRun:
    """One finished training.

    `before` and `after` are held-out measures of the base model and of the trained one; `held_out` says which lists
    they were measured with: the files' SHA-256, and how many lists were taken.
    """

    folder: Path
    seed: int
    generated_tokens: int | None
    seconds: float | None
    before: Mapping[str, float]
    after: Mapping[str, float]
    held_out: tuple[Any, ...]
    ranks: HeldOutRanks | None

    @property
    def gain(self) -> float | None:
        """By how many percent the measure has risen; `None` where it was 0."""
        before, after = self.before[MEASURE], self.after[MEASURE]
        return 100 * (after - before) / before if before else None


@dataclass(frozen=True)
class Estimate:
    """A mean, and half of its interval: `None` for a single value."""

    mean: float
    margin: float | None
    count: int

    def as_json(self) -> dict[str, float | int | None]:
        """Mean, both ends of the interval, and the number of values."""
        margin = self.margin
        ends = (None, None) if margin is None else (self.mean - margin, self.mean + margin)
        return {"mean": self.mean, "low": ends[0], "high": ends[1], "count": self.count}


@dataclass(frozen=True)
class MethodSummary:
    """What one method reaches over its runs."""

    label: str
    runs: tuple[TrainedRun, ...]
    generated_tokens: Estimate | None
    seconds: Estimate | None
    gain: Estimate | None
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]


@dataclass(frozen=True)
class PairedDifference:
    """How much better one method ranks the same held-out lists than another.

    Interval and test are about other lists, with the runs that there are; how much runs differ, the summaries say.
    """

    first: str
    second: str
    difference: Estimate
    p_value: float
    better: int
    worse: int


@dataclass(frozen=True)
class Comparison:
    """Methods side by side."""

    methods: tuple[MethodSummary, ...]
    differences: tuple[PairedDifference, ...]


def read_run(folder: str | Path) -> TrainedRun:
    """Reads what a trained folder says of its training."""
    folder = Path(folder)
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{str(folder)!r} holds no {SETTINGS_FILE}: give folders of finished trainings")
    record = read_record(_Settings, path, "train again").training
    if record is None:
        raise InputError(f"{path} holds no record of a training: give folders that r1ranker train has written")
    if MEASURE not in record.before or MEASURE not in record.after:
        raise InputError(f"{str(folder)!r} holds no held-out measures: train with held_out_files")
    return TrainedRun(
        folder=folder,
        seed=record.seed,
        generated_tokens=record.generated_tokens,
        seconds=record.seconds,
        before=record.before,
        after=record.after,
        held_out=(tuple(file.sha256 for file in record.held_out), record.arguments.get("held_out_queries")),
        ranks=read_ranks(folder),
    )


class _Settings(OpenRecord):
    training: ReadRecord | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Estimates a mean, with Student's t for the interval."""
    interval = t_interval(values)
    margin = None if interval is None else (interval.high - interval.low) / 2
    return Estimate(math.fsum(values) / len(values), margin, len(values))


def _all_or_none(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return estimate(known) if known and len(known) == len(values) else None


def summarise(label: str, runs: Sequence[TrainedRun]) -> MethodSummary:
    """Takes the runs of one method together: means of the measures that all of them have."""
    seeds = [run.seed for run in runs]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        logger.warning(
            "%s: %s more than once: runs of one seed are not independent, and the interval is too small",
            label,
            ", ".join(f"seed {seed}" for seed in twice),
        )
    before, after = (
        {name: estimate([each[name] for each in measured]) for name in measured[0] if all(name in m for m in measured)}
        for measured in ([run.before for run in runs], [run.after for run in runs])
    )
    tokens, seconds, gain = (
        _all_or_none([getattr(run, name) for run in runs]) for name in ("generated_tokens", "seconds", "gain")
    )
    return MethodSummary(label, tuple(runs), tokens, seconds, gain, before, after)


def paired_difference(first: MethodSummary, second: MethodSummary) -> PairedDifference | None:
    """Compares two methods list by list, by the mean over the runs of each.

    `None` if a run keeps no ranks of its lists, or other lists were ranked.
    """
    runs = (*first.runs, *second.runs)
    kept = [run.ranks for run in runs if run.ranks is not None]
    if len(kept) < len(runs) or len({each.ids for each in kept}) > 1 or len(kept[0].ids) < 2:
        return None
    if len({run.held_out for run in runs}) > 1:
        return None
    one, other = (
        [math.fsum(values) / len(values) for values in zip(*(each.after for each in some), strict=True)]
        for some in (kept[: len(first.runs)], kept[len(first.runs) :])
    )
    differences = [ours - theirs for ours, theirs in zip(one, other, strict=True)]
    better, worse = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    p_value = paired_t_test(differences)
    return PairedDifference(first.label, second.label, estimate(differences), p_value, better, worse)


def compare(runs: Mapping[str, Sequence[TrainedRun]]) -> Comparison:
    """Compares methods, each a label with its runs."""
    if not runs or not all(runs.values()):
        raise InputError("nothing to compare: give at least one trained folder")
    folders = [run.folder.resolve() for each in runs.values() for run in each]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise InputError(f"{str(twice)!r} is given twice: give each trained folder once")
    if len({run.held_out for each in runs.values() for run in each}) > 1:
        logger.warning("the trainings were not measured with the same held-out lists: their measures differ for that")
    methods = [summarise(label, each) for label, each in runs.items()]
    pairs = [paired_difference(*pair) for pair in combinations(methods, 2)]
    return Comparison(tuple(methods), tuple(pair for pair in pairs if pair is not None))
