"""A benchmark of speed as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.output import manifest
from r1ranker_ir.eval.output.sheets import Sheet

from .model import BenchmarkModel
from .rows import SpeedResult, SpeedRow, rate

RESULT_FILE = "benchmark.json"
_NONE = "–"
_HEADINGS = (
    *("variant", "calls", "prompt tokens sent", "computed", "full prompts", "generated", "seconds"),
    *("× faster than naive", "× one pass", "s reading", "s writing"),
)
_DEVICE_HEADINGS = ("peak GiB", "read tokens/s", "written tokens/s", "matrix peak", "bandwidth peak")


def speed_sheet(result: SpeedResult, model: BenchmarkModel) -> Sheet:
    """A row per variant, the forward pass first; on a CUDA device with columns about that."""
    asked, described = result.settings, model.described()
    title = (
        f"{model.name} ({described['parameters'] / 1e6:,.1f} million parameters, {described['dtype']}, "
        f"{described['device']}): {asked.queries} {'list' if asked.queries == 1 else 'lists'} of "
        f"{asked.candidates} passages of {asked.passage_tokens} tokens, thoughts of {asked.thought_tokens}, "
        f"{asked.order} order, batches of {asked.batch_size}"
    )
    rows = [(*_cells(result, row), *_device_cells(row)) for row in (result.floor, *result.rows)]
    on_cuda = result.floor.device_memory_peak is not None
    return Sheet(title, _HEADINGS + (_DEVICE_HEADINGS if on_cuda else ()), tuple(rows))


def _cells(result: SpeedResult, row: SpeedRow) -> tuple[str, ...]:
    scale, faster = result.scale(row), result.times_faster(row)
    scaled = "" if scale == 1 else f" (scaled from {row.queries} of {result.settings.queries} lists)"
    return (
        row.variant + scaled,
        *(f"{count * scale:,.0f}" for count in (row.calls, row.prompt_tokens, row.prompt_tokens_computed)),
        f"{result.computed_ratio(row):.2f}",
        f"{row.completion_tokens * scale:,.0f}",
        f"{row.seconds * scale:.3f}",
        _NONE if faster is None or row is result.floor else f"{faster:.2f}",
        f"{result.times_floor(row):.2f}",
        f"{row.metered.reading.seconds * scale:.3f}",
        f"{row.metered.writing.seconds * scale:.3f}",
    )


def _device_cells(row: SpeedRow) -> tuple[str, ...]:
    if row.device_memory_peak is None:
        return ()
    rates = (rate(row.metered.reading), rate(row.metered.writing))
    return (
        f"{row.device_memory_peak / 2**30:.2f}",
        *(_NONE if each is None else f"{each:,.0f}" for each in rates),
        *(_NONE if share is None else f"{share:.1%}" for share in row.shares.values()),
    )


def speed_data(result: SpeedResult) -> dict[str, Any]:
    """A benchmark of speed as JSON data: what was measured, unscaled, and the ratios."""
    return {
        "settings": asdict(result.settings),
        "one_forward_pass": _entry(result, result.floor),
        "variants": [
            {
                **_entry(result, row),
                "times_faster_than_naive": result.times_faster(row),
                "forced_order_kept": row.orders == list(result.forced[: row.queries]),
            }
            for row in result.rows
        ],
    }


def _entry(result: SpeedResult, row: SpeedRow) -> dict[str, Any]:
    entry = asdict(row)
    del entry["orders"]
    return {
        **entry,
        "read_tokens_per_second": rate(row.metered.reading),
        "written_tokens_per_second": rate(row.metered.writing),
        "scale": result.scale(row),
        "computed_per_full_prompt": result.computed_ratio(row),
        "times_one_forward_pass": result.times_floor(row),
    }


def write_result(folder: Path, figures: dict[str, Any], model: BenchmarkModel, command: Sequence[str]) -> Path:
    """Writes all figures of a model and what they were made with."""
    return _write(folder, {"model": model.described(), **figures}, command)


def write_comparison(folder: Path, rows: Sequence[Mapping[str, Any]], command: Sequence[str]) -> Path:
    """Writes the figures of several dtypes beside each other."""
    return _write(folder, {"dtypes": list(rows)}, command)


def _write(folder: Path, content: dict[str, Any], command: Sequence[str]) -> Path:
    path = folder / RESULT_FILE
    manifest.write_result(path, {**manifest.made_with(command, "transformers", "matplotlib"), **content})
    return path
