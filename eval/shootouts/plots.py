"""A shoot-out as a picture: the first measure against costs."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.output.pictures import (
    COLOURS,
    GREY,
    MARKERS,
    draw_estimate,
    legend_below,
    look_of,
    new_figure,
    tidy,
    write_png,
)
from r1ranker_ir.runs.traces import traced_strategies

from .shootout import ShootoutResult

PICTURE = "shootout.png"
FEATURE, EXTRA = "Drawing shoot-outs", "eval"


def plot_shootout(result: ShootoutResult, path: Path) -> None:
    """Draws each reranker's first measure with its 95% interval over calls and tokens, on a scale of magnitudes.

    A colour is a strategy. The grey line and band are the first stage's mean and interval.
    """
    colours = dict(zip(traced_strategies(), itertools.cycle(COLOURS)))
    rows = [(row, row.summary.usage) for row in result.rows if row.summary is not None]
    figure, left, right = _two_panels(result, "calls per query", "tokens per query: read, and written", 5.0, len(rows))
    compared, measure = result.comparison, result.comparison.measures[0]
    first_stage = compared.baseline.means[measure]
    for axis in (left, right):
        axis.axhline(first_stage.mean, color=GREY, linewidth=1.2, linestyle="--", label=compared.baseline.name)
        if first_stage.interval is not None:
            axis.axhspan(*first_stage.interval, color=GREY, alpha=0.12, linewidth=0)
    seen: Counter[str] = Counter()
    for row, usage in rows:
        look = colours[row.kind], MARKERS[seen[row.kind] % len(MARKERS)]
        seen[row.kind] += 1
        if not usage.calls:  # nothing to be shown on a scale of magnitudes: it is the first stage's order
            continue
        mean = compared.run(row.name).means[measure]
        for axis, spent in ((left, usage.calls), (right, usage.prompt_tokens + usage.completion_tokens)):
            draw_estimate(axis, spent / result.queries, mean, label=row.name, look=look)
    for axis in (left, right):
        _scale_by_magnitudes(axis)
        tidy(axis)
    legend_below(figure, left, 4, fontsize=8)
    write_png(figure, path)


def plot_quality(result: ShootoutResult, path: Path) -> None:
    """Draws each variant's first measure with its 95% interval, against tokens and against seconds per query."""
    compared, measure = result.comparison, result.comparison.measures[0]
    tokens = "tokens computed per query: of prompts, and written"
    figure, left, right = _two_panels(result, tokens, "seconds per query", 4.2, 0)
    for number, row in enumerate(result.rows):
        assert row.summary is not None
        computed = row.summary.prompt_tokens_computed + row.summary.usage.completion_tokens
        for axis, cost in ((left, computed), (right, row.seconds)):
            mean = compared.run(row.name).means[measure]
            draw_estimate(axis, cost / result.queries, mean, label=row.name, look=look_of(number))
    for axis in (left, right):
        axis.set_xlim(left=0)
        tidy(axis)
    legend_below(figure, left, 4)
    write_png(figure, path)


def _two_panels(result: ShootoutResult, left_cost: str, right_cost: str, height: float, names: int) -> Any:
    """A figure with room for names below, and its two axes."""
    figure = new_figure(11.5, height + 0.17 * -(-names // 4), feature=FEATURE, extra=EXTRA)
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_ylabel(f"mean {result.comparison.measures[0]} and its 95% interval", fontsize=9)
    left.set_xlabel(left_cost, fontsize=9)
    right.set_xlabel(right_cost, fontsize=9)
    return figure, left, right


def _scale_by_magnitudes(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1 else f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
