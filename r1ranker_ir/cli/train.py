"""The verbs `r1ranker train …`: supervised fine-tuning, GRPO, PPO; curves of what was logged, and comparisons."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from r1ranker_ir.cli.console import print_wide, start
from r1ranker_ir.cli.options import QUIET, VERBOSE
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.files.terminal_text import console, echo
from r1ranker_ir.option_fields import argument, option

if TYPE_CHECKING:
    from r1ranker_ir.files.paths import NamedFile

train = typer.Typer(
    help="Train a ranker: SFT, GRPO or PPO by a recipe; draw what was logged, and compare trainings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# The parser of TRL reads what stands after these verbs: --help, too.
_UNPARSED = {"allow_extra_args": True, "ignore_unknown_options": True}


_METHODS = {
    "sft": "Fine-tune on prompts and completions: r1ranker train sft --config tiny-sft; --help lists all arguments.",
    "grpo": "Reinforce by GRPO: r1ranker train grpo --config tiny-iranker-grpo --model out/sft; --help lists all "
    "arguments.",
    "ppo": "Reinforce by PPO: r1ranker train ppo --config tiny-iranker-ppo --model out/sft; --help lists all "
    "arguments.",
    "likelihood": "Distil soft gains into query likelihoods: r1ranker train likelihood --config small-likelihood.",
    "episodes": "Reinforce by GRPO on whole eliminations: r1ranker train episodes --config tiny-episodes-grpo --model "
    "out/sft.",
}


def _verb_of(method: str) -> Callable[[typer.Context], None]:
    def verb(context: typer.Context) -> None:
        run_training(method, context.args)

    return verb


for _method, _help in _METHODS.items():
    train.command(_method, help=_help, context_settings=_UNPARSED, add_help_option=False)(_verb_of(_method))


@train.command("curves")
@with_fields
def train_curves(
    runs: list[str] = argument(
        ...,
        "Trained folders; those of one label, such as seeds, become a mean with its range.",
        metavar="[LABEL=]FOLDER...",
    ),
    output: Path = option(..., "PNG to write."),
    x: str = option("step", "What is logged to draw over: step, generated_tokens, …"),
    title: str = option("", "Stands over the picture.", unset=None),
    verbose: bool = VERBOSE,
    quiet: bool = QUIET,
) -> None:
    """Draw the curves of one or more trainings into one picture."""
    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.files.paths import NamedFile, check_outputs
    from r1ranker_ir.training.jobs.curves import plot_curves, read_history

    named = labelled(runs)
    check_outputs((NamedFile("--output", output),), _inputs(named))
    histories = {label: [read_history(folder) for folder in folders] for label, folders in named.items()}
    plot_curves(histories, output, x=x, title=title)


@train.command("compare")
@with_fields
def train_compare(
    runs: list[str] = argument(
        ...,
        "Trained folders; those of one label, such as seeds, become a mean with its 95% interval.",
        metavar="[LABEL=]FOLDER...",
    ),
    output: list[Path] | None = option(None, "Also write the tables: .md, .json or .txt; may be given repeatedly."),
    verbose: bool = VERBOSE,
    quiet: bool = QUIET,
) -> None:
    """Compare trainings: held-out measures before and after, gains, costs, accuracy by list length, paired tests."""
    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.files.paths import NamedFile, check_outputs
    from r1ranker_ir.training.jobs import comparison_tables
    from r1ranker_ir.training.jobs.comparison import compare, read_run

    named = labelled(runs)
    comparison_tables.check_outputs(output or ())
    check_outputs([NamedFile("--output", path) for path in output or ()], _inputs(named))
    compared = compare({label: [read_run(folder) for folder in given] for label, given in named.items()})
    for sheet in comparison_tables.sheets(compared):
        print_wide(sheet.table())
    for path in output or ():
        comparison_tables.write_comparison(compared, path)


@train.command("demo")
@with_fields
def train_demo(
    ctx: typer.Context,
    output: Path = option(Path("out"), "Folder for all that is made."),
    overwrite: bool = option(False, "Do again what is finished."),
) -> None:
    """Make data, a weak start and a trained ranker of the embedded model; show all commands, and before and after.

    Takes some minutes on two CPU cores. What an earlier call has finished is not done again.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # as in `start`, which each command calls itself, but too late
    from r1ranker_ir.training.demo.demo import DemoSettings, run_train_demo

    command = ctx.find_root().command

    def run_command(arguments: Sequence[str]) -> None:
        command.main(list(arguments), prog_name="r1ranker")

    screen = console(soft_wrap=not sys.stdout.isatty())
    run_train_demo(screen, DemoSettings(output), run_command, overwrite=overwrite)


@train.command("recipes")
def train_recipes() -> None:
    """List the packaged recipes, what each is, and where they lie."""
    from r1ranker_ir.training.jobs.recipe_files import RECIPES, describe_recipes

    for name, words in describe_recipes().items():
        echo(f"{name:24} {words}")
    echo(f"\nin {RECIPES}")


def _inputs(named: Mapping[str, Sequence[str]]) -> Iterator[NamedFile]:
    from r1ranker_ir.files.paths import checkpoint_inputs

    return (file for folders in named.values() for folder in folders for file in checkpoint_inputs("RUN", folder))


def labelled(runs: Sequence[str]) -> dict[str, list[str]]:
    """Label to trained folders, both in the order given: each `LABEL=FOLDER`, or a folder labelled with its name."""
    folders: dict[str, list[str]] = {}
    for run in runs:
        label, equals, folder = run.partition("=")
        folders.setdefault(label if equals else Path(run).resolve().name, []).append(folder if equals else run)
    return folders


def run_training(method: str, arguments: Sequence[str]) -> None:
    """Reads the arguments of a training and runs it."""
    # Before the libraries are imported, whose bars have no other switch.
    progress = start(verbose=False, quiet="--quiet" in arguments)
    from r1ranker_ir.training.jobs.arguments import build_parser, parse_arguments
    from r1ranker_ir.training.jobs.recipe_parser import CommandLineError

    if "--help" in arguments or "-h" in arguments:
        echo(build_parser(method).format_help())
        return
    # Set by TRL, asked for by TRL.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        parsed = parse_arguments(method, arguments)
    except CommandLineError as error:
        raise typer.BadParameter(str(error)) from error
    from r1ranker_ir.training.jobs.command import train

    # Of several processes one talks.
    quiet = parsed.run.quiet or parsed.trainer.process_index > 0
    level = logging.WARNING if quiet else logging.DEBUG if parsed.run.verbose else logging.INFO
    logging.getLogger("r1ranker_ir").setLevel(level)
    summary = train(parsed, progress=progress and not quiet)
    if not quiet:
        echo(summary.line(), err=True)
