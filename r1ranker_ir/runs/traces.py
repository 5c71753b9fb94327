"""Traces: what a run asked and was answered, as JSON Lines with one line per query, plain or gzip."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import parse_json_line, readable_lines
from r1ranker_ir.files.partial import PartialFile
from r1ranker_ir.quoting import quoted
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import CLOSED_AT, OF_ONE, TASKS, Candidate, Ranking, RankingRequest, Step, Usage

logger = logging.getLogger(__name__)

CASCADE = "cascade"
"""What made a ranking by two strategies, one after the other."""


def traced_strategies() -> tuple[str, ...]:
    """What may have made a ranking: every strategy, or a cascade of them."""
    return (*STRATEGIES, CASCADE)


@dataclass(frozen=True)
class TracedRanking:
    """One line of a trace."""

    strategy: str  # what made the ranking
    ranking: Ranking
    notes: tuple[str, ...] = ()  # about how the model was asked, such as a published system in other words than its own


class TraceWriter:
    """Writes a trace query by query; a context manager that treats its file as `PartialFile` does.

    A trace holds the texts of queries and documents: only its owner may read the file (mode 0600).
    """

    def __init__(self, path: str | Path, strategy: str, notes: Sequence[str] = ()) -> None:
        self._file = PartialFile(path, "--save-traces", private=True)
        self._strategy = strategy
        self._notes = notes

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, traceback)

    def write(self, ranking: Ranking) -> None:
        """Writes one ranking."""
        line = json.dumps(trace_of(ranking, self._strategy, self._notes), ensure_ascii=False) + "\n"
        # Half a surrogate pair, which a text may hold, is no UTF-8: it is written as JSON's own escape.
        self._file.write(line.encode("utf-8", "backslashreplace"))


def trace_of(ranking: Ranking, strategy: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A ranking as plain data for JSON Lines, with document ids in place of positions."""
    request = ranking.request
    ids = [candidate.id for candidate in request.candidates]
    return {
        "query_id": request.query_id,
        "query": request.query,
        "task": request.task,
        "aim": request.aim,
        "strategy": strategy,
        **({"notes": list(notes)} if notes else {}),
        "texts": {candidate.id: candidate.text for candidate in request.candidates},
        "order": [ids[place] for place in ranking.order],
        "repairs": ranking.repairs,
        "usage": asdict(ranking.usage),
        **({"budget_reached": True} if ranking.budget_reached else {}),
        "steps": [_step_data(step, ids) for step in ranking.steps],
    }


def _step_data(step: Step, ids: Sequence[str]) -> dict[str, Any]:
    chances = step.probabilities
    return {
        "prompt_hash": step.prompt_hash,
        "shown": [ids[place] for place in step.shown],
        "outcome": [ids[place] for place in step.outcome],
        "thought": step.thought,
        "text": step.text,
        "probabilities": None if chances is None else [chances.get(place) for place in step.shown],
        "repaired": step.repaired,
        "thought_closed": step.thought_closed,
        "cut_passages": step.cut_passages,
        "cut_query": step.cut_query,
        "usage": asdict(step.usage),
        **({"closed_at": step.closed_at} if step.closed_at else {}),
        **({"marked": [ids[place] for place in step.marked]} if step.marked else {}),
        **({"thought_given": True} if step.thought_given else {}),
        **({"grade": step.grade} if step.grade is not None else {}),
        **({"score": step.score} if step.score is not None else {}),
        **({"confidence": step.confidence} if step.confidence is not None else {}),
    }


def read_trace(path: str | Path, *, interrupted: bool = False) -> Iterator[TracedRanking]:
    """Reads a trace line by line, gzip if its name ends in `.gz`, `-` for standard input; several may be joined.

    Where a run may have been interrupted, an end within a line is logged and no error.
    """
    for number, row in _rows(path, interrupted=interrupted):
        yield _ranking_of(row, f"{path}:{number}")


def find_rankings(path: str | Path, query_id: str) -> tuple[list[TracedRanking], list[str]]:
    """A query's rankings (several in a joined file), and the ids of all queries."""
    found, ids = [], []
    for number, row in _rows(path):
        named = row.get("query_id")
        ids.append(str(named))
        if named == query_id:
            found.append(_ranking_of(row, f"{path}:{number}"))
    return found, ids


def _rows(path: str | Path, *, interrupted: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, row in _json_rows(path, interrupted=interrupted):
            if "step" in row and "steps" not in row:
                raise DataFileError(
                    f"{path}:{number}: a line for each model call, as earlier versions wrote traces: write it again "
                    f"with r1ranker rerank --save-traces"
                )
            yield number, row
    except InputError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        partial = f"{path}.partial"
        way_out = f"a run that was stopped left {partial!r}" if Path(partial).exists() else "give a JSON Lines file"
        reason = error.__cause__.strerror
        raise InputError(f"trace {str(path)!r} can't be read: {reason}: {way_out}") from error.__cause__


def _json_rows(path: str | Path, *, interrupted: bool) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _ranking_of(row: Mapping[str, Any], where: str) -> TracedRanking:
    fields = _Fields(row, where)
    strategy = fields.choice("strategy", traced_strategies())
    texts = fields.of_kind("texts", dict)
    if unknown := [doc_id for doc_id, text in texts.items() if not isinstance(text, str)]:
        raise fields.error("texts", f"{quoted(unknown[0])} has no text")
    places = {doc_id: place for place, doc_id in enumerate(texts)}
    order = fields.places("order", places)
    if len(order) != len(places):
        raise fields.error("order", f"names {len(order)} of the {len(places)} documents of texts: it holds each once")
    query = fields.of_kind("query", str)
    if not query.strip():
        raise fields.error("query", "is blank")
    request = RankingRequest(
        query,
        tuple(Candidate(doc_id, text) for doc_id, text in texts.items()),
        task=fields.choice("task", TASKS),
        query_id=fields.of_kind("query_id", str),
        aim=fields.of_kind("aim", str),
    )
    steps = fields.of_kind("steps", list)
    told = [_Fields(step, where, f"steps[{number}].") for number, step in enumerate(steps)]
    reached = fields.of_kind("budget_reached", bool) if "budget_reached" in row else False
    ranking = Ranking(request, order, tuple(_step_of(step, places, strategy) for step in told), reached)
    for name, value in (("repairs", ranking.repairs), ("usage", asdict(ranking.usage))):
        if row.get(name) != value:
            raise fields.error(name, f"is {quoted(row.get(name))}, but the steps make {quoted(value)}")
    notes = fields.of_kind("notes", list) if "notes" in row else []
    if not all(isinstance(note, str) for note in notes):
        raise fields.error("notes", f"is {quoted(notes)}: texts are needed")
    return TracedRanking(strategy, ranking, tuple(notes))


def _step_of(fields: _Fields, places: Mapping[str, int], strategy: str) -> Step:
    shown, outcome = fields.places("shown", places), fields.places("outcome", places)
    marked = fields.places("marked", places) if "marked" in fields.row else ()
    if not set(marked) <= set(shown):
        raise fields.error("marked", f"is {quoted(fields.row['marked'])}: not all of these documents are shown")
    left = [place for place in shown if place not in marked]
    asks = asked_by(strategy)
    if asks == "order":
        fits, wanted = len(outcome) == len(left), f"{len(left)}"
    elif asks == "best" or asks in OF_ONE:
        fits, wanted = len(outcome) == 1, "1"
    else:
        most = max(1, len(left) - 1) if asks == "worst" else len(left)
        fits, wanted = 1 <= len(outcome) <= most, "1 or more"
    if not fits or not set(outcome) <= set(left):
        raise fields.error(
            "outcome",
            f"is {quoted(fields.row['outcome'])}: {strategy} names {wanted} of the documents shown, each once",
        )
    return Step(
        shown=shown,
        outcome=outcome,
        thought=fields.of_kind("thought", str),
        text=fields.of_kind("text", str),
        probabilities=fields.probabilities(shown),
        repaired=fields.of_kind("repaired", bool),
        thought_closed=fields.of_kind("thought_closed", bool),
        cut_passages=fields.of_kind("cut_passages", int),
        cut_query=fields.of_kind("cut_query", bool),
        usage=fields.usage(),
        prompt_hash=fields.of_kind("prompt_hash", str),
        marked=marked,
        thought_given=fields.of_kind("thought_given", bool) if "thought_given" in fields.row else False,
        grade=fields.number("grade"),
        score=fields.number("score"),
        confidence=fields.number("confidence"),
        # Traces of earlier versions do not have it.
        closed_at=fields.choice("closed_at", CLOSED_AT) if "closed_at" in fields.row else None,
    )


class _Fields:
    """The fields of one object of a trace, with errors that name file, line and field."""

    def __init__(self, row: Any, where: str, within: str = "") -> None:
        self.row: Mapping[str, Any] = row
        self._where = where
        self._within = within
        if not isinstance(row, dict):
            raise DataFileError(f"{where}: field {within.rstrip('.')} is {quoted(row)}: an object is needed")

    def error(self, name: str, what: str) -> DataFileError:
        return DataFileError(f"{self._where}: field {self._within}{name} {what}")

    def of_kind(self, name: str, kind: type) -> Any:
        value = self.row.get(name)
        if type(value) is not kind:
            told = "is missing" if name not in self.row else f"is {quoted(value)}"
            raise self.error(name, f"{told}: r1ranker rerank --save-traces writes a {kind.__name__} there")
        return value

    def choice(self, name: str, allowed: Sequence[str]) -> Any:
        value = self.of_kind(name, str)
        if value not in allowed:
            raise self.error(name, f"is {quoted(value)}: use one of {', '.join(allowed)}")
        return value

    def places(self, name: str, places: Mapping[str, int]) -> tuple[int, ...]:
        ids = self.of_kind(name, list)
        if unknown := [doc_id for doc_id in ids if not isinstance(doc_id, str) or doc_id not in places]:
            raise self.error(name, f"names {quoted(unknown[0])}, of which texts has no text")
        if len(set(ids)) != len(ids):
            raise self.error(name, "names a document twice")
        return tuple(places[doc_id] for doc_id in ids)

    def probabilities(self, shown: Sequence[int]) -> dict[int, float] | None:
        if self.row.get("probabilities", ...) is None:
            return None
        values = self.of_kind("probabilities", list)
        if len(values) != len(shown) or not all(value is None or _is_finite(value) for value in values):
            raise self.error(
                "probabilities", f"is {quoted(values)}: a number or null for each document shown is needed"
            )
        return {place: float(value) for place, value in zip(shown, values, strict=True) if value is not None}

    def number(self, name: str) -> float | None:
        """A number that may be missing."""
        value = self.row.get(name)
        if name in self.row and not _is_finite(value):
            raise self.error(name, f"is {quoted(value)}: a finite number is needed")
        return None if value is None else float(value)

    def usage(self) -> Usage:
        counts = self.of_kind("usage", dict)
        if set(counts) != set(asdict(Usage())) or not all(type(count) is int for count in counts.values()):
            raise self.error("usage", f"is {quoted(counts)}: whole numbers {', '.join(asdict(Usage()))} are needed")
        return Usage(**counts)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
