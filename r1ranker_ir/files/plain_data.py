"""Plain data out of JSON and TOML, and what such data may be: finite, not endless, numbers that a float can hold."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from typing import Any

LONGEST_NUMBER = 100
"""How many digits a whole number may have: no count, id or seed has more, and every float can hold it."""
DEEPEST = 100
"""How deep lists and objects may lie in each other; far below where Python's stack ends."""
_LARGEST = 10**LONGEST_NUMBER


def parse_json(text: str | bytes, *, finite: bool = True, unique: bool = False) -> Any:
    """Parses JSON, and refuses what could only make trouble later."""
    try:
        content = json.loads(
            text,
            parse_int=_whole,
            parse_float=_finite if finite else None,
            parse_constant=_refused if finite else None,
            object_pairs_hook=_object if unique else None,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return content


def parse_toml_text(text: str) -> dict[str, Any]:
    """Parses TOML."""
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_plain(content)
    return content


def number_of(cell: str) -> float:
    """Reads a number of a table; Python's own `1_000` and digits of other scripts are none, as in C."""
    return float(_plain_digits(cell))


def whole_number_of(cell: str) -> int:
    """Reads a whole number of a table; arguments and errors as for `number_of`."""
    return int(_plain_digits(cell))


def _plain_digits(cell: str) -> str:
    if "_" in cell or not cell.isascii():
        raise ValueError("not a number")
    return cell


def check_plain(content: Any) -> None:
    """Checks data that a parser has made: no endless nesting, no number that is not finite or too long."""
    left: list[tuple[Any, int]] = [(content, 0)]
    while left:
        value, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        if isinstance(value, Mapping):
            left.extend((each, depth + 1) for pair in value.items() for each in pair)
        elif isinstance(value, list | tuple | set):
            left.extend((each, depth + 1) for each in value)
        elif isinstance(value, int):
            if abs(value) >= _LARGEST:
                raise ValueError(f"a number of more than {LONGEST_NUMBER} digits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value!r} where a finite number is needed")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:60]!r} is given twice: keep one")
    return made


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of more than {LONGEST_NUMBER} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is beyond a float's range")
    return number


def _refused(name: str) -> float:
    raise ValueError(f"{name} where a finite number is needed")
