"""A shoot-out, or a benchmark of quality, as a picture: the first measure against costs."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.eval.output.pictures import COLOURS, GREY, new_figure, tidy, write_png

from .entries import FIRST_STAGE
from .shootout import ShootoutResult

PICTURE = "shootout.png"
FEATURE, EXTRA = "Drawing shoot-outs", "eval"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # as many as colours, for those who can't tell these apart


def plot_shootout(result: ShootoutResult, path: Path) -> None:
    """Draws each ranker's first measure with its 95% interval over calls, tokens and seconds, by magnitudes.

    The grey line and band are the first stage's mean and interval, where it is the baseline.
    """
    compared, measure = result.comparison, result.comparison.measures[0]
    figure = new_figure(14, 4.6 + 0.17 * -(-len(result.rows) // 4), feature=FEATURE, extra=EXTRA)
    axes = figure.subplots(1, 3, sharey=True)
    axes[0].set_ylabel(f"mean {measure} and its 95% interval", fontsize=9)
    costs = ("calls per query", "tokens per query: computed of prompts, and written", "seconds per query")
    for place, (axis, cost) in enumerate(zip(axes, costs, strict=True)):
        axis.set_xlabel(cost, fontsize=9)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:,g}")
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
