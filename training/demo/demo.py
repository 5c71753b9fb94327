"""The training demo: a weak start by SFT, GRPO with the exclusion reward, then before and after on held-out queries.

Everything is made from what Python and this package bring along: a collection of Python's own documentation, a run,
samples, completions, two trained models. Each part is a command that is shown before it runs, and that can be run
alone. What an earlier call has finished is not done again.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import RootModel

from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.files.locks import folder_lock
from r1ranker_ir.files.partial import whole_file
from r1ranker_ir.training.jobs.comparison import read_run
from r1ranker_ir.training.jobs.json_records import read_record, write_record

try:
    from r1ranker_ir.training.jobs.output_folder import CURVES_FILE

    from . import cold_start, documentation
    from .report import gains_line, print_line, print_measures
except ImportError as error:
    raise missing_extra("The training demo", "train", error) from error

if TYPE_CHECKING:
    from rich.console import Console

OUTPUT = Path("out")
"""Where the tiny recipes look for their data, seen from the folder that the command is run in."""
_NOTE, _PICTURE = "train-demo.json", "train-demo.png"
_SAMPLES = ("steps.parquet", "lists.parquet")
_SCRIPTS = {module.__name__: module.main for module in (documentation, cold_start)}

_Words = list[str | Path]
RunCommand = Callable[[Sequence[str]], None]
"""Runs `r1ranker` with what stands after it, in this process; a failure is a `SystemExit`."""

_INTRODUCTION = """\
First the embedded model is made worse: fine-tuned on completions that look the query's words up and then mostly
answer by position, it becomes a weak start. Then GRPO rewards exclusions that spare the relevant document."""


@dataclass(frozen=True)
class DemoSettings:
    """Where the demo works, and how much it does."""

    output: Path = OUTPUT
    library: Path | None = None
    candidates: int = 5
    sft: tuple[str, ...] = ()
    grpo: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One part of the demo."""

    title: str
    command: tuple[str, ...]
    makes: tuple[Path, ...]
    trains: Path | None = None


def run_train_demo(
    console: Console, settings: DemoSettings, run_command: RunCommand, *, overwrite: bool = False
) -> None:
    """Runs what is not finished yet, then shows before and after."""
    out, started = settings.output, time.perf_counter()
    weak, trained = out / "sft", out / "grpo"
    print_line(console, _INTRODUCTION)
    with folder_lock(out, "--output"):
        run_parts(console, demo_parts(settings), out / _NOTE, run_command, overwrite=overwrite)
    console.rule("before and after, on queries that were held out")
    start, finish = read_run(weak), read_run(trained)
    print_measures(console, start, finish)
    with whole_file(out / _PICTURE) as growing:
        shutil.copyfile(trained / CURVES_FILE, growing)
    console.rule("what is there now")
    for line in (
        f"reward and other curves   {out / _PICTURE}, the same as {trained / CURVES_FILE}",
        f"the weak start            {weak}",
        f"the trained ranker        {trained}",
        f'to use it in Python       Reranker("{trained}", model_type="r1ranker-iterative")',
        f"\n{(time.perf_counter() - started) / 60:.1f} minutes in all",
        gains_line(start, finish),
    ):
        print_line(console, line)


def demo_parts(settings: DemoSettings) -> list[Part]:
    """Lists what the demo runs."""
    out = settings.output
    corpus, data, weak, trained = out / "python-docs", out / "data", out / "sft", out / "grpo"
    run, held_out, steps, lists = (data / name for name in ("bm25.trec", "held_out.parquet", *_SAMPLES))
    library: _Words = [] if settings.library is None else ["--library", settings.library]
    sampling = f"--depth 200 --negatives random --candidates {settings.candidates} --seed 0 --hold-out 0.25"
    shared: _Words = [*"r1ranker data --corpus".split(), corpus, "--run", run, *sampling.split()]
    shared += ["--hold-out-output", held_out]
    lazily = ["--lazy", "0.6", "--max-passage-tokens", "24"]
    cold = [data / f"cold-{name}" for name in _SAMPLES]
    sft: _Words = ["r1ranker", "train", "sft", "--config", "tiny-sft"]
    grpo: _Words = ["r1ranker", "train", "grpo", "--config", "tiny-iranker-grpo", "--model", weak]
    if out != OUTPUT:
        # In the folder `out` all files lie where the recipes look for them.
        sft += ["--train_files", *cold, "--held_out_files", held_out, "--output_dir", weak]
        grpo += ["--train_files", steps, "--held_out_files", held_out, "--output_dir", trained]
    return [
        _part(
            "a collection: first lines of docstrings as queries, the rest of each as its relevant document",
            ["python", "-m", documentation.__name__, "--output", corpus, "--most-words", "4", *library],
            (corpus / "corpus.jsonl", corpus / "queries.jsonl", corpus / "qrels" / "train.tsv"),
        ),
        _part(
            "a first stage, which the negatives come from",
            ["r1ranker", "search", "--corpus", corpus, "--depth", "200", "--output", run],
            (run,),
        ),
        *(
            _part(
                f"samples: {words}; a quarter of the queries is held out",
                [*shared, "--strategy", strategy, "--output", output],
                (output, held_out),
            )
            for words, strategy, output in (("single steps", "iterative", steps), ("whole lists", "direct", lists))
        ),
        *(
            _part(
                f"completions to start from: {words}",
                ["python", "-m", cold_start.__name__, "--samples", samples, "--output", output, *lazily],
                (output,),
            )
            for words, samples, output in (("single steps", steps, cold[0]), ("whole lists", lists, cold[1]))
        ),
        _part("a weak start, by supervised fine-tuning", [*sft, *settings.sft], (weak / "config.json",), weak),
        _part("GRPO", [*grpo, *settings.grpo], (trained / "config.json", trained / CURVES_FILE), trained),
    ]


def _part(title: str, command: _Words, makes: tuple[Path, ...], trains: Path | None = None) -> Part:
    return Part(title, tuple(map(str, command)), makes, trains)


def run_parts(
    console: Console, parts: Sequence[Part], note: Path, run_command: RunCommand, *, overwrite: bool = False
) -> None:
    """Runs commands one after the other, but for those that are finished.

    A part is finished if the note of an earlier call says that this very command has made what is there, and no part
    before it is run again.
    """
    noted = not overwrite and note.exists()
    states = read_record(_Note, note, "start anew with --overwrite").root if noted else {}
    again = overwrite
    for number, part in enumerate(parts, start=1):
        line = shlex.join(part.command)
        console.print()
        console.rule(f"{number} of {len(parts)}: {part.title}", align="left")
        again = again or states.get(line) != "finished" or not all(path.exists() for path in part.makes)
        if not again:
            print_line(console, f"$ {line}\nfinished before")
            continue
        command = part.command
        if part.trains is not None and (overwrite or line in states):
            command += ("--overwrite",)
        elif part.trains is not None and part.trains.is_dir() and any(part.trains.iterdir()):
            raise InputError(
                f"{str(part.trains)!r} holds something else already: move it away, work in another folder with "
                "--output, or replace it with --overwrite"
            )
        print_line(console, f"$ {shlex.join(command)}")
        try:
            for path in (note, *part.makes):
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"can't make {error.filename!r}: {error.strerror}: choose another --output") from error
        write_record(note, states | {line: "begun"}, "--output", indent=2)
        started = time.perf_counter()
        _run(command, run_command)
        states[line] = "finished"
        write_record(note, states, "--output", indent=2)
        print_line(console, f"{time.perf_counter() - started:.0f} seconds")


def _run(command: Sequence[str], run_command: RunCommand) -> None:
    """Runs a command in this process, so that PyTorch and what is built on it are imported once for all of them."""
    try:
        if command[0] == "r1ranker":
            run_command(command[1:])
        else:
            _SCRIPTS[command[2]](command[3:])
    except SystemExit as stop:
        if stop.code:
            raise InputError(f"{shlex.join(command[:4])} … has failed; what it says stands above") from stop


class _Note(RootModel[dict[str, str]]):
    """What has become of each command."""
