"""TREC runs: reading and writing, plain or gzip, and query by query so that a failure loses nothing.

A line holds six columns split by white space: query id, `Q0`, document id, rank, score, tag.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self, cast

import numpy as np

from r1ranker_ir.errors import DataFileError, InputError

logger = logging.getLogger(__name__)

STANDARD_STREAM = "-"
_LARGEST = float(np.finfo(np.float32).max)


class RunEntry(NamedTuple):
    """One retrieved document.

    Attributes:
        doc_id: the document's id.
        score: the higher the better; comparable within one query only.
    """

    doc_id: str
    score: float


Run = Mapping[str, tuple[RunEntry, ...]]
"""Query id to its entries, best first; queries in the order in which the file names them."""


def read_run(path: str | Path) -> dict[str, tuple[RunEntry, ...]]:
    """Reads a TREC run.

    A query's documents are ordered by falling score; equal scores by rising rank column, then as in the file.
    (trec_eval and ir_measures break ties by document id instead, so a measure of a run with ties may see
    another order than a reranker.)

    Args:
        path: a file, gzip if it ends in `.gz`, or `-` for standard input.

    Returns:
        The run, queries in order of first appearance.

    Raises:
        InputError: if there is no such file.
        DataFileError: if a line is malformed, or a document occurs twice in a query; names file and line.
    """
    named = "standard input" if str(path) == STANDARD_STREAM else str(path)
    scored: dict[str, dict[str, tuple[float, int]]] = {}
    for number, line in _lines(path, named):
        cells = line.split()
        if not cells:
            continue
        where = f"{named}:{number}"
        if len(cells) != 6:
            raise DataFileError(
                f"{where}: {len(cells)} columns: a run needs six (query id, Q0, document id, rank, score, tag)"
            )
        query_id, _, doc_id, rank, score, _ = cells
        documents = scored.setdefault(query_id, {})
        if doc_id in documents:
            raise DataFileError(f"{where}: document {doc_id!r} occurs twice in query {query_id!r}: keep one line")
        documents[doc_id] = (_score_of(score, where), _rank_of(rank, where))
    run: dict[str, tuple[RunEntry, ...]] = {}
    for query_id, documents in scored.items():
        ordered = sorted(documents.items(), key=lambda item: (-item[1][0], item[1][1]))
        run[query_id] = tuple(RunEntry(doc_id, score) for doc_id, (score, _) in ordered)
    return run


def write_run(run: Run, output: str | Path, tag: str = "r1ranker") -> None:
    """Writes a whole run; see `RunWriter`.

    Args:
        run: query id to entries, best first.
        output: a file, gzip if it ends in `.gz`, or `-` for standard output.
        tag: the last column, naming the system.

    Raises:
        InputError: if the run can't be written as it is, or the output can't be opened.
    """
    with RunWriter(output, tag) as writer:
        for query_id, entries in run.items():
            writer.write(query_id, entries)


class RunWriter:
    """Writes a run query by query; a context manager.

    The lines go to `<output>.partial`, flushed after each query, and the file gets its name when all went well.
    After a failure the finished queries stay in the partial file, and a log message says where.

    Args:
        output: a file, gzip if it ends in `.gz`, or `-` for standard output (written as the queries finish).
        tag: the last column, naming the system; one word.

    Raises:
        InputError: if the tag is not one word, or the output can't be opened.
    """

    def __init__(self, output: str | Path, tag: str = "r1ranker") -> None:
        if len(tag.split()) != 1 or tag.strip() != tag:
            raise InputError(f"run tag {tag!r} is not one word: TREC runs split their columns at white space")
        self.output = str(output)
        self.partial = Path(f"{self.output}.partial")
        self.queries = 0
        self._tag = tag
        self._written: set[str] = set()
        self._file: IO[str] | None = None
        if self.output != STANDARD_STREAM:
            self._check_place()

    def __enter__(self) -> Self:
        if self.output == STANDARD_STREAM:
            self._file = sys.stdout
            return self
        if self.partial.exists():
            logger.warning("overwriting %s, which an earlier run left behind", self.partial)
        try:
            self._file = _create(self.partial, compressed=self.output.endswith(".gz"))
        except OSError as error:
            raise InputError(f"can't write {self.partial}: {error.strerror}: choose another --output") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        if self.output == STANDARD_STREAM:
            self._file.flush()
            return
        self._file.close()
        if kind is None:
            os.replace(self.partial, self.output)
        elif self.queries:
            logger.warning("stopped early: the %d finished queries are kept in %s", self.queries, self.partial)
        else:
            self.partial.unlink()

    def write(self, query_id: str, entries: Sequence[RunEntry]) -> None:
        """Writes one query's documents, best first.

        Scores are written as single-precision values that fall strictly, since trec_eval holds scores in single
        precision and breaks ties by document id: a score that is not below the one before it is lowered to the
        next value that is.

        Args:
            query_id: one word, not written before.
            entries: best first; scores must not rise.

        Raises:
            InputError: if an id is no single word or repeats, or a score rises or is not finite.
        """
        if self._file is None:
            raise InputError("this RunWriter is not open: use it in a with statement")
        self._file.write("".join(self._query_lines(query_id, entries)))
        self._file.flush()
        self.queries += 1

    def _query_lines(self, query_id: str, entries: Sequence[RunEntry]) -> list[str]:
        if query_id in self._written:
            raise InputError(f"query {query_id!r} is written twice: give all its documents at once")
        lines, seen = [], set[str]()
        for rank, (doc_id, written) in enumerate(_falling(query_id, entries), start=1):
            if doc_id in seen:
                raise InputError(f"document {doc_id!r} occurs twice in query {query_id!r}: a run holds it once")
            for name, value in (("query", query_id), ("document", doc_id)):
                if value.split() != [value]:
                    raise InputError(f"{name} id {value!r} is empty or holds white space: a TREC run can't hold it")
            seen.add(doc_id)
            lines.append(f"{query_id} Q0 {doc_id} {rank} {written:.9g} {self._tag}\n")
        self._written.add(query_id)
        return lines

    def _check_place(self) -> None:
        output = Path(self.output)
        if output.is_dir():
            raise InputError(f"output {self.output!r} is a folder: give a file name")
        if not output.parent.is_dir():
            raise InputError(f"output {self.output!r}: folder {str(output.parent)!r} does not exist: create it first")


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


def _create(path: Path, *, compressed: bool) -> IO[str]:
    if compressed:
        return cast(IO[str], gzip.open(path, "wt", encoding="utf-8", newline="\n"))
    return path.open("w", encoding="utf-8", newline="\n")


def _lines(path: str | Path, named: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with _open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except FileNotFoundError:
        raise InputError(f"run file {named!r} does not exist: check the path") from None
    except UnicodeDecodeError as error:
        raise DataFileError(f"{named}:{number}: not UTF-8 ({error.reason}): convert the file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataFileError(f"{named}:{number + 1}: damaged gzip data ({error}): write the file again") from None
    except OSError as error:
        raise InputError(f"can't read run file {named!r}: {error.strerror}") from error


def _open_binary(path: str | Path) -> IO[bytes]:
    if str(path) == STANDARD_STREAM:
        return io.BytesIO(sys.stdin.buffer.read())
    if str(path).endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return Path(path).open("rb")


def _score_of(cell: str, where: str) -> float:
    try:
        score = float(cell)
    except ValueError:
        raise DataFileError(f"{where}: score {cell!r} is not a number") from None
    if not math.isfinite(score):
        raise DataFileError(f"{where}: score {cell!r} is not finite: such documents can't be ordered")
    return score


def _rank_of(cell: str, where: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise DataFileError(f"{where}: rank {cell!r} is not a whole number") from None
