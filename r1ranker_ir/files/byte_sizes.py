"""Amounts of memory, as people write and read them."""

from __future__ import annotations

import re
from decimal import Decimal

from r1ranker_ir.errors import InputError

_UNITS = {
    **{"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")


def parse_bytes(text: int | str, name: str) -> int:
    """Reads bytes, or a number with a unit (`4GiB` counts by 1024, `4GB` by 1000); `name` is for the error."""
    found = _PATTERN.fullmatch(str(text).strip().lower())
    unit = _UNITS.get(found[2]) if found is not None else None
    if found is None or unit is None or (unit == 1 and "." in found[1]):
        raise InputError(f"{name} is {text!r}: give bytes, or a size such as 4GiB or 512MB; 0 for none")
    return int(Decimal(found[1]) * unit)


def in_units(size: int) -> str:
    """Writes bytes in GiB, MiB or KiB."""
    for unit, bytes_each in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= bytes_each:
            return f"{size / bytes_each:.1f} {unit}"
    return f"{size} bytes"
