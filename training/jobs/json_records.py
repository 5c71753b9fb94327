"""JSON files that a training writes of its work: read with one kind of error, written whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from r1ranker_ir.errors import DataFileError, InputError, R1RankerError
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text

_Read = TypeVar("_Read")


def read_record(path: Path, way_out: str, read: Callable[[Any], _Read], *, finite: bool = False) -> _Read:
    """Gives what `read` makes of a file; whatever it raises over odd content names the file and the way out."""
    text = read_small_text(path, str(path), way_out, error=DataFileError, most=RECORD_BYTES)
    try:
        return read(parse_json(text, finite=finite))
    except R1RankerError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise DataFileError(f"{path} can't be read: it is not what a training writes ({error!r}): {way_out}") from error


def write_record(path: Path, content: Any, choose: str, *, indent: int | None = None) -> None:
    """Writes a file whole; `choose` names what to choose otherwise where it can't be written."""
    try:
        write_whole(path, json.dumps(content, indent=indent) + "\n")
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another {choose}") from error
