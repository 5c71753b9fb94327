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


def source_rows(
    path: Path, encodings: tuple[str, ...], mark: str, width: int, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Yields the lines of a file, split into so many cells, with their places."""
    return rows_of(path, source_lines(path, encodings), mark, width, problems)


def rows_of(
    path: Path, lines: Iterator[tuple[int, str]], mark: str, width: int, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """The same for lines that are read already; those of another width are problems."""
    for number, line in lines:
        where = f"{path.name}:{number}"
        cells = [cell.strip(WHITE_SPACE) for cell in line.split(mark)]
        if len(cells) == width:
            yield where, cells
        else:
            problems.add(where, f"not {width} columns", f"{len(cells)} where {mark!r} splits the line")


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
