"""Ranking requests whose answers are known, and JSON Lines files of them.

Each line is an object with

- `context` (or `query`): the query, the question for a language model, or what a user has chosen so far (one choice a
  line, the latest last); text that is not blank;
- `candidates`: objects with `text` and, optionally, `id` (the position from 0 where missing), `gain` (0 where missing),
  `scores` (name to number: how other rankers would order the candidates, more for better) and `values` (name to number:
  what choosing the candidate brings, such as its cost); best first by whatever found them;
- optionally `id` (the line's number where missing), `task` (`passage`, `item` or `model`; the first where missing),
  `aim` (what the best candidate is to be; empty where missing) and `source` (the file's name without its ending where
  missing).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import json_lines
from r1ranker_ir.files.partial import PartialFile
from r1ranker_ir.types import TASKS, Candidate, RankingRequest

logger = logging.getLogger(__name__)

_FIELDS = ("context", "query", "candidates", "id", "task", "aim", "source")
_CANDIDATE_FIELDS = ("id", "text", "gain", "scores", "values")


@dataclass(frozen=True)
class JudgedRequest:
    """A ranking request and what its candidates are worth.

    Args:
        request: what is to be ranked.
        gains: what each candidate is worth, in the candidates' order; 0 for none, more for better.
        source: the data set that it comes from.
        scores: name of another ranker to its score for each candidate, more for better.
        values: name of a quantity to what choosing each candidate brings of it.
    """

    request: RankingRequest
    gains: tuple[float, ...]
    source: str = ""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.request.candidates)
        named = f"request {self.request.query_id!r}" + (f" of {self.source!r}" if self.source else "")
        columns = {"gains": self.gains, **self.scores, **self.values}
        for name, column in columns.items():
            if len(column) != count:
                raise InputError(f"{named}: {len(column)} {name} for {count} candidates: give one each")
            if bad := [number for number in column if not math.isfinite(number)]:
                raise InputError(f"{named}: {name} holds {bad[0]!r}: give finite numbers")
        if bad := [gain for gain in self.gains if gain < 0]:
            raise InputError(f"{named}: gain {bad[0]!r}: give a number of at least 0")

    @property
    def best(self) -> tuple[int, ...]:
        """The places of the candidates with the greatest gain; none where no gain is above 0."""
        greatest = max(self.gains, default=0.0)
        return tuple(place for place, gain in enumerate(self.gains) if gain == greatest > 0)


def gives_answer_away(judged: JudgedRequest) -> bool:
    """Tells whether a user's history tells the best candidates from the others: they stand in it, and no other does."""
    if judged.request.task != "item" or not judged.best:
        return False
    chosen = {_one_line(line) for line in judged.request.query.splitlines()}
    texts = [_one_line(candidate.text) for candidate in judged.request.candidates]
    return judged.best == tuple(place for place, text in enumerate(texts) if text in chosen)


def warn_of_answers_given_away(count: int, requests: int, source: str) -> None:
    """Warns of requests whose history gives the answer away."""
    if count:
        logger.warning(
            "%s: in %d of %d requests the best candidate is the only one that stands in the user's history: it is "
            "enough to look it up. Leave such requests out, or take the item out of the history (see --repeats of "
            "r1ranker data recommendation)",
            source,
            count,
            requests,
        )


def read_requests(path: str | Path, *, queries: int | None = None) -> Iterator[JudgedRequest]:
    """Reads a file of ranking requests."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"request file {str(path)!r} does not exist: give a JSON Lines file of ranking requests")
    name = path.name.removesuffix(".gz")
    source = Path(name).stem
    for number, row in islice(json_lines(path), queries):
        yield _request(row, f"{path}:{number}", default_id=str(number), default_source=source)


def write_requests(path: str | Path, requests: Iterable[JudgedRequest]) -> int:
    """Writes a file of ranking requests; it is there only once it is whole."""
    count = 0
    with PartialFile(path, "--output", of_answers=False) as file:
        for judged in requests:
            line = json.dumps(request_row(judged), ensure_ascii=False) + "\n"
            file.write(line.encode("utf-8", "backslashreplace"))
            count += 1
    return count


def request_row(judged: JudgedRequest) -> dict[str, Any]:
    """Turns a request into the object of a line."""
    request = judged.request
    candidates = []
    for place, candidate in enumerate(request.candidates):
        row: dict[str, Any] = {"id": candidate.id, "text": candidate.text, "gain": judged.gains[place]}
        for name, columns in (("scores", judged.scores), ("values", judged.values)):
            if columns:
                row[name] = {of: column[place] for of, column in columns.items()}
        candidates.append(row)
    row = {"id": request.query_id, "task": request.task, "source": judged.source, "context": request.query}
    return row | ({"aim": request.aim} if request.aim else {}) | {"candidates": candidates}


def _one_line(text: str) -> str:
    return " ".join(text.split()).casefold()


def _request(row: dict[str, Any], where: str, *, default_id: str, default_source: str) -> JudgedRequest:
    _check_object(row, where, "the line", _FIELDS)
    named = [name for name in ("context", "query") if name in row]
    if len(named) != 1:
        both = "fields 'context' and 'query' are both given" if named else "field 'context' is missing"
        raise DataFileError(f"{where}: {both}: give the one or the other")
    context = _text(row, named[0], where)
    if not context.strip():
        raise DataFileError(f"{where}: field {named[0]!r} is blank: give at least one word")
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
    return JudgedRequest(
        RankingRequest(
            context,
            tuple(candidates),
            task,
            _id(row, "id", where) or default_id,
            _text(row, "aim", where) if "aim" in row else "",
        ),
        tuple(gains),
        _text(row, "source", where) if "source" in row else default_source,
        _columns(given, "scores", where),
        _columns(given, "values", where),
    )


def _candidate(entry: Any, where: str, position: int) -> tuple[Candidate, float]:
    name = f"candidates[{position}]"
    _check_object(entry, where, f"field '{name}'", _CANDIDATE_FIELDS, f"{name}.")
    text = _text(entry, "text", where, f"{name}.")
    if not text.strip():
        raise DataFileError(f"{where}: field '{name}.text' is blank: give its text or remove the candidate")
    gain = entry.get("gain", 0)
    if not _is_number(gain) or gain < 0:
        raise DataFileError(f"{where}: field '{name}.gain' is {_shown(gain)}: a finite number of at least 0 is needed")
    return Candidate(_id(entry, "id", where, f"{name}.") or str(position), text), float(gain)


def _columns(entries: list[dict[str, Any]], field_name: str, where: str) -> dict[str, tuple[float, ...]]:
    """Reads `scores` or `values`: all candidates have the same names, or none has any."""
    columns: dict[str, list[float]] = {}
    for position, entry in enumerate(entries):
        path = f"candidates[{position}].{field_name}"
        numbers = entry.get(field_name, {})
        if not isinstance(numbers, dict):
            raise DataFileError(f"{where}: field '{path}' is {_shown(numbers)}: an object of numbers is needed")
        if position and set(numbers) != set(columns):
            odd = sorted(set(numbers) ^ set(columns))[0]
            raise DataFileError(f"{where}: field '{path}': {odd!r} is given for some candidates only: give it for all")
        for name, number in numbers.items():
            if not _is_number(number):
                raise DataFileError(f"{where}: field '{path}.{name}' is {_shown(number)}: a finite number is needed")
            columns.setdefault(name, []).append(float(number))
    return {name: tuple(column) for name, column in columns.items()}


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _check_object(row: Any, where: str, what: str, fields: tuple[str, ...], prefix: str = "") -> None:
    if not isinstance(row, dict):
        raise DataFileError(f"{where}: {what} is {_shown(row)}: an object with {', '.join(fields)} is needed")
    for name in row:
        if name not in fields:
            raise DataFileError(f"{where}: field '{prefix}{name}' is unknown: use {', '.join(fields)}")


def _text(row: Mapping[str, Any], name: str, where: str, prefix: str = "") -> str:
    if name not in row:
        raise DataFileError(f"{where}: field '{prefix}{name}' is missing: a text is needed")
    value = row[name]
    if not isinstance(value, str):
        raise DataFileError(f"{where}: field '{prefix}{name}' is {_shown(value)}: a text is needed")
    return value


def _id(row: Mapping[str, Any], name: str, where: str, prefix: str = "") -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataFileError(f"{where}: field '{prefix}{name}' is {_shown(value)}: a text or a whole number is needed")
    return str(value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
