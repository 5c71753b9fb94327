"""The verb `r1ranker data`: training samples from judgments and runs, request files, Ranking-bench or traces.

Its own verbs, such as `r1ranker data recommendation`, write request files; each has a file of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from r1ranker_ir.cli.choices import SamplingName
from r1ranker_ir.cli.console import start
from r1ranker_ir.cli.options import QuietOption, VerboseOption
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import echo

_OF_TRACES_ALONE = {"traces", "best", "min_ndcg"}
_WITH_TRACES = _OF_TRACES_ALONE | {"corpus", "split", "test_corpus", "leaks", "output", "verbose", "quiet"}

data = typer.Typer(rich_markup_mode=None)


@data.callback(invoke_without_command=True)
def make_samples(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file of samples to write (of --traces also JSON Lines, .jsonl); it is there only once it is "
            "whole.",
            show_default=False,
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="With --run or --traces: an ir_datasets id such as beir/scifact/train, or a folder in BEIR layout.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="First-stage TREC run of the corpus, for negatives; gzip if it ends in .gz; - for standard input.",
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines file of ranking requests: context, candidates with text and gain.",
            show_default=False,
        ),
    ] = None,
    ranking_bench: Annotated[
        str | None,
        typer.Option(
            help="ulab-ai/Ranking-bench: its configuration (iterative or direct), or a .jsonl or .parquet file with "
            "its columns.",
            show_default=False,
        ),
    ] = None,
    traces: Annotated[
        list[Path] | None,
        typer.Option(
            help="Trace of r1ranker rerank --save-traces, the first seed's first; may be given repeatedly. Steps that "
            "fit the corpus's judgments are kept, to fine-tune on.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Whose judgments a folder gives (ids carry their split), or the split of Ranking-bench.",
            show_default="train; test for folders without qrels/train.tsv",
        ),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Only the first N queries, requests or rows.", show_default="all")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Documents per query to keep, from the top of the run.")] = 100,
    add_positives: Annotated[
        bool | None,
        typer.Option(
            "--add-positives/--only-retrieved",
            help="Add positives that the run lacks, or leave them out.",
            show_default="add them, except for windows",
        ),
    ] = None,
    judged_only: Annotated[
        bool, typer.Option("--judged-only", help="Leave out what nobody has judged; otherwise its gain is 0.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="What to call the source in the samples.", show_default="the corpus, file or task"),
    ] = None,
    strategy: Annotated[
        SamplingName,
        typer.Option(
            help="Steps of an elimination, whole lists, the best of a list, or windows over the run.",
        ),
    ] = "iterative",
    candidates: Annotated[int, typer.Option(min=2, help="Length of a list, its positive included.")] = 10,
    negatives: Annotated[
        Literal["top", "random"], typer.Option(help="Negatives that the run ranks highest, or random ones of it.")
    ] = "top",
    positives: Annotated[
        int | None, typer.Option(min=1, help="Positives drawn per query, one list each.", show_default="all")
    ] = None,
    min_gain: Annotated[
        float, typer.Option(min=0.0, help="Least gain of a positive; above 0 in any case.", show_default="above 0")
    ] = 0.0,
    window_size: Annotated[int, typer.Option(min=2, help="Length of a window.")] = 20,
    stride: Annotated[int, typer.Option(min=1, help="Places by which windows move up; below the window size.")] = 10,
    as_given: Annotated[
        bool, typer.Option("--as-given", help="Each request or row is a list already: one sample, in its order.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    best: Annotated[int, typer.Option(min=1, help="With --traces: how many tries of each step are kept.")] = 1,
    min_ndcg: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --traces: the least nDCG@10 of an ordering that is kept.")
    ] = 0.0,
    test_corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="A corpus whose test queries and their positives must not be trained on; may be given repeatedly.",
            show_default=False,
        ),
    ] = None,
    leaks: Annotated[
        Literal["error", "drop"], typer.Option(help="What to do about test data: stop with an error, or drop them.")
    ] = "error",
    hold_out: Annotated[
        float | None,
        typer.Option(help="Share of the queries to hold out, chosen by their ids.", show_default="none"),
    ] = None,
    hold_out_output: Annotated[
        Path | None,
        typer.Option(help="Parquet file for the lists of the held-out queries.", show_default=False),
    ] = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make training samples of judgments and a run, of ranking requests, of Ranking-bench, or of a model's traces.

    Same input and seed give the same file. Queries without a positive or a negative are dropped and counted. The
    commands below make ranking requests of other data; their options stand after their names.
    """
    if context.invoked_subcommand is not None:
        _check_no_options(context, context.invoked_subcommand)
        return
    if output is None:
        raise typer.BadParameter("it is missing: name the file of samples to write", param_hint="--output")
    progress = start(verbose=verbose, quiet=quiet)
    _check_traces(context)
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
            announce=not quiet,
        )
        if not quiet:
            echo(f"{output}: {selection.report()}", err=True)
        return
    from r1ranker_ir.training.data.command import DataCommandArguments, make_data
    from r1ranker_ir.training.data.samples import Sampling

    try:
        sampling = Sampling(
            strategy=strategy,
            candidates=candidates,
            negatives=negatives,
            positives=positives,
            min_gain=min_gain,
            window_size=window_size,
            stride=stride,
            as_given=as_given,
            seed=seed,
        )
        arguments = DataCommandArguments(
            output=output,
            sampling=sampling,
            corpus=corpus,
            run=run,
            requests=requests,
            ranking_bench=ranking_bench,
            split=split,
            source=source,
            queries=queries,
            depth=depth,
            add_positives=add_positives,
            judged_only=judged_only,
            test_corpora=tuple(test_corpus or ()),
            leaks=leaks,
            hold_out=hold_out,
            hold_out_output=hold_out_output,
        )
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    summary = make_data(arguments, progress=progress, announce=not quiet)
    if not quiet:
        for line in summary.lines():
            echo(line, err=True)


def _check_no_options(context: typer.Context, command: str) -> None:
    """Refuses options that stand before the name of a command, where they would do nothing."""
    if given := list(_given(context).values()):
        raise typer.BadParameter(f"{given[0]} stands before {command!r}: write the options after it")


def _check_traces(context: typer.Context) -> None:
    """Refuses options that do not go with --traces, or not without it."""
    given = _given(context)
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
        if parameter.name and _is_given(context, parameter.name)
    }


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
