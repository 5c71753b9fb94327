"""The `r1ranker` command: search, index, rerank, suite, evaluate, benchmark, shootout, demo, data and train.

Results go to files or standard output; messages, progress and summaries go to standard error. Exit codes: 0 when all
went well, 1 for an error that is explained, 2 for a command line that can't be understood.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from r1ranker_ir.cli.benchmark import benchmark
from r1ranker_ir.cli.cache import cache
from r1ranker_ir.cli.compare import compare
from r1ranker_ir.cli.data.answers import answers
from r1ranker_ir.cli.data.passages import passages
from r1ranker_ir.cli.data.recommendation import recommendation
from r1ranker_ir.cli.data.routing import routing
from r1ranker_ir.cli.data.samples import data
from r1ranker_ir.cli.doctor import doctor
from r1ranker_ir.cli.model import model
from r1ranker_ir.cli.options import JudgedCorpusOption, OnlyRunQueriesOption, QuietOption, VerboseOption
from r1ranker_ir.cli.prompt import prompt
from r1ranker_ir.cli.rerank import rerank
from r1ranker_ir.cli.search import index, search
from r1ranker_ir.cli.shootout import shootout
from r1ranker_ir.cli.suite import suite
from r1ranker_ir.cli.trace import trace
from r1ranker_ir.cli.train import train
from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.files.terminal_text import argument_text, console, echo, echo_json, prepare_streams, visible

if TYPE_CHECKING:
    from r1ranker_ir.eval.measuring.measures import Evaluation

logger = logging.getLogger(__name__)


class Verbs(TyperGroup):
    """Runs a verb, turns the project's errors into a message and exit code 1, and leaves logging as it was."""

    def main(self, *args: Any, **options: Any) -> Any:
        prepare_streams()
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _visible_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _visible_usage_errors():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        ours = logging.getLogger("r1ranker_ir")
        level, handlers = ours.level, list(ours.handlers)
        try:
            return super().invoke(ctx)
        except R1RankerError as error:
            logger.debug("the error was raised here", exc_info=True)
            echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        except UnicodeEncodeError as error:
            encoding = sys.getfilesystemencoding()
            if encoding == "utf-8" or error.encoding.replace("_", "-").lower() != encoding:
                raise
            echo(
                f"Error: a file is called {error.object!r}, and file names are {encoding} here: set the environment "
                f"variable PYTHONUTF8=1, or a locale with UTF-8 (LC_ALL=C.UTF-8)",
                err=True,
            )
            raise typer.Exit(1) from error
        finally:
            ours.setLevel(level)
            ours.handlers[:] = handlers


@contextlib.contextmanager
def _visible_usage_errors() -> Iterator[None]:
    """Escapes control characters in what a mistake on the command line repeats of it."""
    try:
        yield
    except Exception as error:
        if isinstance(message := getattr(error, "message", None), str):
            error.message = visible(message)  # type: ignore[attr-defined]
        raise


class StandardErrorHandler(logging.Handler):
    """Writes messages to standard error without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(visible(self.format(record)), file=sys.stderr)


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

        echo(f"r1ranker {r1ranker_ir.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Takes the options that stand before the verb."""


app.command()(search)
app.command()(index)
app.command()(rerank)
app.command()(suite)


@app.command()
def evaluate(
    corpus: JudgedCorpusOption,
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
    only_run_queries: OnlyRunQueriesOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure TREC runs against the judgments of a corpus.

    Judged queries that a run lacks count as 0 and are reported; with --only-run-queries they do not count. Ties are
    broken by document id, as in trec_eval.
    """
    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.data import corpora
    from r1ranker_ir.data.trec_runs import Run, read_run
    from r1ranker_ir.eval.measuring import measures as measuring

    parsed = measuring.parse_measures(measures)
    qrels = corpora.open_corpus(corpus).qrels()
    found: dict[str, Run] = {name: read_run(name) for name in runs}
    if only_run_queries:
        qrels, found, judged = measuring.common_queries(qrels, found)
        counted = len({judgment.query_id for judgment in qrels})
        if not quiet:
            echo(f"measured over {counted} of {judged} judged queries: those that all runs have", err=True)
    evaluations = {name: measuring.evaluate(qrels, run, parsed, name=name) for name, run in found.items()}
    offer_only_run_queries(evaluations)
    if format_ == "json":
        echo_json(json.dumps(measuring.measures_json(evaluations), indent=2, ensure_ascii=False))
    else:
        print_wide(measuring.measures_table(evaluations))


@app.command()
def demo(
    query: Annotated[str, typer.Option(help="Query whose elimination is shown step by step.")] = "q01",
    depth: Annotated[int, typer.Option(min=2, max=20, help="Documents to rerank per query.")] = 10,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the whole path on the packaged collection with the embedded model: search, rerank, measure, look inside."""
    progress = start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.cli.demo import run_demo

    screen = console(soft_wrap=not sys.stdout.isatty())
    run_demo(screen, query_id=argument_text(query), depth=depth, progress=progress)


app.command()(compare)
app.command()(doctor)
app.command()(benchmark)
app.command()(shootout)
data.command()(answers)
data.command()(passages)
data.command()(recommendation)
data.command()(routing)
app.add_typer(data, name="data")
app.add_typer(train, name="train")
app.add_typer(cache, name="cache")
app.add_typer(model, name="model")
app.add_typer(prompt, name="prompt")
app.add_typer(trace, name="trace")


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


def offer_only_run_queries(evaluations: Mapping[str, Evaluation]) -> None:
    """Says what to do about judged queries that a run lacks, as after `rerank --queries 20`."""
    lacking = {name: each for name, each in evaluations.items() if each.missing}
    if lacking:
        judged = len(next(iter(lacking.values())).per_query)
        common = judged - len({query_id for each in lacking.values() for query_id in each.missing})
        logger.warning(
            "means over all %d judged queries say little of runs that have fewer: --only-run-queries measures over the "
            "%d that all runs have",
            judged,
            common,
        )


def print_wide(renderable: Any) -> None:
    """Prints a table whole, however narrow the terminal is said to be."""
    console(width=1000).print(renderable)
