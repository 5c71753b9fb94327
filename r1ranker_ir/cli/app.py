"""The `r1ranker` command: search, index, rerank, serve, suite, evaluate, benchmark, shootout, demo, data and train.

Results go to files or standard output; messages, progress and summaries go to standard error. Exit codes: 0 when all
went well, 1 for an error that is explained, 2 for a command line that can't be understood.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from r1ranker_ir.cli.benchmark import benchmark
from r1ranker_ir.cli.cache import cache
from r1ranker_ir.cli.calibrate import calibrate
from r1ranker_ir.cli.compare import compare
from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.data.answers import answers
from r1ranker_ir.cli.data.passages import passages
from r1ranker_ir.cli.data.recommendation import recommendation
from r1ranker_ir.cli.data.routing import routing
from r1ranker_ir.cli.data.samples import data
from r1ranker_ir.cli.data.synthesize import synthesize
from r1ranker_ir.cli.doctor import doctor
from r1ranker_ir.cli.evaluate import evaluate
from r1ranker_ir.cli.generic import generic
from r1ranker_ir.cli.model import model
from r1ranker_ir.cli.parameters import GroupedCommand, with_fields
from r1ranker_ir.cli.prompt import prompt
from r1ranker_ir.cli.report import report
from r1ranker_ir.cli.rerank import rerank
from r1ranker_ir.cli.search import index, search
from r1ranker_ir.cli.serve import serve
from r1ranker_ir.cli.shootout import shootout
from r1ranker_ir.cli.suite import suite
from r1ranker_ir.cli.thoughts import thoughts
from r1ranker_ir.cli.trace import trace
from r1ranker_ir.cli.train import train
from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.files.terminal_text import console, echo, prepare_streams, visible
from r1ranker_ir.option_fields import option

logger = logging.getLogger(__name__)


class Verbs(TyperGroup):
    """Runs a verb, turns the project's errors into a message and exit code 1, and leaves logging as it was."""

    def main(self, *args: Any, **options: Any) -> Any:
        prepare_streams()
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _explained():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        ours = logging.getLogger("r1ranker_ir")
        level, handlers = ours.level, list(ours.handlers)
        try:
            with _explained():
                return super().invoke(ctx)
        finally:
            ours.setLevel(level)
            ours.handlers[:] = handlers


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Ends the command with an error in words; escapes control characters in what usage errors repeat of it."""
    try:
        yield
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
    except Exception as error:
        if isinstance(message := getattr(error, "message", None), str):
            error.message = visible(message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    cls=Verbs,
    name="r1ranker",
    help="Rerank search results with language models that reason: one exclusion at a time, or a whole list at once.",
    no_args_is_help=True,
    add_completion=True,
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


def _add(to: typer.Typer, *verbs: Callable[..., None]) -> None:
    for verb in verbs:
        to.command(cls=GroupedCommand)(verb)


@with_fields
def demo(
    query: str = option("q01", "Query whose elimination is shown step by step."),
    depth: int = option(10, "Documents to rerank per query.", least=2, most=20),
    messages: Messages = MESSAGES,
) -> None:
    """Run the whole path on the packaged collection with the embedded model: search, rerank, measure, look inside."""
    progress = messages.start()
    from r1ranker_ir.cli.demo import run_demo

    screen = console(soft_wrap=not sys.stdout.isatty())
    run_demo(screen, query_id=query, depth=depth, progress=progress)


_add(app, search, index, rerank, serve, suite, evaluate, demo, compare, report, calibrate, doctor, benchmark, shootout)
_add(app, generic)
_add(data, answers, passages, recommendation, routing, synthesize)
for _name, _verbs in (("data", data), ("train", train), ("cache", cache), ("model", model), ("prompt", prompt)):
    app.add_typer(_verbs, name=_name)
app.add_typer(trace, name="trace")
app.add_typer(thoughts, name="thoughts")
