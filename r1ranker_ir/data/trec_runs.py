"""TREC runs: reading and writing, plain or gzip, and query by query so that a failure loses nothing.

A line holds six columns split by ASCII white space, as trec_eval splits them: query id, `Q0`, document id, rank, score,
tag. Other white space of Unicode is a part of its id. Files and streams are UTF-8.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files import json_lines
from r1ranker_ir.files.partial import PartialFile
from r1ranker_ir.files.plain_data import number_of, whole_number_of
from r1ranker_ir.files.streams import STANDARD_STREAM
from r1ranker_ir.quoting import quoted

_BYTE_ORDER_MARK = "\ufeff"
# ASCII white space, and what ends a text in C.
_NOT_IN_A_COLUMN = re.compile("[ \t\n\r\v\f\0]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_LARGEST = float(np.finfo(np.float32).max)


class RunEntry(NamedTuple):
    """One retrieved document; scores, the higher the better, can be compared within one query only."""

    doc_id: str
    score: float


Run = Mapping[str, tuple[RunEntry, ...]]
"""Query id to its entries, best first; queries in the order in which the file names them."""


def read_run(path: str | Path) -> dict[str, tuple[RunEntry, ...]]:
    """Reads a TREC run.

    A query's documents are ordered by falling score; equal scores by rising rank column, then as in the file.
    (trec_eval and ir_measures break ties by document id instead, so a measure of a run with ties may see
    another order than a reranker.)
    """
    found: dict[str, dict[str, tuple[str, int, float]]] = {}
    named = name_of(path)
    for number, raw in raw_lines(path):
        where = f"{named}:{number}"
        if (line := parse_line(raw, where, first=number == 1)) is not None:
            documents = found.setdefault(line.query_id, {})
            if line.doc_id in documents:
                raise repeated_document(line, where)
            documents[line.doc_id] = line[1:]
    return {query_id: best_first(documents.values()) for query_id, documents in found.items()}


class RunLine(NamedTuple):
    """What counts of one line of a run."""

    query_id: str
    doc_id: str
    rank: int
    score: float


def name_of(path: str | Path) -> str:
    """What messages call a run file."""
    return "standard input" if str(path) == STANDARD_STREAM else str(path)


def raw_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yields a run file's lines as they are, unpacked, with their numbers from 1."""
    with run_errors(path):
        if str(path) == STANDARD_STREAM:
            yield from json_lines.bounded_lines(sys.stdin.buffer, name_of(path))
        else:
            yield from json_lines.raw_lines(Path(path))


@contextlib.contextmanager
def run_errors(path: str | Path) -> Iterator[None]:
    """Says of a run file why it can't be read."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"run file {name_of(path)!r} does not exist: check the path") from None
    except OSError as error:
        raise InputError(f"can't read run file {name_of(path)!r}: {error.strerror}: give a TREC run") from error


def parse_line(raw: bytes, where: str, *, first: bool) -> RunLine | None:
    """Reads one line of a run."""
    try:
        cells = json_lines.split_columns(raw.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        raise DataFileError(f"{where}: not UTF-8 ({error.reason}): convert the file") from None
    if not cells:
        return None
    if len(cells) != 6:
        raise DataFileError(
            f"{where}: {len(cells)} columns: a run needs six (query id, Q0, document id, rank, score, tag)"
        )
    query_id, _, doc_id, rank, score, _ = cells
    line = RunLine(query_id, doc_id, whole_number_of(rank, f"{where}: rank"), number_of(score, f"{where}: score"))
    if not math.isfinite(line.score):
        raise DataFileError(f"{where}: score {quoted(score)} is not finite: such documents can't be ordered")
    return line


def repeated_document(line: RunLine, where: str) -> DataFileError:
    """The error for a document that its query has had already."""
    return DataFileError(f"{where}: document {line.doc_id!r} occurs twice in query {line.query_id!r}: keep one line")


def best_first(documents: Iterable[tuple[str, int, float]]) -> tuple[RunEntry, ...]:
    """Orders one query's documents, given with rank and score."""
    ordered = sorted(documents, key=lambda document: (-document[2], document[1]))
    return tuple(RunEntry(doc_id, score) for doc_id, _, score in ordered)


def write_run(run: Run, output: str | Path, tag: str = "r1ranker") -> None:
    """Writes a whole run; see `RunWriter`."""
    with RunWriter(output, tag) as writer:
        for query_id, entries in run.items():
            writer.write(query_id, entries)


class RunWriter:
    """Writes a run query by query; a context manager.

    A file is treated as `PartialFile` does: after a failure the finished queries stay in `<output>.partial`. The tag,
    the last column, names the system in one word.
    """

    def __init__(self, output: str | Path, tag: str = "r1ranker") -> None:
        if not tag or _NOT_IN_A_COLUMN.search(tag):
            raise InputError(f"run tag {tag!r} is not one word: TREC runs split their columns at white space")
        self.output = str(output)
        self.queries = 0
        self._tag = tag
        self._written: set[str] = set()
        self._file = PartialFile(self.output, "--output")

    @property
    def partial(self) -> Path:
        """Where the run grows until it is whole."""
        return self._file.partial

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def write(self, query_id: str, entries: Sequence[RunEntry]) -> None:
        """Writes one query's documents, best first.

        Scores are written as single-precision values that fall strictly, since trec_eval 9 and pytrec_eval hold scores
        in single precision (trec_eval 10.0 in double) and break ties by document id: a score that is not below the one
        before it is lowered to the next value that is.
        """
        self._file.write("".join(self._query_lines(query_id, entries)).encode())
        self.queries += 1

    def _query_lines(self, query_id: str, entries: Sequence[RunEntry]) -> list[str]:
        if query_id in self._written:
            raise InputError(f"query {query_id!r} is written twice: give all its documents at once")
        lines, seen = [], set[str]()
        for rank, (doc_id, written) in enumerate(_falling(query_id, entries), start=1):
            if doc_id in seen:
                raise InputError(f"document {doc_id!r} occurs twice in query {query_id!r}: a run holds it once")
            for name, value in (("query", query_id), ("document", doc_id)):
                if why_not := _why_not(value):
                    raise InputError(f"{name} id {value!r} {why_not}: a TREC run can't hold it, use another id")
            seen.add(doc_id)
            lines.append(f"{query_id} Q0 {doc_id} {rank} {written:.9g} {self._tag}\n")
        self._written.add(query_id)
        return lines


def is_run_id(value: str) -> bool:
    """Whether a run can hold an id: one word, as ASCII white space splits words, that can be written as UTF-8."""
    return not _why_not(value)


def _why_not(value: str) -> str:
    if not value or _NOT_IN_A_COLUMN.search(value):
        return "is empty or holds white space"
    if value.startswith(_BYTE_ORDER_MARK):
        return "begins with a byte order mark"
    return "holds half a surrogate pair, which is not UTF-8" if _HALF_PAIR.search(value) else ""


def run_id_of(value: str) -> str:
    """Makes an id that a run can hold: `a_b` of `a b`."""
    return "_".join(re.findall("[^ \t\n\r\v\f\0\ud800-\udfff]+", value.lstrip(_BYTE_ORDER_MARK))) or "_"


def _falling(query_id: str, entries: Sequence[RunEntry]) -> Iterator[tuple[str, float]]:
    """Yields ids with scores that fall strictly in single precision."""
    given, written = math.inf, math.inf
    for doc_id, score in entries:
        if not math.isfinite(score) or abs(score) > _LARGEST:
            raise InputError(f"score {score!r} of document {doc_id!r}, query {query_id!r}, is not a finite float32")
        if score > given:
            raise InputError(
                f"score of document {doc_id!r}, query {query_id!r}, is above the one before it: sort first"
            )
        given = score
        if written <= -_LARGEST:
            raise InputError(f"scores of query {query_id!r} reach the end of float32's range: scale them")
        written = min(float(np.float32(score)), float(np.nextafter(np.float32(written), np.float32(-np.inf))))
        yield doc_id, written
