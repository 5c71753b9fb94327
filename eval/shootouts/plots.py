"""A shoot-out as a picture: the first measure against calls and against tokens."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.output.pictures import COLOURS, GREY, MARKERS, draw_estimate, new_figure, tidy, write_png
from r1ranker_ir.runs.traces import traced_strategies

from .shootout import ShootoutResult

PICTURE = "shootout.png"
FEATURE, EXTRA = "Drawing shoot-outs", "eval"


def plot_shootout(result: ShootoutResult, path: Path) -> None:
    """Draws each reranker's first measure with its 95% interval over its costs, on a scale of magnitudes.

    A colour is a strategy. The grey line and band are the first stage's mean and interval.
    """
    colours = dict(zip(traced_strategies(), itertools.cycle(COLOURS)))
    rows = [(row, row.cost) for row in result.rows if row.cost is not None]
    figure = new_figure(11.5, 5.0 + 0.17 * -(-len(rows) // 4), feature=FEATURE, extra=EXTRA)
    left, right = figure.subplots(1, 2, sharey=True)
    compared = result.comparison
    measure = compared.measures[0]
    means = {run.name: run.means[measure] for run in compared.runs}
    first_stage = compared.baseline.means[measure]
    for axis in (left, right):
        axis.axhline(first_stage.mean, color=GREY, linewidth=1.2, linestyle="--", label=compared.baseline.name)
        if first_stage.interval is not None:
            axis.axhspan(*first_stage.interval, color=GREY, alpha=0.12, linewidth=0)
    seen: Counter[str] = Counter()
    for row, cost in rows:
        marker = MARKERS[seen[row.kind] % len(MARKERS)]
        seen[row.kind] += 1
        usage = cost.summary.usage
        if not usage.calls:  # nothing to be shown on a scale of magnitudes: it is the first stage's order
            continue
        for axis, spent in ((left, usage.calls), (right, usage.prompt_tokens + usage.completion_tokens)):
            colour = colours[row.kind]
            each = spent / result.queries
            draw_estimate(axis, each, means[row.name], label=row.name, colour=colour, marker=marker)
    left.set_ylabel(f"mean {measure} and its 95% interval", fontsize=9)
    left.set_xlabel("calls per query", fontsize=9)
    right.set_xlabel("tokens per query: read, and written", fontsize=9)
    for axis in (left, right):
        _scale_by_magnitudes(axis)
        tidy(axis)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    write_png(figure, path)


def _scale_by_magnitudes(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1 else f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
