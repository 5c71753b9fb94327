"""The training demo: a weak start by SFT, GRPO with the exclusion reward, then before and after on held-out queries.

Everything is made from what Python and this package bring along: a collection of Python's own documentation, a run,
samples, completions, two trained models. Each part is a command that is shown before it runs, and that can be run
alone. What an earlier call has finished is not done again.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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
    from . import cold_start, documentation
    from .report import find_example, gains_line, print_example, print_line, print_measures
except ImportError as error:
    raise missing_extra("The training demo", "train", error) from error

if TYPE_CHECKING:
    from rich.console import Console

OUTPUT = Path("out")
"""Where the tiny recipes look for their data, seen from the folder that the command is run in."""
_NOTE, _PICTURE = "train-demo.json", "train-demo.png"
_SCRIPTS = {module.__name__: module.main for module in (documentation, cold_start)}

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
    print_line(console, _INTRODUCTION)
    with folder_lock(out, "--output"):
        run_parts(console, demo_parts(settings), out / _NOTE, run_command, overwrite=overwrite)
    console.rule("before and after, on queries that were held out")
    weak, trained = out / "sft", out / "grpo"
    start, finish = read_run(weak), read_run(trained)
    print_measures(console, start, finish)
    print_example(console, find_example(out / "data" / "held_out.parquet", weak, trained))
    with whole_file(out / _PICTURE) as growing:
        shutil.copyfile(_curves(out), growing)
    console.rule("what is there now")
    print_line(console, f"reward and other curves   {out / _PICTURE}, the same as {_curves(out)}")
    print_line(console, f"the weak start            {weak}")
    print_line(console, f"the trained ranker        {trained}")
    print_line(console, f'to use it in Python       Reranker("{trained}", model_type="r1ranker-iterative")')
    seconds = time.perf_counter() - started
    print_line(console, f"\n{seconds / 60:.1f} minutes in all")
    print_line(console, gains_line(start, finish))


def demo_parts(settings: DemoSettings) -> list[Part]:
    """Lists what the demo runs."""
    out = settings.output
    return [*_data_parts(settings), *_completion_parts(out / "data"), *_training_parts(settings)]


def _data_parts(settings: DemoSettings) -> list[Part]:
    corpus, data = settings.output / "python-docs", settings.output / "data"
    run, held_out = data / "bm25.trec", data / "held_out.parquet"
    library = () if settings.library is None else ("--library", str(settings.library))
    sampling = f"--depth 200 --negatives random --candidates {settings.candidates} --seed 0 --hold-out 0.25"
    shared = ("r1ranker", "data", "--corpus", str(corpus), "--run", str(run), *sampling.split())
    shared += ("--hold-out-output", str(held_out))
    return [
        Part(
            "a collection: first lines of docstrings as queries, the rest of each as its relevant document",
            (*_script(documentation.__name__), "--output", str(corpus), "--most-words", "4", *library),
            (corpus / "corpus.jsonl", corpus / "queries.jsonl", corpus / "qrels" / "train.tsv"),
        ),
        Part(
            "a first stage, which the negatives come from",
            ("r1ranker", "search", "--corpus", str(corpus), "--depth", "200", "--output", str(run)),
            (run,),
        ),
        *(
            Part(
                f"samples: {words}; a quarter of the queries is held out",
                (*shared, "--strategy", strategy, "--output", str(data / name)),
                (data / name, held_out),
            )
            for words, strategy, name in (
                ("single steps", "iterative", "steps.parquet"),
                ("whole lists", "direct", "lists.parquet"),
            )
        ),
    ]


def _completion_parts(data: Path) -> list[Part]:
    return [
        Part(
            f"completions to start from: {words}",
            (*_script(cold_start.__name__), "--samples", str(data / name), "--output", str(data / f"cold-{name}"))
            + ("--lazy", "0.6", "--max-passage-tokens", "24"),
            (data / f"cold-{name}",),
        )
        for words, name in (("single steps", "steps.parquet"), ("whole lists", "lists.parquet"))
    ]


def _training_parts(settings: DemoSettings) -> list[Part]:
    out = settings.output
    data, weak, trained = out / "data", out / "sft", out / "grpo"
    sft: tuple[str, ...] = ("r1ranker", "train", "sft", "--config", "tiny-sft")
    grpo: tuple[str, ...] = ("r1ranker", "train", "grpo", "--config", "tiny-iranker-grpo", "--model", str(weak))
    if out != OUTPUT:
        # In the folder `out` all files lie where the recipes look for them.
        held_out = ("--held_out_files", str(data / "held_out.parquet"), "--output_dir")
        sft += ("--train_files", str(data / "cold-steps.parquet"), str(data / "cold-lists.parquet"))
        sft += (*held_out, str(weak))
        grpo += ("--train_files", str(data / "steps.parquet"), *held_out, str(trained))
    return [
        Part("a weak start, by supervised fine-tuning", sft + settings.sft, (weak / "config.json",), weak),
        Part("GRPO", grpo + settings.grpo, (trained / "config.json", _curves(out)), trained),
    ]


def _script(module: str) -> tuple[str, ...]:
    return ("python", "-m", module)


def _curves(output: Path) -> Path:
    return output / "grpo" / "curves.png"


def run_parts(
    console: Console, parts: Sequence[Part], note: Path, run_command: RunCommand, *, overwrite: bool = False
) -> None:
    """Runs commands one after the other, but for those that are finished.

    A part is finished if the note of an earlier call says that this very command has made what is there, and no part
    before it is run again.
    """
    states = {} if overwrite else _read_note(note)
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
        for path in part.makes:
            path.parent.mkdir(parents=True, exist_ok=True)
        _write_note(note, states | {line: "begun"})
        started = time.perf_counter()
        _run(command, run_command)
        states[line] = "finished"
        _write_note(note, states)
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


def _read_note(path: Path) -> dict[str, str]:
    return read_record(_Note, path, "start anew with --overwrite").root if path.exists() else {}


def _write_note(path: Path, states: Mapping[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another --output") from error
    write_record(path, states, "--output", indent=2)
