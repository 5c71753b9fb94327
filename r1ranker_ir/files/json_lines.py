"""Reading text and JSON Lines line by line, plain or gzip, with errors that name the line."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.plain_data import parse_json

LONGEST_LINE = 2**26
"""How many bytes a line may have: more than any document has, and `/dev/zero` is one line without an end."""
WHITE_SPACE = " \t\n\r\v\f"
"""What splits columns: ASCII white space alone, as in trec_eval; an id may hold others, such as a no-break space."""

_COLUMNS = re.compile(f"[^{WHITE_SPACE}]+")
_PARTIAL = re.compile(r"\.partial(\.\d+)?$")


def split_columns(line: str) -> list[str]:
    """Splits a line at ASCII white space, as trec_eval does; `str.split` would split at all that Unicode knows."""
    return _COLUMNS.findall(line)


class JsonLine(NamedTuple):
    """One object of a JSON Lines file, its line from 1, and where that begins in bytes of the unpacked file."""

    number: int
    offset: int
    record: dict[str, Any]


def is_gzip(path: str | Path) -> bool:
    """Whether a file is compressed, by its name: `.gz`, or `.gz.partial` or `.gz.partial.1` where a run was stopped."""
    return _PARTIAL.sub("", str(path)).endswith(".gz")


def holds_lines_of(path: Path, other: Path) -> bool:
    """Whether a file holds all whole lines of another one, of which there is one at least, in their order.

    Lines may stand between them, as those of queries that had failed at first do. A file that can't be read holds none.
    """
    compared, lines = 0, _undamaged_lines(path)
    for line in _undamaged_lines(other):
        if line.endswith(b"\n"):
            compared += 1
            if line not in lines:  # which takes the lines up to it
                return False
    return compared > 0


def _undamaged_lines(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(OSError, DataFileError):
        yield from (raw for _, raw in raw_lines(path))


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file as they are, with their numbers from 1; lines before damaged gzip data come first.

    What the system says of a file that can't be read is raised as it is.
    """
    number = 0
    try:
        with (gzip.open if is_gzip(path) else open)(path, "rb") as file:
            for number, raw in bounded_lines(cast(IO[bytes], file), str(path)):
                yield number, raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataFileError(f"{path}:{number + 1}: damaged gzip data ({error}): write the file again") from None


def bounded_lines(file: IO[bytes], named: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of an open file with their numbers from 1; one of more than `LONGEST_LINE` is an error."""
    lines = iter(functools.partial(file.readline, LONGEST_LINE + 1), b"")
    for number, raw in enumerate(lines, start=1):
        if len(raw) > LONGEST_LINE:
            raise DataFileError(
                f"{named}:{number}: more than {LONGEST_LINE >> 20} MiB without a line break: give a text file with one "
                f"record per line"
            )
        yield number, raw


def readable_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields lines as `raw_lines` does, with an `InputError` where the file can't be read."""
    try:
        yield from raw_lines(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} can't be read ({error.strerror or error}): give a file") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of UTF-8 text that are not blank, without surrounding ASCII white space."""
    for number, raw in readable_lines(path):
        try:
            line = _decoded(raw, first=number == 1).strip(WHITE_SPACE)
        except UnicodeDecodeError as error:
            raise DataFileError(f"{path}:{number}: not UTF-8 ({error.reason}): convert the file") from None
        if line:
            yield number, line


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a JSON Lines file, with the numbers of their lines; blank lines are skipped."""
    for line in placed_json_lines(path):
        yield line.number, line.record


def placed_json_lines(path: Path) -> Iterator[JsonLine]:
    """Yields the objects of a JSON Lines file with their places."""
    offset = 0
    for number, raw in readable_lines(path):
        record = parse_json_line(raw, f"{path}:{number}", first=number == 1)
        if record is not None:
            yield JsonLine(number, offset, record)
        offset += len(raw)


def parse_json_line(raw: bytes, where: str, *, first: bool) -> dict[str, Any] | None:
    """Reads one line; `None` if it is blank. A file's first line may begin with a byte order mark."""
    try:
        line = _decoded(raw, first=first).strip()
        # Whether a number has to be finite is for those to say who read it: many fields are not read at all.
        record = parse_json(line, finite=False) if line else None
    except ValueError as error:
        # What breaks off is no whole document; a number that is refused has been read to its end.
        unfinished = isinstance(error, UnicodeDecodeError | json.JSONDecodeError)
        if unfinished and not raw.endswith(b"\n"):
            raise DataFileError(
                f"{where}: the file ends within this line ({error}): whatever wrote it was stopped. Remove the line, "
                f"or write the file again"
            ) from None
        if isinstance(error, UnicodeDecodeError):
            raise DataFileError(f"{where}: not UTF-8 ({error.reason}): convert the file") from None
        raise DataFileError(f"{where}: not valid JSON ({error}): each line must be a JSON object") from None
    if line and not isinstance(record, dict):
        raise DataFileError(f"{where}: a JSON {type(record).__name__} where an object is needed")
    return cast(dict[str, Any] | None, record)


def _decoded(raw: bytes, *, first: bool) -> str:
    return raw.decode("utf-8-sig" if first else "utf-8")
