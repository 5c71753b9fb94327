"""The verbs `r1ranker train …`: fine-tuning, GRPO, PPO, routers; curves, and comparisons."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages, print_wide
from r1ranker_ir.cli.parameters import StatedOf, with_fields
from r1ranker_ir.files.terminal_text import console, echo
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.training.trainers.distillation import Distillation

StatedDistillation = Annotated[Mapping[str, Any], StatedOf(Distillation)]

train = typer.Typer(
    help="Train a ranker: SFT, GRPO or PPO by a recipe; draw what was logged, and compare trainings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_RUNS = argument(..., "Trained folders; those of one label, such as seeds, are averaged.", metavar="[LABEL=]FOLDER...")
_METHODS = {
    "sft": "Fine-tune on prompts and completions: r1ranker train sft --config tiny-sft.",
    "grpo": "Reinforce by GRPO: r1ranker train grpo --config tiny-iranker-grpo --model out/sft.",
    "ppo": "Reinforce by PPO: r1ranker train ppo --config tiny-iranker-ppo --model out/sft.",
    "likelihood": "Distil soft gains into query likelihoods: r1ranker train likelihood --config small-likelihood.",
    "episodes": "Reinforce by GRPO on whole eliminations: r1ranker train episodes --config tiny-episodes-grpo.",
}


def run_training(context: typer.Context) -> None:
    """Reads the arguments of a training and runs it."""
    method, arguments = str(context.command.name), context.args
    # Before the libraries are imported, whose bars have no other switch.
    progress = Messages(quiet="--quiet" in arguments).start()
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
    Messages(quiet=quiet).say(train(parsed, progress=progress and not quiet).line())


for _method, _help in _METHODS.items():
    # The parser of TRL reads what stands after these verbs: --help, too.
    _unparsed = {"allow_extra_args": True, "ignore_unknown_options": True}
    train.command(_method, help=_help, context_settings=_unparsed, add_help_option=False)(run_training)


@train.command("pilot", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train_pilot(context: typer.Context) -> None:
    """Measure how training on one task moves the others, and derive an order: r1ranker train pilot sft --config …

    Takes a method and its arguments (r1ranker train METHOD --help). Each of --train_files is a task, --held_out_files
    has a file for each, and --max_steps is the length of each short training. Writes transfers.json into --output_dir,
    for --curriculum tasks --transfers.
    """
    method, *arguments = context.args or [""]
    if method not in _METHODS:
        raise typer.BadParameter(f"the method is {method!r}: give one of {', '.join(_METHODS)} before its arguments")
    messages = Messages(quiet="--quiet" in arguments)
    progress = messages.start()
    logging.getLogger("r1ranker_ir").setLevel(logging.WARNING if messages.quiet else logging.INFO)
    from r1ranker_ir.training.jobs.pilot import run_pilot
    from r1ranker_ir.training.jobs.recipe_parser import CommandLineError

    try:
        found = run_pilot(method, arguments, progress=progress)
    except CommandLineError as error:
        raise typer.BadParameter(str(error)) from error
    print_wide(found.sheet().table())
    for line in found.lines():
        messages.say(line)


@train.command("router")
@with_fields
def train_router(
    *,
    requests: Path = argument(..., "Requests of r1ranker data routing, to learn from.", metavar="REQUESTS"),
    output: Path = option(..., "Folder of the router to write."),
    held_out: Path | None = option(
        None, "Requests to measure it on once; their questions are not learned.", unset="none"
    ),
    told: StatedDistillation,
    overwrite: bool = option(False, "Replace a router in the folder."),
    messages: Messages = MESSAGES,
) -> None:
    """Distil what answers were worth into a small classifier that chooses a language model by the question.

    Softmaxes of utilities are its labels. RoutingAdapter("FOLDER") and r1ranker suite use the folder.
    """
    messages.start()
    from r1ranker_ir.training.jobs.router import RouterJob
    from r1ranker_ir.training.jobs.router import train_router as lines_of

    for line in lines_of(RouterJob(requests, output, held_out, Distillation(**told), overwrite)):
        messages.say(line)


@train.command("curves")
@with_fields
def train_curves(
    runs: list[str] = _RUNS,
    output: Path = option(..., "PNG to write."),
    x: str = option("step", "What is logged to draw over: step, generated_tokens, …"),
    title: str = option("", "Stands over the picture.", unset=None),
    messages: Messages = MESSAGES,
) -> None:
    """Draw the curves of one or more trainings into one picture."""
    messages.start()
    from r1ranker_ir.training.jobs.curves import plot_curves, read_history

    named = _by_label(runs, output)
    histories = {label: [read_history(folder) for folder in folders] for label, folders in named.items()}
    plot_curves(histories, output, x=x, title=title)


@train.command("compare")
@with_fields
def train_compare(
    runs: list[str] = _RUNS,
    output: list[Path] | None = option(None, "Also write the tables: .md, .json or .txt; may be given repeatedly."),
    messages: Messages = MESSAGES,
) -> None:
    """Compare trainings: held-out measures before and after, gains, costs, accuracy by list length, paired tests."""
    messages.start()
    from r1ranker_ir.training.jobs import comparison_tables
    from r1ranker_ir.training.jobs.comparison import compare, read_run

    comparison_tables.check_outputs(output or ())
    named = _by_label(runs, *(output or ()))
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
        os.environ.setdefault("TQDM_DISABLE", "1")  # as `Messages.start` does in each command, but too late
    from r1ranker_ir.training.demo.demo import DemoSettings, run_train_demo

    def run_command(arguments: Sequence[str]) -> None:
        ctx.find_root().command.main(list(arguments), prog_name="r1ranker")

    screen = console(soft_wrap=not sys.stdout.isatty())
    run_train_demo(screen, DemoSettings(output), run_command, overwrite=overwrite)


@train.command("recipes")
def train_recipes() -> None:
    """List the packaged recipes, what each is, and where they lie."""
    from r1ranker_ir.training.jobs.recipe_files import RECIPES, describe_recipes

    for name, words in describe_recipes().items():
        echo(f"{name:24} {words}")
    echo(f"\nin {RECIPES}")


def _by_label(runs: Sequence[str], *outputs: Path) -> dict[str, list[str]]:
    """Label to trained folders, in the order given; an unlabelled folder has its name. None may be written over."""
    from r1ranker_ir.files.paths import NamedFile, check_outputs, checkpoint_inputs

    folders: dict[str, list[str]] = {}
    for run in runs:
        label, equals, folder = run.partition("=")
        folders.setdefault(label if equals else Path(run).resolve().name, []).append(folder if equals else run)
    read = [file for each in folders.values() for folder in each for file in checkpoint_inputs("RUN", folder)]
    check_outputs([NamedFile("--output", path) for path in outputs], read)
    return folders
