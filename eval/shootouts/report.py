"""A shoot-out, or a benchmark of quality, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from r1ranker_ir.eval.benchmarks.model import BenchmarkModel
from r1ranker_ir.eval.measuring.significance import LEVEL
from r1ranker_ir.eval.output.sheets import Sheet

from .entries import FIRST_STAGE
from .shootout import ShootoutResult, ShootoutRow

RESULT_FILE = "shootout.json"
_NONE = "–"
_HEADINGS = ("budget", "reached", "calls per query", "tokens read per query", "written", "seconds", "repairs")
_QUALITY_HEADINGS = ("calls", "prompt tokens sent", "computed", "generated", "seconds", "s per query")
_UNITS = {"max_calls": "calls", "max_tokens": "tokens"}


def shootout_sheet(result: ShootoutResult) -> Sheet:
    """A row per reranker behind the first stage's: measures with intervals, budget, and costs."""
    compared, source = result.comparison, result.terms.source
    first = [compared.baseline.means[measure].text() for measure in compared.measures]
    rows = [(FIRST_STAGE, _NONE, *first, *([_NONE] * len(_HEADINGS)))]
    for row in result.rows:
        measured = ["failed"] + [_NONE] * (len(compared.measures) - 1)
        if not row.failed:
            measured = [compared.run(row.name).means[measure].text() for measure in compared.measures]
        rows.append((row.name, row.kind, *measured, *_costs(row, result.queries)))
    measures = (f"{measure} ({LEVEL:.0%} interval)" for measure in compared.measures)
    title = f"{source.corpus}: the top {source.depth} of {source.run}, {result.queries} judged queries"
    return Sheet(title, ("reranker", "strategy", *measures, *_HEADINGS), tuple(rows), words=2)


def _costs(row: ShootoutRow, queries: int) -> tuple[str, ...]:
    budget = ", ".join(f"{limit:,} {_UNITS[name]}" for name, limit in row.budget.items()) or _NONE
    if row.summary is None:
        return (budget, *([_NONE] * (len(_HEADINGS) - 1)))
    usage = row.summary.usage
    return (
        budget,
        f"{row.ended}" if row.budget else _NONE,
        f"{usage.calls / queries:,.1f}",
        f"{usage.prompt_tokens / queries:,.0f}",
        f"{usage.completion_tokens / queries:,.0f}",
        f"{row.seconds:,.1f}",
        f"{row.summary.repairs:,}",
    )


def shootout_data(result: ShootoutResult) -> dict[str, Any]:
    """A shoot-out as JSON data: its settings, the first stage's measures, and each reranker's, with what it was."""
    terms = result.terms
    rerankers = []
    for row in result.rows:
        entry: dict[str, Any] = {"name": row.name, "strategy": row.kind, "budget": dict(row.budget)}
        if row.summary is None:
            entry["failed"] = row.failed
        else:
            entry |= {"budget_reached": row.ended, **_measured(row, result), "settings": row.settings}
        rerankers.append(entry)
    budget = {"max_calls": terms.max_calls, "max_tokens": terms.max_tokens}
    return {
        "settings": _settings(result) | budget,
        "first_stage": {"measures": _measures(result, FIRST_STAGE)},
        "rerankers": rerankers,
    }


def quality_sheet(result: ShootoutResult, model: BenchmarkModel) -> Sheet:
    """A row per variant: each measure, its difference from the baseline with a 95% interval, costs of all queries."""
    compared, source = result.comparison, result.terms.source
    rows = []
    for row in result.rows:
        assert row.summary is not None
        differences = compared.differences_of(row.name)
        figures = []
        for measure, estimate in compared.run(row.name).means.items():
            difference = differences.get(measure)
            figures += [f"{estimate.mean:.4f}", _NONE if difference is None else difference.mean.text("+")]
        usage = row.summary.usage
        counts = (usage.calls, usage.prompt_tokens, row.summary.prompt_tokens_computed, usage.completion_tokens)
        costs = [f"{row.seconds:.3f}", f"{row.seconds / result.queries:.3f}"]
        rows.append((row.name, *figures, *(f"{count:,}" for count in counts), *costs))
    minus = f"minus {compared.baseline.name} (95% interval)"
    measured = [heading for measure in compared.measures for heading in (str(measure), minus)]
    title = f"{model.name} on {source.corpus}: the top {source.depth} of {source.run}, {result.queries} queries"
    return Sheet(title, ("variant", *measured, *_QUALITY_HEADINGS), tuple(rows))


def quality_data(result: ShootoutResult) -> dict[str, Any]:
    """A benchmark of quality as JSON data: its settings, the baseline's name, and each variant's measures and costs."""
    return {
        "settings": _settings(result),
        "baseline": result.comparison.baseline.name,
        "variants": [{"variant": row.name, **_measured(row, result)} for row in result.rows],
    }


def _settings(result: ShootoutResult) -> dict[str, Any]:
    compared = asdict(result.comparison.settings)
    return {**asdict(result.terms.source), "ranked_queries": result.queries, **compared}


def _measured(row: ShootoutRow, result: ShootoutResult) -> dict[str, Any]:
    """Measures and costs of one ranker."""
    assert row.summary is not None
    summary = asdict(row.summary)
    return {"measures": _measures(result, row.name), **summary.pop("usage"), **summary, "seconds": row.seconds}


def _measures(result: ShootoutResult, name: str) -> dict[str, Any]:
    """Measure to mean, interval and, unless it is the baseline's, difference and tests."""
    compared = result.comparison
    differences = compared.differences_of(name)
    measures: dict[str, Any] = {}
    for measure, estimate in compared.run(name).means.items():
        entry: dict[str, Any] = {"mean": estimate.mean, "interval": estimate.interval}
        if (difference := differences.get(measure)) is not None:
            entry |= {
                "difference": difference.mean.mean,
                "difference_interval": difference.mean.interval,
                "p_value": difference.p_value,
                "corrected_p_value": difference.corrected,
                "per_query_difference": dict(difference.per_query),
            }
        measures[str(measure)] = entry
    return measures
