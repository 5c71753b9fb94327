"""A pilot before a training on several tasks: a short training on each, measured on the held-out lists of all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.sheets import tables_text
from r1ranker_ir.files.locks import folder_lock
from r1ranker_ir.files.partial import write_whole

from .arguments import TrainingArguments, parse_arguments
from .command import start_record, train
from .comparison import read_run
from .held_out import HeldOutResult
from .json_records import write_record
from .output_folder import output_folder
from .record import HeldOutRanks, describe_file, read_ranks
from .rows import held_out_by_file
from .trained_folder import is_finished
from .transfers import MOST_TASKS, TRANSFERS_FILE, Task, Transfers, found_transfers

logger = logging.getLogger(__name__)

TABLE_FILE = "transfers.txt"


def run_pilot(method: str, told: Sequence[str], *, progress: bool = False) -> Transfers:
    """Trains on each task alone, in a folder of its own, and writes how that moved all of them.

    The arguments are those of the method: of `train_files` each is a task, and `held_out_files` has a file for each.
    What an earlier call has finished with the same arguments is not trained again.
    """
    given = parse_arguments(method, told)
    names = _task_names(given)
    folder = output_folder(given)
    lists = held_out_by_file(given.data)
    ends = list(accumulate(map(len, lists), initial=0))
    before: HeldOutResult | None = None
    differences, first = [], list[float]()
    with folder_lock(folder, "output_dir"):
        for place, name in enumerate(names):
            # Read anew: a trainer changes the arguments that it is given.
            one = _of_one(parse_arguments(method, told), place, folder / name)
            if is_finished(folder / name) and not given.run.overwrite:
                _check_same(folder / name, one)
                logger.info("%s is trained already: %s", name, folder / name)
            else:
                logger.info("pilot %d of %d: %s", place + 1, len(names), name)
                before = train(one, progress=progress, before=before).before
            ranks = _ranks_of(folder / name, ends[-1])
            first = first or ranks.before
            moved = [after - earlier for earlier, after in zip(ranks.before, ranks.after, strict=True)]
            differences.append([moved[start:end] for start, end in pairwise(ends)])
        tasks = [
            Task(
                name=name,
                data=describe_file(given.data.train_files[place]),
                held_out=describe_file((given.data.held_out_files or [])[place]),
                lists=len(lists[place]),
                before=fmean(first[ends[place] : ends[place + 1]]),
            )
            for place, name in enumerate(names)
        ]
        record = read_run(folder / names[0]).record
        found = found_transfers(
            tasks, differences, method=method, base_model=record.base_model, seed=record.seed, steps=record.steps
        )
        write_record(folder / TRANSFERS_FILE, found.model_dump(), "output_dir", indent=2)
        write_whole(folder / TABLE_FILE, tables_text([found.sheet()]) + "\n".join(found.lines()) + "\n")
    return found


def _task_names(given: TrainingArguments) -> list[str]:
    """Names the tasks by their files, after a check that there is something to measure."""
    data = given.data
    files, held_out = data.train_files, data.held_out_files or []
    if not 2 <= len(files) <= MOST_TASKS:
        raise InputError(f"a pilot is for 2 to {MOST_TASKS} tasks, and train_files names {len(files)} files")
    if len(held_out) != len(files):
        raise InputError(
            f"{len(files)} train_files and {len(held_out)} held_out_files: give a held-out file for each task, in the "
            "order of the tasks"
        )
    if given.trainer.max_steps <= 0:
        raise InputError("max_steps is not set: give the steps of each short training, the same for all tasks")
    if given.trainer.resume_from_checkpoint:
        raise InputError("leave resume_from_checkpoint out: a pilot goes on with the tasks that are not finished")
    names = [Path(path).stem for path in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two train_files are called {twice!r}, which names the task: rename one")
    return names


def _of_one(given: TrainingArguments, place: int, folder: Path) -> TrainingArguments:
    """The same training on one of the tasks, measured on all."""
    data = replace(
        given.data,
        train_files=[given.data.train_files[place]],
        train_weights=None,
        curriculum="shuffled",
        transfers=None,
    )
    given.trainer.output_dir = str(folder)
    return replace(given, data=data)


def _check_same(folder: Path, one: TrainingArguments) -> None:
    """Refuses a folder that another training has written."""
    before, now = read_run(folder).record, start_record(one, [])
    known = {"method", "base_model", "base_revision", "seed", "rewards", "arguments", "data", "held_out"}
    was, is_now = (each.model_dump(mode="json", include=known) for each in (before, now))
    if other := next((name for name in sorted(known) if was[name] != is_now[name]), None):
        raise InputError(
            f"{str(folder)!r} was trained with other {other}: give another output_dir, or overwrite to start anew"
        )


def _ranks_of(folder: Path, count: int) -> HeldOutRanks:
    ranks = read_ranks(folder)
    if ranks is None or len(ranks.before) != count:
        raise InputError(f"{str(folder)!r} does not say how all held-out lists were ranked: overwrite to start anew")
    return ranks
