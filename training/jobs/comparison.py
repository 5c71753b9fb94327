"""Comparison of trainings over their seeds: held-out measures before and after, gains, costs, paired differences."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.significance import MeanEstimate, paired_t_test, t_estimate
from r1ranker_ir.files.records import OpenRecord
from r1ranker_ir.models.checkpoints import SETTINGS_FILE

from .json_records import read_record
from .record import HeldOutRanks, TrainingRecord, read_ranks

logger = logging.getLogger(__name__)

MEASURE = "RR"
"""What gains and paired differences are about."""


@dataclass(frozen=True)
class TrainedRun:
    """One finished training: its record, and how each held-out list was ranked."""

    folder: Path
    record: TrainingRecord
    ranks: HeldOutRanks | None

    @property
    def held_out(self) -> tuple[Any, ...]:
        """Which lists it was measured with: the files' SHA-256, and how many lists were taken."""
        return *(file.sha256 for file in self.record.held_out), self.record.arguments.get("held_out_queries")

    @property
    def gain(self) -> float | None:
        """By how many percent the measure has risen; `None` where it was 0."""
        before, after = self.record.before[MEASURE], self.record.after[MEASURE]
        return 100 * (after - before) / before if before else None


@dataclass(frozen=True)
class MethodSummary:
    """What one method reaches over its runs; `None` where a run does not say."""

    label: str
    runs: tuple[TrainedRun, ...]
    generated_tokens: MeanEstimate | None
    seconds: MeanEstimate | None
    gain: MeanEstimate | None
    before: Mapping[str, MeanEstimate]
    after: Mapping[str, MeanEstimate]

    @property
    def files(self) -> tuple[str, ...]:
        """The held-out files of all of its runs, where there are several and each list's is known."""
        found = {tuple(dict.fromkeys(run.ranks.files)) if run.ranks else () for run in self.runs}
        return next(iter(found)) if len(found) == 1 and len(min(found)) > 1 else ()

    def of_file(self, file: str) -> tuple[float, MeanEstimate]:
        """The mean RR of a held-out file's lists before, in the first run, and after, over the runs."""
        kept = [run.ranks for run in self.runs if run.ranks is not None]
        places = [place for place, name in enumerate(kept[0].files) if name == file]
        before = [kept[0].before[place] for place in places if kept[0].before]
        after = [fmean(ranks.after[place] for place in places) for ranks in kept]
        return fmean(before) if before else math.nan, t_estimate(after)


@dataclass(frozen=True)
class PairedDifference:
    """How much better one method ranks the same held-out lists than another: all of them, or those of one `file`.

    Interval and test are about other lists, with the runs that there are; how much runs differ, the summaries say.
    """

    first: str
    second: str
    difference: MeanEstimate
    p_value: float
    better: int
    worse: int
    lists: int
    file: str = ""


@dataclass(frozen=True)
class Comparison:
    """Methods side by side."""

    methods: tuple[MethodSummary, ...]
    differences: tuple[PairedDifference, ...]


class _Settings(OpenRecord):
    training: TrainingRecord | None = None


def read_run(folder: str | Path) -> TrainedRun:
    """Reads what a trained folder says of its training."""
    path = Path(folder) / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{str(folder)!r} holds no {SETTINGS_FILE}: give folders of finished trainings")
    record = read_record(_Settings, path, "train again").training
    if record is None:
        raise InputError(f"{path} holds no record of a training: give folders that r1ranker train has written")
    if MEASURE not in record.before or MEASURE not in record.after:
        raise InputError(f"{str(folder)!r} holds no held-out measures: train with held_out_files")
    return TrainedRun(Path(folder), record, read_ranks(folder))


def summarise(label: str, runs: Sequence[TrainedRun]) -> MethodSummary:
    """Takes the runs of one method together: means of the measures that all of them have."""
    seeds = [run.record.seed for run in runs]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        logger.warning(
            "%s: %s more than once: runs of one seed are not independent, and the interval is too small",
            label,
            ", ".join(f"seed {seed}" for seed in twice),
        )

    def estimated(rows: Sequence[Mapping[str, float | None]]) -> dict[str, MeanEstimate]:
        columns = {name: [row.get(name) for row in rows] for name in rows[0]}
        known = {name: [value for value in values if value is not None] for name, values in columns.items()}
        return {name: t_estimate(values) for name, values in known.items() if len(values) == len(rows)}

    costs = estimated(
        [{"tokens": run.record.generated_tokens, "seconds": run.record.seconds, "gain": run.gain} for run in runs]
    )
    before, after = (estimated([getattr(run.record, name) for run in runs]) for name in ("before", "after"))
    tokens, seconds, gain = (costs.get(name) for name in ("tokens", "seconds", "gain"))
    return MethodSummary(label, tuple(runs), tokens, seconds, gain, before, after)


def paired_difference(first: MethodSummary, second: MethodSummary, file: str = "") -> PairedDifference | None:
    """Compares two methods list by list, by the mean over the runs of each; with a `file`, on the lists of that one.

    `None` if a run keeps no ranks of its lists, or other lists were ranked.
    """
    runs = (*first.runs, *second.runs)
    kept = [run.ranks for run in runs if run.ranks is not None]
    lists = {(*run.held_out, *(run.ranks.ids if run.ranks else ())) for run in runs}
    if len(kept) < len(runs) or len(lists) > 1 or len(kept[0].ids) < 2:
        return None
    one, other = (
        [fmean(values) for values in zip(*(each.after for each in some), strict=True)]
        for some in (kept[: len(first.runs)], kept[len(first.runs) :])
    )
    places = [place for place in range(len(one)) if not file or kept[0].files[place] == file]
    if len(places) < 2:
        return None
    differences = [one[place] - other[place] for place in places]
    better, worse = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    mean, p_value = t_estimate(differences), paired_t_test(differences)
    return PairedDifference(first.label, second.label, mean, p_value, better, worse, len(differences), file)


def compare(runs: Mapping[str, Sequence[TrainedRun]]) -> Comparison:
    """Compares methods, each a label with its runs."""
    every = [run for each in runs.values() for run in each]
    folders = [run.folder.resolve() for run in every]
    if not every:
        raise InputError("nothing to compare: give at least one trained folder")
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise InputError(f"{str(twice)!r} is given twice: give each trained folder once")
    if len({run.held_out for run in every}) > 1:
        logger.warning("the trainings were not measured with the same held-out lists: their measures differ for that")
    methods = [summarise(label, each) for label, each in runs.items()]
    pairs = [
        paired_difference(one, other, file)
        for one, other in combinations(methods, 2)
        for file in ("", *(one.files if one.files == other.files else ()))
    ]
    return Comparison(tuple(methods), tuple(pair for pair in pairs if pair is not None))
