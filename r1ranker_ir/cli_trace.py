"""The verb `r1ranker trace show`: one ranking of a trace."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from r1ranker_ir.errors import InputError
from r1ranker_ir.terminal_text import argument_text, console, echo_json

if TYPE_CHECKING:
    from r1ranker_ir.traces import TracedRanking

trace = typer.Typer(
    help="Look into the traces that r1ranker rerank --save-traces writes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_CLOSE_AMONG = 100_000


@trace.callback()
def about_traces() -> None:
    """Keeps `show` a word of its own while it is the only verb."""


@trace.command()
def show(
    query: Annotated[str, typer.Argument(help="Id of the query.", show_default=False)],
    file: Annotated[Path, typer.Option("--trace", help="The trace, gzip if it ends in .gz.", show_default=False)],
    step: Annotated[
        int | None,
        typer.Option(min=1, help="Only this model call, counted from 1.", show_default="all, then the order"),
    ] = None,
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", help="Text to read, or what the trace holds as JSON.")
    ] = "text",
) -> None:
    """Show how one query was ranked: what each model call held, thought and answered, and the order it led to."""
    from r1ranker_ir.cli import start

    start(verbose=False, quiet=False)
    from r1ranker_ir.trace_view import print_ranking
    from r1ranker_ir.traces import find_rankings

    query = argument_text(query)
    found, ids = find_rankings(file, query)
    if not found:
        raise InputError(_unknown(query, file, ids))
    calls = max(len(traced.ranking.steps) for traced in found)
    if step is not None and step > calls:
        raise InputError(f"query {query!r} took {calls} model calls in trace {str(file)!r}: there is no --step {step}")
    screen = console()
    for number, traced in enumerate(found, start=1):
        if step is not None and step > len(traced.ranking.steps):
            continue
        if format_ == "json":
            echo_json(json.dumps(_data_of(traced, step), indent=2, ensure_ascii=False))
            continue
        if len(found) > 1:
            screen.print(f"Ranking {number} of {len(found)} of this query in the trace", style="bold")
        print_ranking(screen, traced, step)
        screen.print()


def _data_of(traced: TracedRanking, step: int | None) -> dict[str, Any]:
    from r1ranker_ir.traces import trace_of

    data = trace_of(traced.ranking, traced.strategy, traced.notes)
    if step is None:
        return data
    named = {name: data[name] for name in ("query_id", "query", "strategy")}
    return {**named, "step": step, **data["steps"][step - 1]}


def _unknown(query: str, file: Path, ids: list[str]) -> str:
    if not ids:
        return f"trace {str(file)!r} is empty: give the trace of a run that has finished queries"
    close = difflib.get_close_matches(query, ids[:_CLOSE_AMONG], n=3)
    shown = ("close ones are " if close else "such as ") + ", ".join(close or ids[:3])
    return f"trace {str(file)!r} has no query {query!r} among its {len(ids)}: {shown}"
