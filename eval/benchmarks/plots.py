"""A benchmark of speed as a picture: seconds and tokens of each variant."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.eval.output.pictures import COLOURS, GREY, new_figure, tidy, write_png

from .rows import FLOOR, SpeedResult

PICTURE = "benchmark.png"
FEATURE, EXTRA = "Drawing benchmarks", "eval"


def plot_speed(result: SpeedResult, path: Path) -> None:
    """Draws a bar per variant: seconds, by what they went to, and prompt tokens in full prompts."""
    rows = (result.floor, *result.rows)
    figure = new_figure(10.5, 1.4 + 0.36 * len(rows), feature=FEATURE, extra=EXTRA)
    left, right = figure.subplots(1, 2, sharey=True)
    places = list(range(len(rows)))
    scales = [result.scale(row) / result.settings.queries for row in rows]
    whole, reading, writing = (
        [seconds * scale for seconds, scale in zip(column, scales, strict=True)]
        for column in (
            [row.seconds for row in rows],
            [row.metered.reading.seconds for row in rows],
            [row.metered.writing.seconds for row in rows],
        )
    )
    rest = [max(0.0, all_ - read - wrote) for all_, read, wrote in zip(whole, reading, writing, strict=True)]
    begin = [0.0] * len(rows)
    for name, seconds, colour in (
        ("reading", reading, COLOURS[0]),
        ("writing", writing, COLOURS[4]),
        ("the rest", rest, GREY),
    ):
        left.barh(places, seconds, left=begin, color=colour, label=name, height=0.66)
        begin = [start + length for start, length in zip(begin, seconds, strict=True)]
    left.set_xlim(0, 1.12 * max(whole))
    left.set_yticks(places, [row.variant if row.variant != FLOOR else f"({FLOOR})" for row in rows])
    left.invert_yaxis()
    left.set_xlabel("seconds per query", fontsize=9)
    sent = [row.prompt_tokens * result.scale(row) / result.floor.prompt_tokens for row in rows]
    computed = [result.computed_ratio(row) for row in rows]
    right.barh(places, sent, color=COLOURS[5], alpha=0.45, height=0.66, label="sent")
    right.barh(places, computed, color=COLOURS[0], height=0.4, label="computed")
    right.axvline(1, color="#444444", linewidth=0.8, linestyle="--")
    right.set_xlabel("prompt tokens, in full prompts", fontsize=9)
    for axis, values, form in ((left, whole, ".3g"), (right, computed, ".2f")):
        for place, value in zip(places, values, strict=True):
            axis.annotate(f" {value:{form}}", (value, place), va="center", fontsize=8)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
        tidy(axis)
    write_png(figure, path)
