"""A benchmark of speed as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.output import manifest
from r1ranker_ir.eval.output.sheets import NOTHING, Sheet, figure

from .model import BenchmarkModel
from .rows import SpeedResult, SpeedRow

RESULT_FILE = "benchmark.json"
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
    return {
        "settings": asdict(result.settings),
        "one_forward_pass": _entry(result, result.floor),
        "variants": variants,
    }


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
