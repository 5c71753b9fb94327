"""Lines of a source as they stand, with their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.errors import DataFileError
from r1ranker_ir.files.json_lines import WHITE_SPACE, readable_lines
from r1ranker_ir.files.plain_data import number_of


def source_lines(path: Path, encodings: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file that are not blank, in the first of some encodings that fits."""
    for number, raw in readable_lines(path):
        line = _decoded(raw, encodings)
        if line is None:
            raise DataFileError(f"{path}:{number}: not {' nor '.join(encodings)}: convert the file")
        if number == 1:
            line = line.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
        if line.strip(WHITE_SPACE):
            yield number, line.rstrip("\r\n")


def time_of(cell: str, where: str, problems: Problems) -> float | None:
    """Reads a time stamp; `None` for what is not a number, which is a problem."""
    try:
        time = number_of(cell)
    except ValueError:
        time = math.nan
    if math.isfinite(time):
        return time
    problems.add(where, "time is no number", repr(cell))
    return None


def _decoded(raw: bytes, encodings: tuple[str, ...]) -> str | None:
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None
