"""A benchmark of speed as a picture: seconds and tokens of each variant."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.eval.output.pictures import COLOURS, GREY, new_figure, tidy, write_png

from .rows import FLOOR, SpeedResult

PICTURE = "benchmark.png"
FEATURE, EXTRA = "Drawing benchmarks", "eval"


def plot_speed(result: SpeedResult, path: Path) -> None:
    """Draws a bar per variant: seconds, by what they went to, and prompt tokens in full prompts."""
    rows = result.all_rows
    figure = new_figure(10.5, 1.4 + 0.36 * len(rows), feature=FEATURE, extra=EXTRA)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        read, wrote = row.metered.reading.seconds, row.metered.writing.seconds
        parts = {"reading": read, "writing": wrote, "the rest": max(0.0, row.seconds - read - wrote)}
        begin = 0.0
        for (name, seconds), colour in zip(parts.items(), (COLOURS[0], COLOURS[4], GREY), strict=True):
            label = name if place == 0 else None
            left.barh(place, seconds / row.queries, left=begin, color=colour, label=label, height=0.66)
            begin += seconds / row.queries
        left.annotate(f" {begin:.3g}", (begin, place), va="center", fontsize=8)
        sent, computed = (
            row.prompt_tokens * result.scale(row) / result.floor.prompt_tokens,
            result.computed_ratio(row),
        )
        right.barh(place, sent, color=COLOURS[5], alpha=0.45, height=0.66, label=None if place else "sent")
        right.barh(place, computed, color=COLOURS[0], height=0.4, label=None if place else "computed")
        right.annotate(f" {computed:.2f}", (computed, place), va="center", fontsize=8)
    left.set_yticks(range(len(rows)), [row.variant if row.variant != FLOOR else f"({FLOOR})" for row in rows])
    left.invert_yaxis()
    left.margins(x=0.12)
    left.set_xlabel("seconds per query", fontsize=9)
    right.axvline(1, color="#444444", linewidth=0.8, linestyle="--")
    right.set_xlabel("prompt tokens, in full prompts", fontsize=9)
    for axis in (left, right):
        axis.legend(fontsize=8, frameon=False, loc="lower right")
        tidy(axis)
    write_png(figure, path)
