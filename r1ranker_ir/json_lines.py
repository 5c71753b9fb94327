"""Reading text and JSON Lines line by line, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import DataFileError


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file that are not blank, with their numbers from 1.

    Args:
        path: UTF-8 text; a byte order mark at its beginning is skipped.

    Yields:
        Number and line, without surrounding white space.

    Raises:
        DataFileError: if a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataFileError(f"{path}:{number}: not UTF-8 ({error.reason}): convert the file") from None
            if line:
                yield number, line


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a JSON Lines file, with the numbers of their lines.

    Args:
        path: one JSON object a line; blank lines are skipped.

    Yields:
        Number and object.

    Raises:
        DataFileError: if a line is not UTF-8, not JSON, or no object.
    """
    for number, line in text_lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataFileError(f"{path}:{number}: not valid JSON ({error}): one object a line is needed") from None
        if not isinstance(record, dict):
            raise DataFileError(f"{path}:{number}: a JSON {type(record).__name__} where an object is needed")
        yield number, record
