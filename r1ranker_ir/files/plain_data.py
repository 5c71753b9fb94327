"""Plain data out of JSON and TOML, and what such data may be: finite, not endless, numbers that a float can hold."""

from __future__ import annotations

import contextlib
import json
import math
import tomllib
from collections.abc import Mapping
from typing import Any

from r1ranker_ir.errors import DataFileError
from r1ranker_ir.quoting import quoted

LONGEST_NUMBER = 100
"""How many digits a whole number may have: no count, id or seed has more, and every float can hold it."""
DEEPEST = 100
"""How deep lists and objects may lie in each other; far below where Python's stack ends."""
_LARGEST = 10**LONGEST_NUMBER


def parse_json(text: str | bytes, *, finite: bool = True, unique: bool = False) -> Any:
    """Parses JSON, and refuses what could only make trouble later."""
    try:
        content = json.loads(text, object_pairs_hook=_object if unique else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_plain(content, finite=finite)
    return content


def parse_toml_text(text: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_plain(content)
    return content


def number_of(cell: str, named: str) -> float:
    """Reads a number of a table; Python's own `1_000` and digits of other scripts are none, as in C."""
    if "_" not in cell and cell.isascii():
        with contextlib.suppress(ValueError):
            return float(cell)
    raise DataFileError(f"{named} {quoted(cell)} is not a number")


def whole_number_of(cell: str, named: str) -> int:
    """Reads a whole number of a table, as `number_of` does; `named` is for the error: the place, and what it is."""
    if "_" not in cell and cell.isascii():
        with contextlib.suppress(ValueError):
            return int(cell)
    raise DataFileError(f"{named} {quoted(cell)} is not a whole number")


def check_plain(content: Any, *, finite: bool = True) -> None:
    """Checks data that a parser has made: no endless nesting, no number that is not finite or too long."""
    level, depth = [content], 0
    while level:
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                continue
            if isinstance(value, Mapping):
                inner += [*value, *value.values()]
            elif isinstance(value, list | tuple | set):
                inner += value
            elif isinstance(value, int):
                if abs(value) >= _LARGEST:
                    raise ValueError(f"a number of more than {LONGEST_NUMBER} digits")
            elif finite and isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{value!r} where a finite number is needed")
        level, depth = inner, depth + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:60]!r} is given twice: keep one")
    return made
