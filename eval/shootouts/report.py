"""A shoot-out as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from r1ranker_ir.eval.measuring.comparison import MeanEstimate
from r1ranker_ir.eval.measuring.judged_rows import measures_data
from r1ranker_ir.eval.measuring.significance import LEVEL
from r1ranker_ir.eval.output.sheets import Sheet

from .entries import FIRST_STAGE
from .shootout import ShootoutResult, ShootoutRow

RESULT_FILE = "shootout.json"
_NONE = "–"
_HEADINGS = ("budget", "reached", "calls per query", "tokens read per query", "written", "seconds", "repairs")
_UNITS = {"max_calls": "calls", "max_tokens": "tokens"}


def shootout_sheet(result: ShootoutResult) -> Sheet:
    """Lays a shoot-out out."""
    compared, source = result.comparison, result.terms.source
    means = {run.name: run.means for run in (compared.baseline, *compared.runs)}
    rows = [
        (
            FIRST_STAGE,
            _NONE,
            *(_of(means[FIRST_STAGE][measure]) for measure in compared.measures),
            *([_NONE] * len(_HEADINGS)),
        )
    ]
    for row in result.rows:
        measured = (
            ["failed"] + [_NONE] * (len(compared.measures) - 1)
            if row.failed
            else [_of(means[row.name][measure]) for measure in compared.measures]
        )
        rows.append((row.name, row.kind, *measured, *_costs(row, result.queries)))
    measures = (f"{measure} ({LEVEL:.0%} interval)" for measure in compared.measures)
    title = f"{source.corpus}: the top {source.depth} of {source.run}, {result.queries} judged queries"
    return Sheet(title, ("reranker", "strategy", *measures, *_HEADINGS), tuple(rows), words=2)


def _costs(row: ShootoutRow, queries: int) -> tuple[str, ...]:
    budget = ", ".join(f"{limit:,} {_UNITS[name]}" for name, limit in row.budget.items()) or _NONE
    if row.cost is None:
        return (budget, *([_NONE] * (len(_HEADINGS) - 1)))
    summary, usage = row.cost.summary, row.cost.summary.usage
    return (
        budget,
        f"{row.ended}" if row.budget else _NONE,
        f"{usage.calls / queries:,.1f}",
        f"{usage.prompt_tokens / queries:,.0f}",
        f"{usage.completion_tokens / queries:,.0f}",
        f"{row.cost.seconds:,.1f}",
        f"{summary.repairs:,}",
    )


def _of(estimate: MeanEstimate) -> str:
    interval = estimate.interval
    return f"{estimate.mean:.4f}" + ("" if interval is None else f" ({interval.low:.4f} to {interval.high:.4f})")


def shootout_data(result: ShootoutResult) -> dict[str, Any]:
    """Lays a shoot-out out as JSON data."""
    compared, terms = result.comparison, result.terms
    return {
        "settings": {
            **asdict(terms.source),
            "ranked_queries": result.queries,
            "max_calls": terms.max_calls,
            "max_tokens": terms.max_tokens,
            **asdict(compared.settings),
        },
        "first_stage": {"measures": measures_data(compared, FIRST_STAGE)},
        "rerankers": [_entry(row, result) for row in result.rows],
    }


def _entry(row: ShootoutRow, result: ShootoutResult) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": row.name, "strategy": row.kind, "budget": dict(row.budget)}
    if row.cost is None:
        return {**entry, "failed": row.failed}
    summary = asdict(row.cost.summary)
    return {
        **entry,
        "measures": measures_data(result.comparison, row.name),
        "budget_reached": row.ended,
        **summary.pop("usage"),
        **summary,
        "seconds": row.cost.seconds,
        "settings": row.settings,
    }
