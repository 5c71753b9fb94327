"""The verb `r1ranker data`: training samples from judgments and runs, request files, Ranking-bench or traces.

Its own verbs, such as `r1ranker data recommendation`, write request files; each has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import StatedOf, is_stated, refuse_stated, with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option
from r1ranker_ir.training.data.arguments import DataCommandArguments
from r1ranker_ir.training.data.samples import Sampling
from r1ranker_ir.training.data.teacher import Teaching

StatedArguments = Annotated[Mapping[str, Any], StatedOf(DataCommandArguments)]
StatedSampling = Annotated[Mapping[str, Any], StatedOf(Sampling)]
StatedTeaching = Annotated[Mapping[str, Any], StatedOf(Teaching)]

_OF_TRACES_ALONE = {"traces", "best", "min_ndcg"}
_OF_TEACHERS_ALONE = ("temperature", "share", "margin")
_WITH_TRACES = _OF_TRACES_ALONE | {"corpus", "split", "test_corpora", "leaks", "output", "verbose", "quiet"}

data = typer.Typer(rich_markup_mode=None)


@data.callback(invoke_without_command=True)
@with_fields
def make_samples(
    *,
    context: typer.Context,
    output: Path | None = option(None, "Parquet file of samples to write; of --traces also JSON Lines (.jsonl)."),
    asked: StatedArguments,
    sampling: StatedSampling,
    traces: list[Path] | None = option(
        None, "Trace whose steps are kept where they fit the corpus's judgments; repeatable, the first seed's first."
    ),
    teacher: str | None = option(
        None, "A sentence encoder (folder or hub name, mean pooling) whose similarities become soft gains."
    ),
    teaching: StatedTeaching,
    best: int = option(1, "With --traces: how many tries of each step are kept.", least=1),
    min_ndcg: float = option(0.0, "With --traces: the least nDCG@10 of an ordering that is kept.", least=0.0, most=1.0),
    messages: Messages = MESSAGES,
) -> None:
    """Make training samples of judgments and a run, of ranking requests, of Ranking-bench, or of a model's traces.

    Same input and seed give the same file. Queries without a positive or a negative are dropped and counted. The
    commands below make ranking requests of other data; their options stand after their names.
    """
    given = _given(context)
    if context.invoked_subcommand is not None:
        if given:
            misplaced, verb = next(iter(given.values())), context.invoked_subcommand
            raise typer.BadParameter(f"{misplaced} stands before {verb!r}: write the options after it")
        return
    if output is None:
        raise typer.BadParameter("it is missing: name the file of samples to write", param_hint="--output")
    progress = messages.start()
    _check_traces(given)
    if teacher is None:
        refuse_stated(context, dict.fromkeys(_OF_TEACHERS_ALONE, "it goes with --teacher: name a sentence encoder"))
    if traces:
        from r1ranker_ir.training.data.from_traces import completions_from_traces

        chosen: dict[str, Any] = {"split": None, "leaks": "error", "test_corpora": (), **asked}
        selection = completions_from_traces(
            traces, output=output, best=best, min_ndcg=min_ndcg, announce=not messages.quiet, **chosen
        )
        messages.say(f"{output}: {selection.report()}")
        return
    from r1ranker_ir.training.data.command import make_data

    try:
        taught = None if teacher is None else Teaching(teacher, **teaching)
        arguments = DataCommandArguments(output, Sampling(**sampling), taught, **asked)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    messages.say(*make_data(arguments, progress=progress, announce=not messages.quiet).lines())


def _check_traces(given: Mapping[str, str]) -> None:
    """Refuses options that do not go with --traces, or not without it."""
    if "traces" not in given:
        if lone := [option for name, option in given.items() if name in _OF_TRACES_ALONE]:
            raise typer.BadParameter(f"{lone[0]} goes with --traces: name the traces to choose from")
    elif unfit := [option for name, option in given.items() if name not in _WITH_TRACES]:
        raise typer.BadParameter(f"{unfit[0]} does not go with --traces: leave one of the two out")
    elif "corpus" not in given:
        raise typer.BadParameter("--traces and --corpus go together: the corpus's judgments say which steps are kept")


def _given(context: typer.Context) -> dict[str, str]:
    """Maps the parameters that the command line gives to how their options are written."""
    return {
        parameter.name: "/".join([*parameter.opts, *parameter.secondary_opts])
        for parameter in context.command.params
        if parameter.name and is_stated(context, parameter.name)
    }
