"""A comparison of trainings as tables: for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.files.partial import write_whole

from .comparison import LEVEL, MEASURE, Comparison, Estimate, MethodSummary

_NOTHING = "–"
_ACCURACY = "accuracy@"


def sheets(comparison: Comparison) -> list[Sheet]:
    """Lays a comparison out."""
    return [sheet for sheet in (_measures(comparison), _lengths(comparison), _pairs(comparison)) if sheet.rows]


def _measures(comparison: Comparison) -> Sheet:
    rows = [
        (
            method.label,
            ", ".join(str(run.seed) for run in method.runs),
            _cell(method.generated_tokens, "{:.0f}", margin=False),
            _cell(method.before[MEASURE]),
            _cell(method.after[MEASURE]),
            _cell(method.gain, "{:+.1f}", "{:.1f}"),
            _cell(method.before.get("nDCG@10")),
            _cell(method.after.get("nDCG@10")),
            _cell(method.seconds, "{:.0f}", margin=False),
        )
        for method in comparison.methods
    ]
    title = f"Held-out measures: means over the seeds ± half the {LEVEL:.0%} interval (Student's t)"
    costs = ("method", "seeds", "generated tokens")
    headings = (*costs, "RR before", "RR after", "gain in %", "nDCG@10 before", "nDCG@10 after", "seconds")
    return Sheet(title, headings, tuple(rows))


def _lengths(comparison: Comparison) -> Sheet:
    lengths = sorted({length for method in comparison.methods for length in accuracies(method)})
    rows = []
    for method in comparison.methods:
        if known := accuracies(method):
            cells = (known.get(length, (None, None)) for length in lengths)
            shown = (f"{_cell(before, '{:.3f}', margin=False)} → {_cell(after, '{:.3f}')}" for before, after in cells)
            rows.append((method.label, *shown))
    title = "Right exclusions by the number of candidates shown, before → after"
    return Sheet(title, ("method", *map(str, lengths)), tuple(rows))


def _pairs(comparison: Comparison) -> Sheet:
    rows = [
        (
            f"{pair.first} − {pair.second}",
            _cell(pair.difference, "{:+.4f}"),
            "< 0.0001" if pair.p_value < 0.0001 else f"{pair.p_value:.4f}",
            str(pair.better),
            str(pair.worse),
            str(pair.difference.count),
        )
        for pair in comparison.differences
    ]
    title = "RR after, list by list (means over the seeds); paired t-test over the lists"
    return Sheet(title, ("methods", "difference", "p", "lists better", "lists worse", "lists"), tuple(rows))


def accuracies(method: MethodSummary) -> dict[int, tuple[Estimate | None, Estimate | None]]:
    """Picks a method's accuracy by list length."""
    names = [name for name in {**method.before, **method.after} if name.startswith(_ACCURACY)]
    by_length = {int(name.removeprefix(_ACCURACY)): name for name in names}
    return {length: (method.before.get(name), method.after.get(name)) for length, name in sorted(by_length.items())}


def _cell(value: Estimate | None, form: str = "{:.4f}", margin_form: str = "", *, margin: bool = True) -> str:
    if value is None:
        return _NOTHING
    text = form.format(value.mean)
    # Equal values differ from their mean by rounding alone.
    if not margin or value.margin is None or value.margin < 1e-9:
        return text
    return f"{text} ± {(margin_form or form.replace('+', '')).format(value.margin)}"


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Lays a comparison out as plain data, with full precision."""
    return {
        "level": LEVEL,
        "methods": [_method_json(method) for method in comparison.methods],
        "differences": [
            vars(pair) | {"measure": MEASURE, "difference": pair.difference.as_json()}
            for pair in comparison.differences
        ],
    }


def _method_json(method: MethodSummary) -> dict[str, Any]:
    single = {"generated_tokens": method.generated_tokens, "seconds": method.seconds, "gain_percent": method.gain}
    return {
        "method": method.label,
        **{name: None if value is None else value.as_json() for name, value in single.items()},
        "before": {name: value.as_json() for name, value in method.before.items()},
        "after": {name: value.as_json() for name, value in method.after.items()},
        "runs": [
            {
                "folder": str(run.folder),
                "seed": run.seed,
                "generated_tokens": run.generated_tokens,
                "seconds": run.seconds,
                "gain_percent": run.gain,
                "before": dict(run.before),
                "after": dict(run.after),
            }
            for run in method.runs
        ],
    }


def _as_text(comparison: Comparison) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=1000, highlight=False)
    console.print(*(sheet.table() for sheet in sheets(comparison)))
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.splitlines()) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    ".md": lambda comparison: "\n\n".join(sheet.markdown() for sheet in sheets(comparison)) + "\n",
    ".json": lambda comparison: json.dumps(comparison_json(comparison), indent=2, ensure_ascii=False) + "\n",
    ".txt": _as_text,
}
"""How a comparison is written, by the ending of the file's name."""


def check_outputs(paths: Sequence[Path]) -> None:
    """Refuses files whose form can't be told."""
    for path in paths:
        if path.suffix.lower() not in FORMATS:
            raise InputError(f"output {str(path)!r}: give a name that ends in {', '.join(FORMATS)}")


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Writes a comparison into a file, in the form that its name's ending says."""
    path = Path(path)
    check_outputs([path])
    try:
        write_whole(path, FORMATS[path.suffix.lower()](comparison))
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another file") from error
