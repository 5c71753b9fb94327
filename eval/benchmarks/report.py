"""A benchmark as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ranker_ir.eval.measuring.comparison import MeanEstimate
from r1ranker_ir.eval.measuring.judged_rows import measures_data
from r1ranker_ir.eval.output import manifest
from r1ranker_ir.eval.output.sheets import Sheet

from .model import BenchmarkModel
from .quality import QualityResult
from .rows import SpeedResult, SpeedRow

RESULT_FILE = "benchmark.json"
_NONE = "–"
_SPEED_HEADINGS = (
    *("variant", "calls", "prompt tokens sent", "computed", "full prompts", "generated", "seconds"),
    *("× faster than naive", "× one pass", "s reading", "s writing"),
)
_DEVICE_HEADINGS = ("peak GiB", "read tokens/s", "written tokens/s", "matrix peak", "bandwidth peak")
_QUALITY_HEADINGS = (
    *("calls", "prompt tokens sent", "computed", "generated", "seconds"),
    "s per query",
)


def speed_sheet(result: SpeedResult, model: BenchmarkModel) -> Sheet:
    """Lays a benchmark of speed out."""
    asked = result.settings
    on_cuda = result.floor.device_memory_peak is not None
    described = model.described()
    title = (
        f"{model.name} ({described['parameters'] / 1e6:,.1f} million parameters, {described['dtype']}, "
        f"{described['device']}): {asked.queries} {'list' if asked.queries == 1 else 'lists'} of "
        f"{asked.candidates} passages of {asked.passage_tokens} tokens, thoughts of {asked.thought_tokens}, "
        f"{asked.order} order, batches of {asked.batch_size}"
    )
    headings = _SPEED_HEADINGS + (_DEVICE_HEADINGS if on_cuda else ())
    rows = []
    for row in (result.floor, *result.rows):
        cells = _speed_cells(result, row)
        rows.append(cells + _device_cells(row) if on_cuda else cells)
    return Sheet(title, headings, tuple(rows))


def _speed_cells(result: SpeedResult, row: SpeedRow) -> tuple[str, ...]:
    scale, faster = result.scale(row), result.times_faster(row)
    is_floor = row is result.floor
    scaled = "" if scale == 1 else f" (scaled from {row.queries} of {result.settings.queries} lists)"
    counts = (row.calls, row.prompt_tokens, row.prompt_tokens_computed)
    reading, writing = row.metered.reading, row.metered.writing
    return (
        row.variant + scaled,
        *(f"{count * scale:,.0f}" for count in counts),
        f"{result.computed_ratio(row):.2f}",
        f"{row.completion_tokens * scale:,.0f}",
        f"{row.seconds * scale:.3f}",
        _NONE if faster is None or is_floor else f"{faster:.2f}",
        f"{result.times_floor(row):.2f}",
        f"{reading.seconds * scale:.3f}",
        f"{writing.seconds * scale:.3f}",
    )


def _device_cells(row: SpeedRow) -> tuple[str, ...]:
    reading, writing = row.metered.reading, row.metered.writing
    return (
        f"{(row.device_memory_peak or 0) / 2**30:.2f}",
        *(f"{phase.tokens / phase.seconds:,.0f}" if phase.seconds else _NONE for phase in (reading, writing)),
        *(_NONE if share is None else f"{share:.1%}" for share in row.shares.values()),
    )


def quality_sheet(result: QualityResult, model: BenchmarkModel) -> Sheet:
    """Lays a benchmark of quality out."""
    compared, source = result.comparison, result.source
    runs = {run.name: run for run in (compared.baseline, *compared.runs)}
    differences = {(each.run, each.measure): each.mean for each in compared.differences}
    rows = []
    for row in result.rows:
        figures = []
        for measure in compared.measures:
            difference = differences.get((row.name, measure))
            figures += [
                f"{runs[row.name].means[measure].mean:.4f}",
                _NONE if difference is None else _of(difference),
            ]
        usage = row.summary.usage
        counts = (usage.calls, usage.prompt_tokens, row.summary.prompt_tokens_computed, usage.completion_tokens)
        costs = [f"{row.seconds:.3f}", f"{row.seconds / result.queries:.3f}"]
        rows.append((row.name, *figures, *(f"{count:,}" for count in counts), *costs))
    measured = [
        text
        for measure in compared.measures
        for text in (str(measure), f"minus {compared.baseline.name} (95% interval)")
    ]
    title = f"{model.name} on {source.corpus}: the top {source.depth} of {source.run}, {result.queries} queries"
    return Sheet(title, ("variant", *measured, *_QUALITY_HEADINGS), tuple(rows))


def _of(difference: MeanEstimate) -> str:
    interval = difference.interval
    shown = "" if interval is None else f" ({interval.low:+.4f} to {interval.high:+.4f})"
    return f"{difference.mean:+.4f}{shown}"


def speed_data(result: SpeedResult) -> dict[str, Any]:
    """Lays a benchmark of speed out as JSON data: what was measured, unscaled, and the ratios."""
    return {
        "settings": asdict(result.settings),
        "one_forward_pass": _speed_entry(result, result.floor),
        "variants": [
            {
                **_speed_entry(result, row),
                "times_faster_than_naive": result.times_faster(row),
                "forced_order_kept": list(row.orders) == list(result.forced[: row.queries]),
            }
            for row in result.rows
        ],
    }


def _speed_entry(result: SpeedResult, row: SpeedRow) -> dict[str, Any]:
    entry = asdict(row)
    del entry["orders"]
    reading, writing = row.metered.reading, row.metered.writing
    return {
        **entry,
        "read_tokens_per_second": reading.tokens / reading.seconds if reading.seconds else None,
        "written_tokens_per_second": writing.tokens / writing.seconds if writing.seconds else None,
        "scale": result.scale(row),
        "computed_per_full_prompt": result.computed_ratio(row),
        "times_one_forward_pass": result.times_floor(row),
    }


def quality_data(result: QualityResult) -> dict[str, Any]:
    """Lays a benchmark of quality out as JSON data."""
    compared = result.comparison
    variants = []
    for row in result.rows:
        summary = asdict(row.summary)
        costs = {**summary.pop("usage"), **summary, "seconds": row.seconds}
        variants.append({"variant": row.name, "measures": measures_data(compared, row.name), **costs})
    return {
        "settings": {**asdict(result.source), "ranked_queries": result.queries, **asdict(compared.settings)},
        "baseline": compared.baseline.name,
        "variants": variants,
    }


def write_result(folder: Path, figures: dict[str, Any], model: BenchmarkModel, command: Sequence[str]) -> Path:
    """Writes all figures and what they were made with."""
    path = folder / RESULT_FILE
    made_with = manifest.made_with(command, "transformers", "matplotlib")
    manifest.write_result(path, {**made_with, "model": model.described(), **figures})
    return path


def write_comparison(folder: Path, rows: Sequence[Mapping[str, Any]], command: Sequence[str]) -> Path:
    """Writes the figures of several kinds of numbers beside each other."""
    path = folder / RESULT_FILE
    manifest.write_result(path, {**manifest.made_with(command, "transformers", "matplotlib"), "dtypes": list(rows)})
    return path
