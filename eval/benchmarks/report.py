"""A benchmark of speed as tables, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.output import manifest
from r1ranker_ir.eval.output.pictures import COLOURS, GREY, new_figure, tidy, write_png
from r1ranker_ir.eval.output.sheets import NOTHING, Sheet, figure

from .model import BenchmarkModel
from .rows import FLOOR, SpeedResult, SpeedRow

RESULT_FILE, PICTURE = "benchmark.json", "benchmark.png"
FEATURE, EXTRA = "Drawing benchmarks", "eval"
_HEADINGS = (
    *("variant", "calls", "prompt tokens sent", "computed", "full prompts", "generated", "seconds"),
    *("× faster than naive", "× one pass", "s reading", "s writing"),
)
_DTYPE_HEADINGS = ("dtype", "variant", "seconds", "× first", "read tokens/s", "× first", "written tokens/s", "× first")


def speed_sheet(result: SpeedResult, model: BenchmarkModel) -> Sheet:
    """A row per variant, the forward pass first."""
    asked, described = result.settings, model.described()
    title = (
        f"{model.name} ({described['parameters'] / 1e6:,.1f} million parameters, {described['dtype']}, "
        f"{described['device']}): {asked.queries} {'list' if asked.queries == 1 else 'lists'} of "
        f"{asked.candidates} passages of {asked.passage_tokens} tokens, thoughts of {asked.thought_tokens}, "
        f"{asked.order} order, batches of {asked.batch_size}"
    )
    return Sheet(title, _HEADINGS, tuple(_cells(result, row) for row in result.all_rows))


def _cells(result: SpeedResult, row: SpeedRow) -> tuple[str, ...]:
    scale = result.scale(row)
    scaled = "" if scale == 1 else f" (scaled from {row.queries} of {result.settings.queries} lists)"
    return (
        row.variant + scaled,
        *(f"{count * scale:,.0f}" for count in (row.calls, row.prompt_tokens, row.prompt_tokens_computed)),
        f"{result.computed_ratio(row):.2f}",
        f"{row.completion_tokens * scale:,.0f}",
        f"{row.seconds * scale:.3f}",
        NOTHING if row is result.floor else figure(result.times_faster(row), ".2f"),
        f"{result.times_floor(row):.2f}",
        f"{row.metered.reading.seconds * scale:.3f}",
        f"{row.metered.writing.seconds * scale:.3f}",
    )


def dtypes_sheet(results: Mapping[str, SpeedResult]) -> Sheet:
    """A row per dtype and variant, each beside the first dtype's."""
    first = {row.variant: row for row in next(iter(results.values())).all_rows}
    rows = []
    for dtype, result in results.items():
        for row in result.all_rows:
            before = first[row.variant]
            cells = [dtype, row.variant, f"{row.seconds:,.3f}", f"{before.seconds / row.seconds:.2f}"]
            for phase in ("reading", "writing"):
                now, earlier = (getattr(each.metered, phase).rate for each in (row, before))
                cells += [figure(now, ",.0f"), figure(now / earlier if now and earlier else None, ".2f")]
            rows.append(tuple(cells))
    return Sheet("The same work in each kind of numbers", _DTYPE_HEADINGS, tuple(rows), words=2)


def dtypes_data(results: Mapping[str, SpeedResult]) -> list[dict[str, Any]]:
    """The comparison as JSON data: an entry for each row of `dtypes_sheet`."""
    return [
        {"dtype": dtype, "variant": row.variant, "seconds": row.seconds, **_rates(row)}
        for dtype, result in results.items()
        for row in result.all_rows
    ]


def speed_data(result: SpeedResult) -> dict[str, Any]:
    """A benchmark of speed as JSON data: what was measured, unscaled, and the ratios."""
    variants = []
    for row in result.rows:
        kept = row.orders == list(result.forced[: row.queries])
        faster = result.times_faster(row)
        variants.append({**_entry(result, row), "times_faster_than_naive": faster, "forced_order_kept": kept})
    return {"settings": asdict(result.settings), "one_forward_pass": _entry(result, result.floor), "variants": variants}


def _entry(result: SpeedResult, row: SpeedRow) -> dict[str, Any]:
    entry = asdict(row)
    del entry["orders"]
    return {
        **entry,
        **_rates(row),
        "scale": result.scale(row),
        "computed_per_full_prompt": result.computed_ratio(row),
        "times_one_forward_pass": result.times_floor(row),
    }


def _rates(row: SpeedRow) -> dict[str, float | None]:
    metered = row.metered
    return {"read_tokens_per_second": metered.reading.rate, "written_tokens_per_second": metered.writing.rate}


def write_result(folder: Path, figures: Mapping[str, Any], command: Sequence[str]) -> Path:
    """Writes all figures and what they were made with."""
    path = folder / RESULT_FILE
    manifest.write_result(path, {**manifest.made_with(command, "transformers", "matplotlib"), **figures})
    return path


def plot_speed(result: SpeedResult, path: Path) -> None:
    """Draws a bar per variant: seconds, by what they went to, and prompt tokens in full prompts."""
    rows = result.all_rows
    drawn = new_figure(10.5, 1.4 + 0.36 * len(rows), feature=FEATURE, extra=EXTRA)
    left, right = drawn.subplots(1, 2, sharey=True)
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
    write_png(drawn, path)
