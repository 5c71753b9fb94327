"""One model measured in several kinds of numbers: float32 beside bfloat16."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.rankers.settings import Dtype

from .meter import Phase
from .rows import SpeedResult

DTYPES: tuple[str, ...] = get_args(Dtype)

_NONE = "–"
_HEADINGS = ("dtype", "variant", "seconds", "× first", "read tokens/s", "× first", "written tokens/s", "× first")
_ALL = "all rows"


def parse_dtypes(text: str) -> tuple[str, ...]:
    """Reads names of kinds of numbers.

    Args:
        text: split by commas or white space, such as `float32,bfloat16`.

    Returns:
        The names in order, repeats dropped.

    Raises:
        InputError: if there is none, or one is unknown.
    """
    names = tuple(dict.fromkeys(re.findall(r"[^\s,]+", text)))
    if not names:
        raise InputError(f"no dtype given: name at least one of {', '.join(DTYPES)}")
    if unknown := [name for name in names if name not in DTYPES]:
        raise InputError(f"dtype is {unknown[0]!r}: use {', '.join(DTYPES)}, or several, split by commas")
    return names


def dtypes_sheet(results: Mapping[str, SpeedResult]) -> Sheet:
    """Lays the same rows out in several kinds of numbers, each beside the first kind.

    Args:
        results: dtype to what was measured in it, of the same variants.

    Returns:
        For each dtype a row for each variant, and one for all of them together.
    """
    first, *_ = results.values()
    rows = []
    for dtype, result in results.items():
        for name, figures in _figures(result).items():
            beside = _figures(first)[name]
            cells = [dtype, name]
            for figure, other, places in zip(figures, beside, (3, 0, 0), strict=True):
                # Of seconds, fewer are better.
                better = (other, figure) if places else (figure, other)
                times = None if None in better else better[0] / better[1]  # type: ignore[operator]
                cells += [
                    _NONE if figure is None else f"{figure:,.{places}f}",
                    _NONE if times is None else f"{times:.2f}",
                ]
            rows.append(tuple(cells))
    return Sheet("The same work in each kind of numbers", _HEADINGS, tuple(rows), words=2)


def _figures(result: SpeedResult) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Seconds, tokens read a second and tokens written a second of each row, and of all of them."""
    measured = [result.floor, *result.rows]
    found: dict[str, tuple[float | None, float | None, float | None]] = {
        row.variant: (row.seconds, _rate(row.metered.reading), _rate(row.metered.writing)) for row in measured
    }
    found[_ALL] = (
        sum(row.seconds for row in measured),
        _rate(*(row.metered.reading for row in measured)),
        _rate(*(row.metered.writing for row in measured)),
    )
    return found


def _rate(*phases: Phase) -> float | None:
    seconds = sum(phase.seconds for phase in phases)
    return sum(phase.tokens for phase in phases) / seconds if seconds else None


def dtypes_data(results: Mapping[str, SpeedResult]) -> list[dict[str, Any]]:
    """The comparison as JSON data: an entry for each row of `dtypes_sheet`."""
    return [
        {
            "dtype": dtype,
            "variant": name,
            "seconds": seconds,
            "read_tokens_per_second": read,
            "written_tokens_per_second": written,
        }
        for dtype, result in results.items()
        for name, (seconds, read, written) in _figures(result).items()
    ]
