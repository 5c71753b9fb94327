"""A comparison of trainings as tables: for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.significance import LEVEL, MeanEstimate
from r1ranker_ir.eval.output.comparison_report import p_text
from r1ranker_ir.eval.output.sheets import Sheet, tables_text
from r1ranker_ir.files.partial import write_whole

from .comparison import MEASURE, Comparison, MethodSummary

_ACCURACY = "accuracy@"


def sheets(comparison: Comparison) -> list[Sheet]:
    """Lays a comparison out."""
    measures = [
        (
            method.label,
            ", ".join(str(run.record.seed) for run in method.runs),
            _cell(method.generated_tokens, ".0f", margin=False),
            _cell(method.before[MEASURE]),
            _cell(method.after[MEASURE]),
            _cell(method.gain, "+.1f"),
            _cell(method.before.get("nDCG@10")),
            _cell(method.after.get("nDCG@10")),
            _cell(method.seconds, ".0f", margin=False),
        )
        for method in comparison.methods
    ]
    names = {name for method in comparison.methods for name in (*method.before, *method.after)}
    lengths = sorted(int(name.removeprefix(_ACCURACY)) for name in names if name.startswith(_ACCURACY))
    pairs = [
        (
            *(
                f"{pair.first} − {pair.second}{pair.file and f', {pair.file}'}",
                _cell(pair.difference, "+.4f"),
                p_text(pair.p_value),
            ),
            *(str(pair.better), str(pair.worse), str(pair.lists)),
        )
        for pair in comparison.differences
    ]
    files = list(dict.fromkeys(file for method in comparison.methods for file in method.files))
    laid_out = (
        Sheet(
            f"Held-out measures: means over the seeds ± half the {LEVEL:.0%} interval (Student's t)",
            ("method", "seeds", "generated tokens", "RR before", "RR after", "gain in %")
            + ("nDCG@10 before", "nDCG@10 after", "seconds"),
            tuple(measures),
        ),
        Sheet(
            "RR by held-out file, before → after",
            ("method", *files),
            tuple((method.label, *_by_file(method, files)) for method in comparison.methods if method.files),
        ),
        Sheet(
            "Right exclusions by the number of candidates shown, before → after",
            ("method", *map(str, lengths)),
            tuple(row for method in comparison.methods if (row := _by_length(method, lengths))),
        ),
        Sheet(
            "RR after, list by list (means over the seeds); paired t-test over the lists",
            ("methods", "difference", "p", "lists better", "lists worse", "lists"),
            tuple(pairs),
        ),
    )
    return [sheet for sheet in laid_out if sheet.rows]


def _by_length(method: MethodSummary, lengths: Sequence[int]) -> tuple[str, ...]:
    both = [(method.before.get(f"{_ACCURACY}{each}"), method.after.get(f"{_ACCURACY}{each}")) for each in lengths]
    cells = [f"{_cell(before, '.3f', margin=False)} → {_cell(after, '.3f')}" for before, after in both]
    return (method.label, *cells) if any(any(pair) for pair in both) else ()


def _by_file(method: MethodSummary, files: Sequence[str]) -> list[str]:
    found = [method.of_file(file) if file in method.files else None for file in files]
    return ["–" if each is None else f"{each[0]:.4f} → {_cell(each[1])}" for each in found]


def _cell(value: MeanEstimate | None, form: str = ".4f", *, margin: bool = True) -> str:
    if value is None:
        return "–"
    half = 0.0 if value.interval is None or not margin else (value.interval.high - value.interval.low) / 2
    # Equal values differ from their mean by rounding alone.
    return f"{value.mean:{form}}" + (f" ± {half:{form.removeprefix('+')}}" if half >= 1e-9 else "")


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Lays a comparison out as plain data, with full precision."""
    methods = []
    for method in comparison.methods:
        told: dict[str, Any] = {"method": method.label}
        for name, key in (("generated_tokens",) * 2, ("seconds",) * 2, ("gain", "gain_percent")):
            told[key] = _estimate_json(getattr(method, name), len(method.runs))
        for name in ("before", "after"):
            means = getattr(method, name).items()
            told[name] = {measure: _estimate_json(value, len(method.runs)) for measure, value in means}
        shown = {"seed", "generated_tokens", "seconds", "before", "after"}
        told["runs"] = [
            {"folder": str(run.folder), **run.record.model_dump(include=shown), "gain_percent": run.gain}
            for run in method.runs
        ]
        methods.append(told)
    differences = [vars(pair) | {"measure": MEASURE} for pair in comparison.differences]
    for pair in differences:
        pair["difference"] = _estimate_json(pair["difference"], pair.pop("lists"))
    return {"level": LEVEL, "methods": methods, "differences": differences}


def _estimate_json(value: MeanEstimate | None, count: int) -> dict[str, float | int | None] | None:
    if value is None:
        return None
    low, high = value.interval or (None, None)
    return {"mean": value.mean, "low": low, "high": high, "count": count}


FORMATS: dict[str, Callable[[Comparison], str]] = {
    ".md": lambda comparison: "\n\n".join(sheet.markdown() for sheet in sheets(comparison)) + "\n",
    ".json": lambda comparison: json.dumps(comparison_json(comparison), indent=2, ensure_ascii=False) + "\n",
    ".txt": lambda comparison: tables_text(sheets(comparison)),
}
"""How a comparison is written, by the ending of the file's name."""


def check_outputs(paths: Sequence[Path]) -> None:
    """Refuses files whose form can't be told."""
    if odd := [path for path in paths if path.suffix.lower() not in FORMATS]:
        raise InputError(f"output {str(odd[0])!r}: give a name that ends in {', '.join(FORMATS)}")


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Writes a comparison into a file, in the form that its name's ending says."""
    try:
        write_whole(path, FORMATS[path.suffix.lower()](comparison))
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another file") from error
