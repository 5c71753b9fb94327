"""Runs that are too long for memory: one pass notes where each query's lines are, and they are read when asked for."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Self

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
from r1ranker_ir.files.offsets import file_state, line_number
from r1ranker_ir.files.streams import is_stream


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
        if is_stream(path) or is_gzip(path):
            self._file = _unpacked(path, self.name)
        else:
            with run_errors(path):
                self._file = Path(path).open("rb")  # noqa: SIM115 (it stays open as long as the run)
        self.close = weakref.finalize(self, self._file.close)
        try:
            self._state = file_state(self._file)
            self._starts = self._stretches()
            self._check_unchanged()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, query_id: str) -> tuple[RunEntry, ...]:
        starts = self._starts[query_id]
        with self._lock:
            self._check_unchanged()
            lines = [line[1:] for start in starts for _, line in self._stretch(start)]
        return best_first(lines)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._starts

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _stretches(self) -> dict[str, list[int]]:
        """Checks all lines; query id to where each stretch of its lines starts, in bytes."""
        starts: dict[str, list[int]] = {}
        query_id: str | None = None
        documents: set[str] = set()
        offset = 0
        for number, raw in enumerate(self._file, start=1):
            where = f"{self.name}:{number}"
            line = parse_line(raw, where, first=number == 1)
            if line is not None:
                if line.query_id != query_id:
                    query_id, documents = line.query_id, set()
                    starts.setdefault(query_id, []).append(offset)
                if line.doc_id in documents:
                    raise repeated_document(line, where)
                documents.add(line.doc_id)
            offset += len(raw)
        for apart in (places for places in starts.values() if len(places) > 1):
            documents = set()
            for place, line in (found for start in apart for found in self._stretch(start)):
                if line.doc_id in documents:
                    raise repeated_document(line, f"{self.name}:{line_number(self._file, place)}")
                documents.add(line.doc_id)
        return starts

    def _stretch(self, start: int) -> Iterator[tuple[int, RunLine]]:
        """Reads the lines of one query from a place on, until those of another follow; gives their places too."""
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


def _unpacked(path: str | Path, named: str) -> IO[bytes]:
    """What can't be read at any place, in a file that has no name, so that nothing is left behind whatever happens."""
    lines = raw_lines(path)  # whose errors are of another kind
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (it stays open as long as the run)
        file.writelines(raw for _, raw in lines)
        file.seek(0)
    except OSError as error:
        raise StorageError(
            f"can't unpack {named} into a temporary file ({error.strerror}): make room in the folder for temporary "
            f"files, or name another one in the environment variable TMPDIR"
        ) from error
    return file
