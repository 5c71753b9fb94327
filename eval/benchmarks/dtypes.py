"""One model measured in several floating-point types: float32 beside bfloat16."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.sheets import Sheet

from .rows import SpeedResult, rate

DTYPES = ("auto", "float32", "bfloat16", "float16")

_NONE = "–"
_HEADINGS = ("dtype", "variant", "seconds", "× first", "read tokens/s", "× first", "written tokens/s", "× first")
_Figures = tuple[float, float | None, float | None]


def parse_dtypes(text: str) -> tuple[str, ...]:
    """Reads names of dtypes split by commas or white space; repeats are dropped."""
    names = tuple(dict.fromkeys(re.findall(r"[^\s,]+", text)))
    if not names:
        raise InputError(f"no dtype given: name at least one of {', '.join(DTYPES)}")
    if unknown := [name for name in names if name not in DTYPES]:
        raise InputError(f"dtype is {unknown[0]!r}: use {', '.join(DTYPES)}, or several, split by commas")
    return names


def dtypes_sheet(results: Mapping[str, SpeedResult]) -> Sheet:
    """A row per dtype and variant, each beside the first dtype's, and one for all variants together."""
    first = _figures(next(iter(results.values())))
    rows = []
    for dtype, result in results.items():
        for name, (seconds, *rates) in _figures(result).items():
            before, *rates_before = first[name]
            cells = [dtype, name, f"{seconds:,.3f}", f"{before / seconds:.2f}"]
            for now, earlier in zip(rates, rates_before, strict=True):
                cells.append(_NONE if now is None else f"{now:,.0f}")
                cells.append(_NONE if now is None or earlier is None else f"{now / earlier:.2f}")
            rows.append(tuple(cells))
    return Sheet("The same work in each kind of numbers", _HEADINGS, tuple(rows), words=2)


def _figures(result: SpeedResult) -> dict[str, _Figures]:
    """Seconds, tokens read per second and tokens written per second of each row, and of all of them."""
    measured = [result.floor, *result.rows]
    found: dict[str, _Figures] = {
        row.variant: (row.seconds, rate(row.metered.reading), rate(row.metered.writing)) for row in measured
    }
    reading, writing = ([getattr(row.metered, name) for row in measured] for name in ("reading", "writing"))
    return found | {"all rows": (sum(row.seconds for row in measured), rate(*reading), rate(*writing))}


def dtypes_data(results: Mapping[str, SpeedResult]) -> list[dict[str, Any]]:
    """The comparison as JSON data: an entry for each row of `dtypes_sheet`."""
    keys = ("seconds", "read_tokens_per_second", "written_tokens_per_second")
    return [
        {"dtype": dtype, "variant": name, **dict(zip(keys, figures, strict=True))}
        for dtype, result in results.items()
        for name, figures in _figures(result).items()
    ]
