"""The verbs `r1ranker trace show` and `r1ranker trace summary`: one ranking of a trace, and what all of them show."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from r1ranker_ir.cli.console import MESSAGES
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import console, echo, echo_json
from r1ranker_ir.option_fields import argument, option

if TYPE_CHECKING:
    from r1ranker_ir.data.trec_runs import Run, RunEntry
    from r1ranker_ir.runs.traces import TracedRanking

trace = typer.Typer(
    help="Look into the traces that r1ranker rerank --save-traces writes.", no_args_is_help=True, rich_markup_mode=None
)


@trace.command()
@with_fields
def show(
    query: str = argument(..., "Id of the query."),
    file: Path = option(..., "The trace, gzip if it ends in .gz.", flags=("--trace",)),
    step: int | None = option(None, "Only this model call, counted from 1.", unset="all, then the order", least=1),
    format_: Literal["text", "json"] = option(
        "text", "Text to read, or what the trace holds as JSON.", flags=("--format",)
    ),
) -> None:
    """Show how one query was ranked: what each model call held, thought and answered, and the order it led to."""
    MESSAGES.start()
    from r1ranker_ir.runs.trace_view import print_ranking
    from r1ranker_ir.runs.traces import find_rankings

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


@trace.command()
@with_fields
def summary(
    file: str = argument(..., "The trace, or the .partial file of a run that was stopped; - for standard input."),
    corpus: str | None = option(None, "Measure the orders before and after by its judgments.", unset="no measures"),
    measures: str = option("nDCG@10 RR@10 AP", "With --corpus: measures as ir_measures writes them, split by spaces."),
    format_: Literal["text", "json"] = option("text", "Text to read, or all figures as JSON.", flags=("--format",)),
) -> None:
    """Show what a whole trace holds: answered places, repairs, thoughts, agreement with the first stage, and cost.

    With --corpus also the measures of the orders that went in and of those that came out.
    """
    MESSAGES.start()
    from r1ranker_ir.runs.requests import entries_of
    from r1ranker_ir.runs.trace_summary import summarise
    from r1ranker_ir.runs.trace_summary_view import measures_lines, summary_lines
    from r1ranker_ir.runs.traces import once_each, read_trace

    before: dict[str, tuple[RunEntry, ...]] = {}
    after: dict[str, tuple[RunEntry, ...]] = {}

    def rankings() -> Iterator[TracedRanking]:
        read = read_trace(file, interrupted=True)
        for traced in read if corpus is None else once_each(read, f"trace {file!r}"):
            if corpus is not None:
                query_id = traced.ranking.request.query_id
                before[query_id] = entries_of(replace(traced.ranking, order=tuple(range(len(traced.ranking.order)))))
                after[query_id] = entries_of(traced.ranking)
            yield traced

    found = summarise(rankings())
    if not found.rankings:
        raise InputError(_empty(file))
    measured = None if corpus is None else _measured(corpus, measures, before, after)
    if format_ == "json":
        data = asdict(found) | ({} if measured is None else {"measures": measured})
        echo_json(json.dumps(data, indent=2, ensure_ascii=False))
        return
    for line in (*summary_lines(found), *([] if measured is None else measures_lines(**measured))):
        echo(line)


def _measured(corpus: str, measures: str, before: Run, after: Run) -> dict[str, Any]:
    """The means of both runs over the trace's judged queries."""
    from r1ranker_ir.data.corpora import open_corpus
    from r1ranker_ir.eval.measuring.measures import common_queries, evaluate, parse_measures

    parsed = parse_measures(measures)
    qrels, runs, judged = common_queries(open_corpus(corpus).qrels(), {"before": before, "after": after})
    means = {name: evaluate(qrels, run, parsed, name=name).mean for name, run in runs.items()}
    shown = {name: {str(measure): value for measure, value in mean.items()} for name, mean in means.items()}
    return {**shown, "counted": len({judgment.query_id for judgment in qrels}), "judged": judged}


def _data_of(traced: TracedRanking, step: int | None) -> dict[str, Any]:
    data = traced.to_dict()
    if step is None:
        return data
    named = {name: data[name] for name in ("query_id", "query", "strategy")}
    return {**named, "step": step, **data["steps"][step - 1]}


def _unknown(query: str, file: Path, ids: list[str]) -> str:
    if not ids:
        return _empty(file)
    close = difflib.get_close_matches(query, ids[:100_000], n=3)
    shown = ("close ones are " if close else "such as ") + ", ".join(close or ids[:3])
    return f"trace {str(file)!r} has no query {query!r} among its {len(ids)}: {shown}"


def _empty(file: str | Path) -> str:
    return f"trace {str(file)!r} is empty: give the trace of a run that has finished queries"
