"""Ranking requests whose answers are known, and JSON Lines files of them.

Each line is an object with

- `context` (or `query`): the query, the question for a language model, or what a user has chosen so far (one choice per
  line, the latest last); text that is not blank;
- `candidates`: objects with `text` and, optionally, `id` (the position from 0 where missing), `gain` (0 where missing),
  `scores` (name to number: how other rankers would order the candidates, more for better) and `values` (name to number:
  what choosing the candidate brings, such as its cost); best first by whatever found them;
- optionally `id` (the line's number where missing), `task` (`passage`, `item` or `model`; the first where missing),
  `tag` (the kind of query), `aim` (what the best candidate must be; empty where missing) and `source` (the file's name
  without its ending where missing).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.partial import PartialFile
from r1ranker_ir.files.records import Id, Record, Words, checked_lines
from r1ranker_ir.types import TASKS, Candidate, RankingRequest, Task

logger = logging.getLogger(__name__)


class _Candidate(Record):
    text: Words
    id: Id | None = None
    gain: Annotated[float, Field(ge=0)] = 0.0
    scores: dict[str, float] = Field(default_factory=dict)
    values: dict[str, float] = Field(default_factory=dict)


class _Line(Record):
    context: Words = ""
    query: Words = ""
    candidates: list[_Candidate]
    id: Id | None = None
    task: Task = TASKS[0]
    aim: str = ""
    source: str = ""
    tag: str = ""


@dataclass(frozen=True)
class JudgedRequest:
    """A ranking request and what its candidates are worth; columns are in the candidates' order.

    Args:
        request: what is ranked.
        gains: what each candidate is worth; 0 for nothing, more for better.
        source: the data set that it comes from.
        scores: name of another ranker to its scores, more for better.
        values: name of a quantity to what choosing each candidate brings of it.
        tag: the kind of query, such as a subject; empty where it is not known.
    """

    request: RankingRequest
    gains: tuple[float, ...]
    source: str = ""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    tag: str = ""

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
    """Whether it is enough to look the candidates up in a user's history: the best stand in it, and no other does."""
    if judged.request.task != "item" or not judged.best:
        return False
    chosen = {_one_line(line) for line in judged.request.query.splitlines()}
    texts = [_one_line(candidate.text) for candidate in judged.request.candidates]
    return judged.best == tuple(place for place, text in enumerate(texts) if text in chosen)


def warn_of_answers_given_away(count: int, requests: int, source: str) -> None:
    """Warns of requests, `count` of all `requests`, whose history gives the answer away."""
    if count:
        logger.warning(
            "%s: in %d of %d requests the best candidate is the only one that stands in the user's history: it is "
            "enough to look it up. Leave such requests out, or take the item out of the history (see --repeats of "
            "r1ranker data recommendation)",
            *(source, count, requests),
        )


def read_requests(path: str | Path, *, queries: int | None = None) -> Iterator[JudgedRequest]:
    """Reads a file of ranking requests, or only its first `queries` ones; errors name file, line and field."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"request file {str(path)!r} does not exist: give a JSON Lines file of ranking requests")
    source = Path(path.name.removesuffix(".gz")).stem
    for number, line in islice(checked_lines(_Line, path), queries):
        yield _request(line, f"{path}:{number}", str(number), source)


def write_requests(path: str | Path, requests: Iterable[JudgedRequest]) -> int:
    """Writes a file of ranking requests, which is there only once it is whole; returns how many there are."""
    count = 0
    with PartialFile(path, "--output") as file:
        for judged in requests:
            line = json.dumps(request_row(judged), ensure_ascii=False) + "\n"
            file.write(line.encode("utf-8", "backslashreplace"))
            count += 1
    return count


def request_row(judged: JudgedRequest) -> dict[str, Any]:
    """Turns a request into the object of a line, of which `read_requests` reads the same request."""
    request = judged.request
    candidates = []
    for place, candidate in enumerate(request.candidates):
        row: dict[str, Any] = {"id": candidate.id, "text": candidate.text, "gain": judged.gains[place]}
        for name, columns in (("scores", judged.scores), ("values", judged.values)):
            if columns:
                row[name] = {of: column[place] for of, column in columns.items()}
        candidates.append(row)
    row = {"id": request.query_id} if request.query_id else {}
    row |= {"task": request.task, "source": judged.source, "context": request.query}
    row |= {"tag": judged.tag} if judged.tag else {}
    return row | ({"aim": request.aim} if request.aim else {}) | {"candidates": candidates}


def _one_line(text: str) -> str:
    return " ".join(text.split()).casefold()


def _request(line: _Line, where: str, default_id: str, default_source: str) -> JudgedRequest:
    if bool(line.context) == bool(line.query):
        both = "fields 'context' and 'query' are both given" if line.query else "field 'context' is missing"
        raise DataFileError(f"{where}: {both}: give the one or the other")
    candidates = tuple(Candidate(each.id or str(place), each.text) for place, each in enumerate(line.candidates))
    return JudgedRequest(
        RankingRequest(line.context or line.query, candidates, line.task, line.id or default_id, line.aim),
        tuple(each.gain for each in line.candidates),
        line.source if "source" in line.model_fields_set else default_source,
        _columns("scores", [each.scores for each in line.candidates], where),
        _columns("values", [each.values for each in line.candidates], where),
        line.tag,
    )


def _columns(name: str, rows: Sequence[Mapping[str, float]], where: str) -> dict[str, tuple[float, ...]]:
    """Turns `scores` or `values` of the candidates into columns: all have the same names, or none has any."""
    for place, row in enumerate(rows):
        if odd := sorted(row.keys() ^ rows[0].keys()):
            raise DataFileError(
                f"{where}: field 'candidates[{place}].{name}': {odd[0]!r} is given for some candidates only: give it "
                f"for all"
            )
    return {of: tuple(row[of] for row in rows) for of in (rows[0] if rows else ())}
