"""JSON files that a training writes of its work: read with one kind of error, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.records import AnyRecord, checked_record
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text


def read_record(kind: type[AnyRecord], path: Path, way_out: str, *, finite: bool = False) -> AnyRecord:
    """Reads a file as a record of some kind; errors name the file, the field and the way out."""

    def not_ours(told: str) -> DataFileError:
        return DataFileError(f"{told}. This is not what a training writes: {way_out}")

    text = read_small_text(path, str(path), way_out, error=DataFileError, most=RECORD_BYTES)
    try:
        content = parse_json(text, finite=finite)
    except ValueError as error:
        raise not_ours(f"{path} can't be read: it is not valid JSON ({error})") from error
    return checked_record(kind, content, str(path), error=not_ours)


def write_record(path: Path, content: Any, choose: str, *, indent: int | None = None) -> None:
    """Writes a file whole; `choose` names what to choose otherwise where it can't be written."""
    try:
        write_whole(path, json.dumps(content, indent=indent) + "\n")
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another {choose}") from error
