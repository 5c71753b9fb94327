"""Runs that are too long for memory: one pass notes where each query's lines are, and they are read when asked for."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Self

import numpy as np

from r1ranker_ir.data.trec_runs import (
    RunEntry,
    RunLine,
    best_first,
    name_of,
    parse_line,
    raw_lines,
    repeated_document,
    run_errors,
)
from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.files.json_lines import is_gzip
from r1ranker_ir.files.offsets import OffsetIndex, file_state, line_number
from r1ranker_ir.files.streams import STANDARD_STREAM


def open_run(path: str | Path) -> RunFile:
    """Opens a TREC run that is read query by query.

    What it gives for a query is what `read_run` gives. All lines are checked now; a query's lines need not stand
    together. Compressed files and standard input are unpacked into a temporary file, which goes with the process.
    """
    return RunFile(path)


class RunFile(Mapping[str, tuple[RunEntry, ...]]):
    """A run in a file, as a mapping from query id to entries, best first; see `open_run`.

    Queries come in the order in which the file names them first. May be used from several threads. The file stays
    open until `close`, the end of a `with` statement, or until nobody holds the run any more.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = name_of(path)
        self._lock = threading.Lock()
        self._file = _spool(path, self.name) if _needs_spool(path) else self._opened(path)
        self._release = weakref.finalize(self, self._file.close)
        try:
            self._state = file_state(self._file)
            index = OffsetIndex(self._stretches())
            self._check_unchanged()
            self._index = index
            self._firsts = self._first_stretches()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _opened(path: str | Path) -> IO[bytes]:
        with run_errors(path):
            return Path(path).open("rb")

    def __getitem__(self, query_id: str) -> tuple[RunEntry, ...]:
        with self._lock:
            lines = [line for start in self._starts_of(query_id) for _, line in self._stretch(start)]
        if not lines:
            raise KeyError(query_id)
        return best_first((line.doc_id, line.score, line.rank) for line in lines)

    def __contains__(self, query_id: object) -> bool:
        with self._lock:
            return isinstance(query_id, str) and bool(self._starts_of(query_id))

    def __iter__(self) -> Iterator[str]:
        for start in self._firsts:
            with self._lock:
                query_id = self._line_at(int(start)).query_id
            yield query_id

    def __len__(self) -> int:
        return len(self._firsts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def nbytes(self) -> int:
        """Memory of the index in bytes."""
        return self._index.nbytes + int(self._firsts.nbytes)

    def close(self) -> None:
        """Closes the file; the run can't be read any more."""
        self._release()

    def _stretches(self) -> Iterator[tuple[str, int]]:
        """Checks all lines; yields each stretch of lines of one query, by the query's id and where it starts."""
        query_id: str | None = None
        documents: set[str] = set()
        offset = 0
        for number, raw in enumerate(self._file, start=1):
            where = f"{self.name}:{number}"
            line = parse_line(raw, where, first=number == 1)
            if line is not None:
                if line.query_id != query_id:
                    query_id, documents = line.query_id, set()
                    yield query_id, offset
                if line.doc_id in documents:
                    raise repeated_document(line, where)
                documents.add(line.doc_id)
            offset += len(raw)

    def _first_stretches(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Where each query's first stretch starts, after a check of the queries that have several."""
        later = []
        for places in self._index.repeated():
            seen: dict[str, set[str]] = {}
            for start in places:
                query_id = self._line_at(start).query_id
                if query_id in seen:
                    later.append(start)
                documents = seen.setdefault(query_id, set())
                for offset, line in self._stretch(start):
                    if line.doc_id in documents:
                        raise repeated_document(line, f"{self.name}:{line_number(self._file, offset)}")
                    documents.add(line.doc_id)
        starts = self._index.starts()
        return starts[~np.isin(starts, later)] if later else starts

    def _starts_of(self, query_id: str) -> list[int]:
        return [start for start in self._index.starts_of(query_id) if self._line_at(start).query_id == query_id]

    def _line_at(self, start: int) -> RunLine:
        return next(self._stretch(start))[1]

    def _stretch(self, start: int) -> Iterator[tuple[int, RunLine]]:
        """Reads the lines of one query from a place on, until those of another follow; gives their places too."""
        self._check_unchanged()
        query_id = None
        self._file.seek(start)
        offset = start
        for raw in self._file:
            line = parse_line(raw, self.name, first=offset == 0)
            if line is not None:
                if query_id is not None and line.query_id != query_id:
                    return
                query_id = line.query_id
                yield offset, line
            offset += len(raw)

    def _check_unchanged(self) -> None:
        if self._file.closed:
            raise InputError(f"run {self.name!r} is closed: open it again")
        if file_state(self._file) != self._state:
            raise InputError(
                f"run file {self.name!r} was changed while it was being read: what was read so far is of the earlier "
                f"one. Start again when nothing writes to it"
            )


def _needs_spool(path: str | Path) -> bool:
    """Whether a run can't be read at any place: standard input, compressed files, pipes such as `<(…)`, devices."""
    if str(path) == STANDARD_STREAM or is_gzip(path):
        return True
    return Path(path).is_fifo() or Path(path).is_char_device()


def _spool(path: str | Path, named: str) -> IO[bytes]:
    """Unpacks a run into a file that has no name, so that nothing is left behind whatever happens."""
    file: IO[bytes] | None = None
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (it stays open as long as the run)
        for _, raw in raw_lines(path):  # whose errors are of another kind
            file.write(raw)
        file.seek(0)
    except BaseException as error:
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        if not isinstance(error, OSError):
            raise
        raise StorageError(
            f"can't unpack {named} into a temporary file ({error.strerror}): make room in the folder for temporary "
            f"files, or name another one in the environment variable TMPDIR"
        ) from error
    return file
