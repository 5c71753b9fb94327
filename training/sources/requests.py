"""Records from a JSON Lines file of ranking requests with gains.

Each line is an object with

- `context` (or `query`): the query, a user's history, a question; text that is not blank;
- `candidates`: objects with `text` and, optionally, `id` (the position from 0 where missing) and `gain` (0 where
  missing), best first by whatever found them;
- optionally `id` (the line's number where missing), `task` (`passage`, `item` or `model`; the first where missing) and
  `source` (the file's name without its ending where missing).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.json_lines import text_lines
from r1ranker_ir.types import TASKS, Candidate

from ..records import Record

_FIELDS = ("context", "query", "candidates", "id", "task", "source")
_CANDIDATE_FIELDS = ("id", "text", "gain")


def requested_records(path: str | Path, *, queries: int | None = None, source: str | None = None) -> Iterator[Record]:
    """Reads the records of a file of ranking requests.

    Args:
        path: the file; blank lines are passed over.
        queries: only the first so many requests; all if `None`.
        source: the records' source, whatever the file says; as the file says if `None`.

    Yields:
        A record a line, in file order.

    Raises:
        InputError: if there is no such file.
        DataFileError: if a line is malformed; names file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"request file {str(path)!r} does not exist: give a JSON Lines file of ranking requests")
    for number, line in islice(text_lines(path), queries):
        record = _record(line, f"{path}:{number}", default_id=str(number), default_source=path.stem)
        yield record if source is None else replace(record, source=source)


def _record(line: str, where: str, *, default_id: str, default_source: str) -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataFileError(f"{where}: not valid JSON ({error}): one object a line is needed") from None
    _check_object(row, where, "the line", _FIELDS)
    named = [field for field in ("context", "query") if field in row]
    if len(named) != 1:
        both = "fields 'context' and 'query' are both given" if named else "field 'context' is missing"
        raise DataFileError(f"{where}: {both}: give the one or the other")
    [field] = named
    context = _text(row, field, where)
    if not context.strip():
        raise DataFileError(f"{where}: field {field!r} is blank: give at least one word")
    given = row.get("candidates")
    if not isinstance(given, list):
        what = "is missing" if "candidates" not in row else f"is {_shown(given)}"
        raise DataFileError(f"{where}: field 'candidates' {what}: a list of objects with 'text' and 'gain' is needed")
    candidates, gains = [], []
    for position, entry in enumerate(given):
        candidate, gain = _candidate(entry, where, position)
        candidates.append(candidate)
        gains.append(gain)
    task = row.get("task", TASKS[0])
    if task not in TASKS:
        raise DataFileError(f"{where}: field 'task' is {_shown(task)}: use one of {', '.join(TASKS)}")
    return Record(
        context,
        tuple(candidates),
        tuple(gains),
        task,
        _id(row, "id", where) or default_id,
        _text(row, "source", where) if "source" in row else default_source,
    )


def _candidate(entry: Any, where: str, position: int) -> tuple[Candidate, float]:
    name = f"candidates[{position}]"
    _check_object(entry, where, f"field '{name}'", _CANDIDATE_FIELDS, f"{name}.")
    text = _text(entry, "text", where, f"{name}.")
    if not text.strip():
        raise DataFileError(f"{where}: field '{name}.text' is blank: give its text or remove the candidate")
    gain = entry.get("gain", 0)
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 <= gain < math.inf:
        raise DataFileError(f"{where}: field '{name}.gain' is {_shown(gain)}: a finite number of at least 0 is needed")
    return Candidate(_id(entry, "id", where, f"{name}.") or str(position), text), float(gain)


def _check_object(row: Any, where: str, what: str, fields: tuple[str, ...], prefix: str = "") -> None:
    if not isinstance(row, dict):
        raise DataFileError(f"{where}: {what} is {_shown(row)}: an object with {', '.join(fields)} is needed")
    for field in row:
        if field not in fields:
            raise DataFileError(f"{where}: field '{prefix}{field}' is unknown: use {', '.join(fields)}")


def _text(row: Mapping[str, Any], field: str, where: str, prefix: str = "") -> str:
    if field not in row:
        raise DataFileError(f"{where}: field '{prefix}{field}' is missing: a text is needed")
    value = row[field]
    if not isinstance(value, str):
        raise DataFileError(f"{where}: field '{prefix}{field}' is {_shown(value)}: a text is needed")
    return value


def _id(row: Mapping[str, Any], field: str, where: str, prefix: str = "") -> str | None:
    value = row.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataFileError(f"{where}: field '{prefix}{field}' is {_shown(value)}: a text or a whole number is needed")
    return str(value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
