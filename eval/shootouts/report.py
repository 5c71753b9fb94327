"""A shoot-out, or a benchmark of quality, as a table, as JSON and as a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.measuring.significance import LEVEL
from r1ranker_ir.eval.output.pictures import COLOURS, GREY, new_figure, tidy, write_png
from r1ranker_ir.eval.output.sheets import NOTHING, Sheet

from .entries import FIRST_STAGE
from .shootout import ShootoutResult, ShootoutRow

RESULT_FILE, PICTURE = "shootout.json", "shootout.png"
FEATURE, EXTRA = "Drawing shoot-outs", "eval"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # as many as colours, for those who can't tell these apart
_COSTS = ("calls per query", "tokens read per query", "computed", "written", "seconds", "repairs")
_UNITS = {"max_calls": "calls", "max_tokens": "tokens"}


def shootout_sheet(result: ShootoutResult) -> Sheet:
    """A row per ranker: measures with intervals, their differences from the baseline, budgets if any, and costs."""
    compared, source = result.comparison, result.terms.source
    rows = list(result.rows)
    if compared.baseline.name == FIRST_STAGE:
        rows.insert(0, ShootoutRow(FIRST_STAGE, NOTHING, {}))
    limited = any(row.budget for row in rows)
    headings = ["ranker", "strategy"]
    for measure in compared.measures:
        headings += [f"{measure} ({LEVEL:.0%} interval)", f"minus {compared.baseline.name} ({LEVEL:.0%} interval)"]
    headings += ["budget", "reached"] if limited else []
    title = f"{source.corpus}: the top {source.depth} of {source.run}, {result.queries} judged queries"
    cells = (
        (row.name, row.kind, *_figures(result, row), *(_budget(row) if limited else ()), *_costs(row, result.queries))
        for row in rows
    )
    return Sheet(title, (*headings, *_COSTS), tuple(cells), words=2)


def _figures(result: ShootoutResult, row: ShootoutRow) -> list[str]:
    compared, cells = result.comparison, list[str]()
    if row.failed:
        return ["failed"] + [NOTHING] * (2 * len(compared.measures) - 1)
    differences = compared.differences_of(row.name)
    for measure, estimate in compared.run(row.name).means.items():
        cells += [estimate.text(), differences[measure].mean.text("+") if measure in differences else NOTHING]
    return cells


def _budget(row: ShootoutRow) -> tuple[str, str]:
    budget = ", ".join(f"{limit:,} {_UNITS[name]}" for name, limit in row.budget.items())
    return budget or NOTHING, f"{row.ended}" if row.budget and row.summary is not None else NOTHING


def _costs(row: ShootoutRow, queries: int) -> tuple[str, ...]:
    if row.summary is None:
        return (NOTHING,) * len(_COSTS)
    usage = row.summary.usage
    tokens = (usage.prompt_tokens, row.summary.prompt_tokens_computed, usage.completion_tokens)
    return (
        f"{usage.calls / queries:,.1f}",
        *(f"{count / queries:,.0f}" for count in tokens),
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


def plot_shootout(result: ShootoutResult, path: Path) -> None:
    """Draws each ranker's first measure with its 95% interval over calls, tokens and seconds, by magnitudes.

    The grey line and band are the first stage's mean and interval, where it is the baseline.
    """
    from matplotlib.ticker import LogLocator

    compared, measure = result.comparison, result.comparison.measures[0]
    figure = new_figure(14, 4.6 + 0.17 * -(-len(result.rows) // 4), feature=FEATURE, extra=EXTRA)
    axes = figure.subplots(1, 3, sharey=True)
    axes[0].set_ylabel(f"mean {measure} and its 95% interval", fontsize=9)
    costs = ("calls per query", "tokens per query: computed of prompts, and written", "seconds per query")
    for place, (axis, cost) in enumerate(zip(axes, costs, strict=True)):
        axis.set_xlabel(cost, fontsize=9)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.xaxis.set_minor_formatter("")
        if compared.baseline.name == FIRST_STAGE:
            first_stage = compared.baseline.means[measure]
            axis.axhline(first_stage.mean, color=GREY, linewidth=1.2, linestyle="--", label=FIRST_STAGE)
            axis.axhspan(*first_stage.interval or (first_stage.mean,) * 2, color=GREY, alpha=0.12, linewidth=0)
        for number, row in enumerate(result.rows):
            # Without a call there is nothing to show on a scale of magnitudes: it is the first stage's order.
            if row.summary is not None and row.summary.usage.calls:
                tokens = row.summary.prompt_tokens_computed + row.summary.usage.completion_tokens
                spent = (row.summary.usage.calls, tokens, row.seconds)[place] / result.queries
                mean = compared.run(row.name).means[measure]
                low, high = mean.interval or (mean.mean, mean.mean)
                colour = COLOURS[number % len(COLOURS)]
                marker = _MARKERS[(number + number // len(COLOURS)) % len(_MARKERS)]
                reach = [[max(0.0, mean.mean - low)], [max(0.0, high - mean.mean)]]
                style = {"color": colour, "marker": marker, "markersize": 7, "capsize": 4, "linestyle": "none"}
                axis.errorbar(spent, mean.mean, yerr=reach, label=row.name, **style)
        tidy(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    write_png(figure, path)
