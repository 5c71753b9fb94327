"""The `r1ranker` command: search, rerank, evaluate, demo, data and train.

Results go to files or standard output; messages, progress and summaries go to standard error. Exit codes: 0 when all
went well, 1 for an error that is explained, 2 for a command line that can't be understood.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from r1ranker_ir.cli_data import data
from r1ranker_ir.cli_options import (
    BackendOption,
    BaseUrlOption,
    BatchSizeOption,
    CorpusOption,
    DeviceOption,
    MaxPassageTokensOption,
    MaxRepairRateOption,
    MaxThoughtTokensOption,
    MissingOption,
    ModelOption,
    OutputOption,
    QueriesOption,
    QuietOption,
    RerankDepthOption,
    RerankerOption,
    RerankQueriesOption,
    RunOption,
    SeedOption,
    SettingsFromOption,
    ShuffleOption,
    StrategyOption,
    StrideOption,
    TemperatureOption,
    TraceOption,
    VerboseOption,
    WindowSizeOption,
)
from r1ranker_ir.cli_train import train
from r1ranker_ir.errors import InputError, R1RankerError

if TYPE_CHECKING:
    from r1ranker_ir.ranker import Ranker
    from r1ranker_ir.types import Ranking

logger = logging.getLogger(__name__)


class Verbs(TyperGroup):
    """Runs a verb, turns the project's errors into a message and exit code 1, and leaves logging as it was."""

    def invoke(self, ctx: Any) -> Any:
        ours = logging.getLogger("r1ranker_ir")
        level, handlers = ours.level, list(ours.handlers)
        try:
            return super().invoke(ctx)
        except R1RankerError as error:
            logger.debug("the error was raised here", exc_info=True)
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        finally:
            ours.setLevel(level)
            ours.handlers[:] = handlers


class StandardErrorHandler(logging.Handler):
    """Writes messages to standard error without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


app = typer.Typer(
    cls=Verbs,
    name="r1ranker",
    help="Rerank search results with language models that reason: one exclusion at a time, or a whole list at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def print_version(wanted: bool) -> None:
    """Prints the version and stops, if that is what is wanted."""
    if wanted:
        import r1ranker_ir

        typer.echo(f"r1ranker {r1ranker_ir.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Takes the options that stand before the verb."""


@app.command()
def search(
    corpus: CorpusOption,
    output: OutputOption,
    depth: Annotated[int, typer.Option(min=1, help="Documents a query at most.")] = 100,
    queries: QueriesOption = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search a corpus with BM25 and write a TREC run.

    The index is built in memory (k1 0.9, b 0.4, English stemming and stop words). Queries that share no word with
    any document get no line and are reported.
    """
    progress = start(verbose=verbose, quiet=quiet)
    from itertools import islice

    from r1ranker_ir import corpora
    from r1ranker_ir.retrieval import bm25
    from r1ranker_ir.runs import RunWriter

    writer = RunWriter(output, tag="bm25")
    started = time.perf_counter()
    opened = corpora.open_corpus(corpus)
    topics = dict(islice(opened.queries().items(), queries))
    run = bm25.search(opened, depth, topics, progress=progress)
    with writer:
        for query_id, entries in run.items():
            if entries:
                writer.write(query_id, entries)
    without = [query_id for query_id, entries in run.items() if not entries]
    if without:
        logger.warning("%d queries match no document and are not in the run: %s", len(without), ", ".join(without))
    if not quiet:
        documents, seconds = sum(map(len, run.values())), time.perf_counter() - started
        typer.echo(f"{writer.queries} queries, {documents} documents, {seconds:.1f} seconds", err=True)


@app.command()
def rerank(
    corpus: CorpusOption,
    run: RunOption,
    reranker: RerankerOption,
    output: OutputOption,
    depth: RerankDepthOption = 100,
    queries: RerankQueriesOption = None,
    strategy: StrategyOption = None,
    model: ModelOption = None,
    backend: BackendOption = "transformers",
    base_url: BaseUrlOption = None,
    window_size: WindowSizeOption = None,
    stride: StrideOption = None,
    batch_size: BatchSizeOption = None,
    max_passage_tokens: MaxPassageTokensOption = None,
    max_thought_tokens: MaxThoughtTokensOption = None,
    max_repair_rate: MaxRepairRateOption = 0.2,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    missing: MissingOption = "error",
    shuffle: ShuffleOption = None,
    settings_from: SettingsFromOption = None,
    save_traces: TraceOption = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rerank the top of a TREC run with a language model and write a TREC run.

    Only the top --depth documents of a query are reranked and written, with scores that say the rank again
    (1 - (rank - 1) / n). Queries are written as they finish; after a failure they are kept in <output>.partial.
    """
    progress = start(verbose=verbose, quiet=quiet)
    from r1ranker_ir import corpora, reranking
    from r1ranker_ir.ranker import Ranker
    from r1ranker_ir.runs import RunWriter, read_run

    checkpoint, chosen = choose_checkpoint(reranker, model, strategy)
    if base_url is not None and backend != "openai":
        raise typer.BadParameter("only --backend openai calls a server", param_hint="--base-url")
    if device is not None and backend != "transformers":
        raise typer.BadParameter("only --backend transformers runs a model on a device", param_hint="--device")
    writer = RunWriter(output, tag="_".join(reranker.split()))
    requests = reranking.requests_of_run(
        corpora.open_corpus(corpus), read_run(run), depth, queries=queries, missing=missing, shuffle=shuffle
    )
    places: dict[str, Any] = {"base_url": base_url, "device": device}
    ranker = Ranker(
        checkpoint,
        strategy=chosen,
        backend=backend,
        settings_from=settings_from,
        window_size=window_size,
        stride=stride,
        max_passage_tokens=max_passage_tokens,
        max_thought_tokens=max_thought_tokens,
        batch_size=batch_size,
        max_repair_rate=max_repair_rate,
        progress=progress,
        temperature=temperature,
        seed=seed,
        **{name: value for name, value in places.items() if value is not None},
    )
    with writer, trace_file(save_traces, chosen) as write_trace:
        for ranking in reranking.in_order(ranker.stream(requests)):
            writer.write(ranking.request.query_id, reranking.entries_of(ranking))
            write_trace(ranking)
    if not quiet:
        typer.echo(summary_line(ranker), err=True)


@app.command()
def evaluate(
    corpus: CorpusOption,
    runs: Annotated[
        list[str],
        typer.Argument(help="TREC runs to measure, gzip if they end in .gz; - for standard input.", show_default=False),
    ],
    measures: Annotated[
        str, typer.Option(help="Measures as ir_measures writes them, split by spaces: RR(rel=2)@10, P@5, R@100, …")
    ] = "nDCG@10 RR@10 AP",
    format_: Annotated[
        Literal["table", "json"],
        typer.Option("--format", help="A table of means, or JSON that also holds each query's values."),
    ] = "table",
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure TREC runs against the judgments of a corpus.

    Judged queries that a run lacks count as 0 and are reported. Ties are broken by document id, as in trec_eval.
    """
    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir import corpora
    from r1ranker_ir.eval import measures as measuring
    from r1ranker_ir.runs import read_run

    parsed = measuring.parse_measures(measures)
    qrels = corpora.open_corpus(corpus).qrels()
    evaluations = {name: measuring.evaluate(qrels, read_run(name), parsed, name=name) for name in runs}
    if format_ == "json":
        typer.echo(json.dumps(measuring.measures_json(evaluations), indent=2, ensure_ascii=False))
    else:
        print_wide(measuring.measures_table(evaluations))


@app.command()
def demo(
    query: Annotated[str, typer.Option(help="Query whose elimination is shown step by step.")] = "q01",
    depth: Annotated[int, typer.Option(min=2, max=20, help="Documents a query to rerank.")] = 10,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the whole path on the packaged collection with the embedded model: search, rerank, measure, look inside."""
    progress = start(verbose=verbose, quiet=quiet)
    from rich.console import Console

    from r1ranker_ir.demo import run_demo

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    run_demo(console, query_id=query, depth=depth, progress=progress)


app.command()(data)
app.add_typer(train, name="train")


def start(*, verbose: bool, quiet: bool) -> bool:
    """Prepares logging and progress bars.

    Args:
        verbose: also show what is logged at level INFO and DEBUG.
        quiet: show no progress.

    Returns:
        Whether to show progress bars: on a terminal, unless `quiet`.

    Raises:
        typer.BadParameter: if both are asked for.
    """
    if verbose and quiet:
        raise typer.BadParameter("choose one of --verbose and --quiet", param_hint="--quiet")
    handler = StandardErrorHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("r1ranker_ir")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.WARNING)
    progress = sys.stderr.isatty() and not quiet
    if not progress:
        # Read by tqdm when it is first imported: the bars of ir_datasets and transformers have no other switch.
        os.environ.setdefault("TQDM_DISABLE", "1")
    catalogue = logging.getLogger("ir_datasets")
    if verbose:
        catalogue.removeFilter(_is_warning)
    else:
        catalogue.addFilter(_is_warning)  # it sets its own level, so a level set here would not last
    return progress


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def choose_checkpoint(reranker: str, model: str | None, strategy: str | None) -> tuple[str, str]:
    """Finds checkpoint and strategy for what `--reranker`, `--model` and `--strategy` say.

    Args:
        reranker: a registered name, or a model.
        model: a checkpoint in place of a registered name's own.
        strategy: how to use a model that is no registered name.

    Returns:
        The checkpoint and the strategy.

    Raises:
        typer.BadParameter: if the three do not go together.
    """
    from r1ranker_ir import registry

    if not registry.is_registered(reranker):
        if strategy is None:
            names = ", ".join(registry.REGISTERED)
            raise typer.BadParameter(
                f"{reranker!r} is not a registered name ({names}); to use a model of that name, add "
                f"--strategy iterative or --strategy direct",
                param_hint="--reranker",
            )
        if model is not None:
            raise typer.BadParameter(f"--reranker names a model already, {reranker!r}", param_hint="--model")
        return reranker, strategy
    try:
        checkpoint, named = registry.resolve(reranker, model)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error
    if strategy is not None and strategy != named:
        raise typer.BadParameter(f"{reranker!r} is the {named} strategy; drop --strategy", param_hint="--strategy")
    return checkpoint, named


@contextlib.contextmanager
def trace_file(path: Path | None, strategy: str) -> Iterator[Any]:
    """Opens a trace; gives a function that writes a ranking of the strategy to it (or does nothing without a path)."""
    from r1ranker_ir import reranking

    if path is None:
        yield lambda ranking: None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another --save-traces") from error
    with file:

        def write(ranking: Ranking) -> None:
            steps = reranking.trace_of(ranking, strategy)
            file.writelines(json.dumps(step, ensure_ascii=False) + "\n" for step in steps)
            file.flush()

        yield write


def summary_line(ranker: Ranker) -> str:
    """Says what a run has cost.

    Args:
        ranker: after its work.

    Returns:
        Queries, calls, tokens in and out, repairs and seconds in one line.
    """
    summary = ranker.summary
    usage = summary.usage
    parts = [
        f"{summary.queries} queries",
        f"{usage.calls} calls",
        f"{usage.prompt_tokens} tokens in",
        f"{usage.completion_tokens} tokens out",
        f"{summary.repairs} repairs",
        f"{summary.seconds:.1f} seconds",
    ]
    if summary.thoughts_closed:
        parts.append(f"{summary.thoughts_closed} thoughts closed at the limit")
    if summary.cut_passages:
        parts.append(f"{summary.cut_passages} passages cut")
    return ", ".join(parts)


def print_wide(renderable: Any) -> None:
    """Prints a table whole, however narrow the terminal is said to be."""
    from rich.console import Console

    Console(width=1000, highlight=False).print(renderable)
