"""Reading whole files that are small by nature."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from r1ranker_ir.errors import InputError, R1RankerError

SETTINGS_BYTES = 2**20
"""More than any file of settings that a person writes; parsers of YAML and TOML take seconds for as much."""
RECORD_BYTES = 2**28
"""More than any record that a program writes of its work."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_small_text(
    path: str | os.PathLike[str],
    named: str,
    way_out: str,
    *,
    error: Callable[[str], R1RankerError] = InputError,
    most: int = SETTINGS_BYTES,
) -> str:
    """Reads a UTF-8 text file without its byte order mark, at most `most` bytes of it: `/dev/zero` has no end.

    Messages call it `named`, such as `template 'x.toml'`, and end with `way_out`, what to do if it can't be used.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(most + 1)
    except (OSError, ValueError) as problem:  # a path with a null character is a ValueError
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"{named} can't be read ({reason}): {way_out}") from problem
    if len(raw) > most:
        raise error(f"{named} can't be read: it holds more than {most >> 20} MiB: {way_out}")
    if raw.startswith(_UTF16):
        raise error(f"{named} is not UTF-8 text (it begins as UTF-16 does): convert it, or {way_out}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{named} is not UTF-8 text ({problem.reason}): {way_out}") from problem
    if "\0" in text:
        raise error(f"{named} is not text (it holds null characters): {way_out}")
    return text.replace("\r\n", "\n").replace("\r", "\n")
