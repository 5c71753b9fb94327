"""Traces: what a run asked and was answered, as JSON Lines with one line per query, plain or gzip."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from pydantic import Field

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import parse_json_line, readable_lines
from r1ranker_ir.files.partial import PartialFile
from r1ranker_ir.files.records import OpenRecord, Record, Words, checked_record
from r1ranker_ir.quoting import quoted
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import (
    OF_ONE,
    Candidate,
    ChosenBy,
    ClosedAt,
    Condition,
    Ranking,
    RankingRequest,
    Step,
    Task,
    Usage,
)

logger = logging.getLogger(__name__)

_UNKNOWN: Mapping[str, Condition] = MappingProxyType({})

CASCADE = "cascade"
"""What made a ranking by two strategies, one after the other."""


def traced_strategies() -> tuple[str, ...]:
    """What may have made a ranking: every strategy, or a cascade of them."""
    return (*STRATEGIES, CASCADE)


@dataclass(frozen=True)
class TracedRanking:
    """One line of a trace.

    `notes` say how the model was asked, such as in other words than a system's own; `conditions` are those of the
    ranker, see `rankers.conditions`, and empty where they are not known.
    """

    strategy: str
    ranking: Ranking
    notes: tuple[str, ...] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The line as plain data for JSON, with document ids in place of positions."""
        return trace_of(self.ranking, self.strategy, self.notes, self.conditions)

    def to_json(self) -> str:
        """`to_dict` as one line of JSON, which `r1ranker trace` reads."""
        return json.dumps(self.to_dict())

    def _repr_html_(self) -> str:
        from r1ranker_ir.runs.notebook_view import ranking_html

        return ranking_html(self)


class TraceWriter:
    """Writes a trace query by query; a context manager that treats its file as `PartialFile` does.

    A trace holds the texts of queries and documents: only its owner may read the file (mode 0600).
    """

    def __init__(
        self,
        path: str | Path,
        strategy: str,
        notes: Sequence[str] = (),
        conditions: Mapping[str, Condition] = _UNKNOWN,
    ) -> None:
        self._file = PartialFile(path, "--save-traces", private=True)
        self._strategy = strategy
        self._notes = notes
        self._conditions = conditions

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, traceback)

    def write(self, ranking: Ranking) -> None:
        """Writes one ranking."""
        line = json.dumps(trace_of(ranking, self._strategy, self._notes, self._conditions), ensure_ascii=False) + "\n"
        # Half a surrogate pair, which a text may hold, is no UTF-8: it is written as JSON's own escape.
        self._file.write(line.encode("utf-8", "backslashreplace"))


def trace_of(
    ranking: Ranking, strategy: str, notes: Sequence[str] = (), conditions: Mapping[str, Condition] = _UNKNOWN
) -> dict[str, Any]:
    """A ranking as plain data for JSON Lines, with document ids in place of positions."""
    data = ranking.to_dict()
    data["steps"] = [{name: step[name] for name in _Step.model_fields if name in step} for step in data["steps"]]
    head = {name: data[name] for name in ("query_id", "query", "task", "aim")}
    told = {**({"notes": list(notes)} if notes else {}), **({"conditions": dict(conditions)} if conditions else {})}
    return {**head, "strategy": strategy, **told, **data}


def read_trace(path: str | Path, *, interrupted: bool = False) -> Iterator[TracedRanking]:
    """Reads a trace line by line, gzip if its name ends in `.gz`, `-` for standard input; several may be joined.

    Where a run may have been interrupted, an end within a line is logged and no error.
    """
    for number, row in _rows(path, interrupted=interrupted):
        yield _ranking_of(row, f"{path}:{number}")


def once_each(rankings: Iterable[TracedRanking], named: str) -> Iterator[TracedRanking]:
    """Lets the rankings of one run pass; a query that is ranked again is an error."""
    seen: set[str] = set()
    for traced in rankings:
        query_id = traced.ranking.request.query_id
        if query_id in seen:
            raise InputError(f"{named} ranks query {query_id!r} twice: give the trace of one run")
        seen.add(query_id)
        yield traced


def find_rankings(path: str | Path, query_id: str) -> tuple[list[TracedRanking], list[str]]:
    """A query's rankings (several in a joined file), and the ids of all queries."""
    found, ids = [], []
    for number, row in _rows(path):
        ids.append(str(row.get("query_id")))
        if row.get("query_id") == query_id:
            found.append(_ranking_of(row, f"{path}:{number}"))
    return found, ids


def _rows(path: str | Path, *, interrupted: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    partial = Path(f"{path}.partial")
    if partial.exists() and not Path(path).exists():
        raise InputError(f"trace {str(path)!r} is not finished: a run that was stopped left {str(partial)!r}")
    lines = enumerate(sys.stdin.buffer, start=1) if str(path) == "-" else readable_lines(Path(path))
    whole = False  # whether the line at hand has its end; only the last one can lack it
    try:
        for number, raw in lines:
            whole = raw.endswith(b"\n")
            row = parse_json_line(raw, f"{path}:{number}", first=number == 1)
            whole = False
            if row is not None:
                yield number, row
    except DataFileError as error:
        if whole or not interrupted:
            raise
        logger.warning("%s: what stands before is taken", error)


class _Usage(Record):
    calls: int
    prompt_tokens: int
    completion_tokens: int


class _Step(OpenRecord):
    """A step of a line as `Ranking.to_dict` has it."""

    prompt_hash: str
    shown: list[str]
    outcome: list[str]
    thought: str
    text: str
    probabilities: list[float | None] | None
    repaired: bool
    thought_closed: bool
    cut_passages: int
    cut_query: bool
    usage: _Usage
    closed_at: ClosedAt | None = None
    chosen_by: ChosenBy | None = None
    marked: list[str] = Field(default_factory=list)
    thought_given: bool = False
    grade: float | None = None
    score: float | None = None
    confidence: float | None = None
    judged: list[int] = Field(default_factory=list)
    passed_over: bool = False


class _Line(OpenRecord):
    """A line as `trace_of` writes it."""

    strategy: str
    query_id: str
    query: Words
    task: Task
    aim: str
    notes: list[str] = Field(default_factory=list)
    conditions: dict[str, Condition] = Field(default_factory=dict)
    texts: dict[str, str]
    order: list[str]
    repairs: int
    usage: _Usage
    budget_reached: bool = False
    steps: list[_Step]


def _ranking_of(row: Mapping[str, Any], where: str) -> TracedRanking:
    line = checked_record(_Line, row, where)
    if line.strategy not in traced_strategies():
        known = ", ".join(traced_strategies())
        raise DataFileError(f"{where}: field 'strategy' is {quoted(line.strategy)}: use one of {known}")
    places = {doc_id: place for place, doc_id in enumerate(line.texts)}
    order = _places(line.order, places, f"{where}: field 'order'")
    if len(order) != len(places):
        raise DataFileError(
            f"{where}: field 'order' names {len(order)} of the {len(places)} documents of texts: name each once"
        )
    candidates = tuple(Candidate(doc_id, text) for doc_id, text in line.texts.items())
    request = RankingRequest(line.query, candidates, task=line.task, query_id=line.query_id, aim=line.aim)
    steps = tuple(
        _step_of(step, number, places, line.strategy, f"{where}: field 'steps[{number}].")
        for number, step in enumerate(line.steps)
    )
    ranking = Ranking(request, order, steps, line.budget_reached)
    stated = {"repairs": line.repairs, "usage": line.usage.model_dump()}
    for name, made in (("repairs", ranking.repairs), ("usage", asdict(ranking.usage))):
        if stated[name] != made:
            raise DataFileError(f"{where}: field {name!r} is {quoted(stated[name])}, but the steps make {quoted(made)}")
    return TracedRanking(line.strategy, ranking, tuple(line.notes), line.conditions)


def _step_of(step: _Step, number: int, places: Mapping[str, int], strategy: str, field: str) -> Step:
    """A step of plain data, `number` steps behind the first; `field` is how messages about its fields begin."""
    shown, outcome, marked = (
        _places(getattr(step, name), places, f"{field}{name}'") for name in ("shown", "outcome", "marked")
    )
    if not set(marked) <= set(shown):
        raise DataFileError(f"{field}marked' is {quoted(step.marked)}: name documents that are shown")
    if not all(1 <= back <= number for back in step.judged):
        raise DataFileError(f"{field}judged' is {quoted(step.judged)}: name steps before this one, from 1 to {number}")
    left = [place for place in shown if place not in marked]
    asks = asked_by(strategy)
    least, most = 1, max(1, len(left) - 1) if asks == "worst" else len(left)
    if asks in ("order", "grades"):
        least = len(left)
    elif asks == "best" or asks in OF_ONE:
        most = 1
    if not least <= len(outcome) <= most or not set(outcome) <= set(left):
        wanted = f"{least}" if least == most else f"{least} or more"
        raise DataFileError(
            f"{field}outcome' is {quoted(step.outcome)}: {strategy} names {wanted} of the documents shown, each once"
        )
    chances = step.probabilities
    if chances is not None and len(chances) != len(shown):
        raise DataFileError(
            f"{field}probabilities' is {quoted(chances)}: give a number or null for each document shown"
        )
    known = None
    if chances is not None:
        known = {place: chance for place, chance in zip(shown, chances, strict=True) if chance is not None}
    places_of = {"shown": shown, "outcome": outcome, "marked": marked, "probabilities": known}
    places_of["judged"] = tuple(step.judged)
    return Step(**{**dict(step), **places_of, "usage": Usage(**dict(step.usage))})


def _places(ids: Sequence[str], places: Mapping[str, int], field: str) -> tuple[int, ...]:
    if unknown := [doc_id for doc_id in ids if doc_id not in places]:
        raise DataFileError(f"{field} names {quoted(unknown[0])}, of which texts has no text")
    if len(set(ids)) != len(ids):
        raise DataFileError(f"{field} names a document twice")
    return tuple(places[doc_id] for doc_id in ids)
