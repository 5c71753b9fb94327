"""The verb `r1ranker data`: training samples from judgments and runs, request files, Ranking-bench or traces.

Its own verbs, such as `r1ranker data recommendation`, write request files; each has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import SamplingName
from r1ranker_ir.cli.parameters import is_stated, made_of, refuse_stated, with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option

_OF_TRACES_ALONE = {"traces", "best", "min_ndcg"}
_OF_TEACHERS_ALONE = ("teacher_temperature", "teacher_share")
_WITH_TRACES = _OF_TRACES_ALONE | {"corpus", "split", "test_corpus", "leaks", "output", "verbose", "quiet"}

data = typer.Typer(rich_markup_mode=None)


@data.callback(invoke_without_command=True)
@with_fields
def make_samples(
    context: typer.Context,
    output: Path | None = option(None, "Parquet file of samples to write; of --traces also JSON Lines (.jsonl)."),
    corpus: str | None = option(
        None, "With --run or --traces: an ir_datasets id such as beir/scifact/train, or a folder in BEIR layout."
    ),
    run: str | None = option(None, "First-stage TREC run of the corpus, for negatives; - for standard input."),
    requests: Path | None = option(None, "Ranking requests (.jsonl): context, candidates with text and gain."),
    ranking_bench: str | None = option(
        None, "ulab-ai/Ranking-bench: iterative or direct, or a .jsonl or .parquet file with its columns."
    ),
    traces: list[Path] | None = option(
        None, "Trace whose steps are kept where they fit the corpus's judgments; repeatable, the first seed's first."
    ),
    split: str | None = option(
        None, "The split of a folder or of Ranking-bench.", unset="train; test for folders without qrels/train.tsv"
    ),
    queries: int | None = option(None, "Only the first N queries, requests or rows.", unset="all", least=1),
    depth: int = option(100, "Documents per query to keep, from the top of the run.", least=1),
    add_positives: bool | None = option(
        None,
        "Add positives that the run lacks.",
        unset="except for windows",
        flags=("--add-positives/--only-retrieved",),
    ),
    judged_only: bool = option(False, "Leave out what nobody has judged; otherwise its gain is 0."),
    source: str | None = option(None, "What to call the source in the samples.", unset="the corpus, file or task"),
    strategy: SamplingName = option("iterative", "Eliminations, whole lists, the best of a list, or windows."),
    candidates: int = option(10, "Length of a list, its positive included.", least=2),
    negatives: Literal["top", "random"] = option("top", "Negatives that the run ranks highest, or random ones of it."),
    positives: int | None = option(None, "Positives drawn per query, one list each.", unset="all", least=1),
    min_gain: float = option(0.0, "Least gain of a positive; above 0 in any case.", unset="above 0", least=0.0),
    window_size: int = option(20, "Length of a window.", least=2),
    stride: int = option(10, "Places by which windows move up; below the window size.", least=1),
    passage_words: list[int] | None = option(
        None, "Cut candidates to N words; of several numbers, one is drawn per query.", unset="whole", least=1
    ),
    teacher: str | None = option(
        None, "A sentence encoder (folder or hub name, mean pooling) whose similarities become soft gains."
    ),
    teacher_temperature: float = option(0.05, "With --teacher: what divides its cosines before the softmax."),
    teacher_share: float = option(0.8, "With --teacher: its share of a gain, the rest judged.", least=0.0, most=1.0),
    as_given: bool = option(False, "Each request or row is a list already: one sample, in its order."),
    seed: int = option(0, "Seed of every draw."),
    best: int = option(1, "With --traces: how many tries of each step are kept.", least=1),
    min_ndcg: float = option(0.0, "With --traces: the least nDCG@10 of an ordering that is kept.", least=0.0, most=1.0),
    test_corpus: list[str] | None = option(
        None, "A corpus whose test queries and their positives must not be trained on; repeatable."
    ),
    leaks: Literal["error", "drop"] = option("error", "What to do about test data: stop with an error, or drop them."),
    hold_out: float | None = option(None, "Share of the queries to hold out, chosen by their ids.", unset="none"),
    hold_out_output: Path | None = option(None, "Parquet file for the lists of the held-out queries."),
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

        assert corpus is not None
        selection = completions_from_traces(
            traces,
            corpus,
            output,
            split=split,
            best=best,
            min_ndcg=min_ndcg,
            test_corpora=tuple(test_corpus or ()),
            leaks=leaks,
            announce=not messages.quiet,
        )
        messages.say(f"{output}: {selection.report()}")
        return
    from r1ranker_ir.training.data.command import DataCommandArguments, make_data
    from r1ranker_ir.training.data.samples import Sampling
    from r1ranker_ir.training.data.teacher import Teaching

    try:
        sampling = made_of(context, Sampling, passage_words=tuple(passage_words or ()))
        teaching = None if teacher is None else Teaching(teacher, teacher_temperature, teacher_share)
        tests = tuple(test_corpus or ())
        arguments = made_of(context, DataCommandArguments, sampling=sampling, teaching=teaching, test_corpora=tests)
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
