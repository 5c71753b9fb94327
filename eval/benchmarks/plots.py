"""A benchmark as a picture: seconds and tokens of each variant, or measures against costs."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.eval.output.pictures import COLOURS, GREY, draw_estimate, look_of, new_figure, tidy, write_png

from .quality import QualityResult
from .rows import FLOOR, SpeedResult

PICTURE = "benchmark.png"
FEATURE, EXTRA = "Drawing benchmarks", "eval"


def plot_speed(result: SpeedResult, path: Path) -> None:
    """Draws a bar a variant: seconds, by what they went to, and prompt tokens in full prompts."""
    rows = (result.floor, *result.rows)
    figure = new_figure(10.5, 1.4 + 0.36 * len(rows), feature=FEATURE, extra=EXTRA)
    left, right = figure.subplots(1, 2, sharey=True)
    places = list(range(len(rows)))
    queries = result.settings.queries
    parts = {
        "reading": [row.metered.reading.seconds * result.scale(row) / queries for row in rows],
        "writing": [row.metered.writing.seconds * result.scale(row) / queries for row in rows],
    }
    whole = [row.seconds * result.scale(row) / queries for row in rows]
    parts["the rest"] = [
        max(0.0, all_ - read - wrote)
        for all_, read, wrote in zip(whole, parts["reading"], parts["writing"], strict=True)
    ]
    begin = [0.0] * len(rows)
    for (name, seconds), colour in zip(parts.items(), (COLOURS[0], COLOURS[4], GREY), strict=True):
        left.barh(places, seconds, left=begin, color=colour, label=name, height=0.66)
        begin = [start + length for start, length in zip(begin, seconds, strict=True)]
    for place, total in zip(places, whole, strict=True):
        left.annotate(f" {total:.3g}", (total, place), va="center", fontsize=8)
    left.set_xlim(0, 1.12 * max(whole))
    left.set_yticks(places, [row.variant if row.variant != FLOOR else f"({FLOOR})" for row in rows])
    left.invert_yaxis()
    left.set_xlabel("seconds per query", fontsize=9)
    left.legend(fontsize=8, frameon=False, loc="lower right")
    full = result.floor.prompt_tokens
    sent = [row.prompt_tokens * result.scale(row) / full for row in rows]
    computed = [result.computed_ratio(row) for row in rows]
    right.barh(places, sent, color=COLOURS[5], alpha=0.45, height=0.66, label="sent")
    right.barh(places, computed, color=COLOURS[0], height=0.4, label="computed")
    for place, value in zip(places, computed, strict=True):
        right.annotate(f" {value:.2f}", (value, place), va="center", fontsize=8)
    right.axvline(1, color="#444444", linewidth=0.8, linestyle="--")
    right.set_xlabel("prompt tokens, in full prompts", fontsize=9)
    right.legend(fontsize=8, frameon=False, loc="lower right")
    for axis in (left, right):
        tidy(axis)
    write_png(figure, path)


def plot_quality(result: QualityResult, path: Path) -> None:
    """Draws the first measure with its 95% interval, against tokens and against seconds per query."""
    figure = new_figure(10.0, 4.2, feature=FEATURE, extra=EXTRA)
    left, right = figure.subplots(1, 2, sharey=True)
    compared = result.comparison
    measure = compared.measures[0]
    runs = {run.name: run for run in (compared.baseline, *compared.runs)}
    for number, row in enumerate(result.rows):
        estimate = runs[row.name].means[measure]
        colour, marker = look_of(number)
        for axis, cost in ((left, row.tokens_computed), (right, row.seconds / result.queries)):
            draw_estimate(axis, cost, estimate, label=row.name, colour=colour, marker=marker)
    left.set_ylabel(f"mean {measure} and its 95% interval", fontsize=9)
    left.set_xlabel("tokens computed a query: of prompts, and written", fontsize=9)
    right.set_xlabel("seconds per query", fontsize=9)
    for axis in (left, right):
        axis.set_xlim(left=0)
        tidy(axis)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    write_png(figure, path)
