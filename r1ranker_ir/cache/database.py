"""The SQLite file of a completions cache: how it is opened, checked and written, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from r1ranker_ir.cache.records import FORMAT
from r1ranker_ir.errors import StorageError
from r1ranker_ir.files.locks import make_folder

_APPLICATION_ID = int.from_bytes(b"r1ir", "big")
_TABLES = """
CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, UNIQUE (name, version));
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    model INTEGER NOT NULL REFERENCES models (id),
    used INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX answers_by_use ON answers (used, id);
"""
_WAY_OUT = "choose another file (--cache FILE, or the environment variable R1RANKER_CACHE), or go without (--no-cache)"
# A full disk is a failing one where SQLite can't make the files beside the cache.
_FULL = "can't be written ({error}): free some room on its disk; the same command then goes on from there"
_LOCKED = "has been locked by another process for {seconds:g} seconds: wait until that one is done"
_DAMAGED = "is damaged, or not a cache ({error}): delete it with the files that end in -wal and -shm beside it"
_MEANINGS = {
    **dict.fromkeys((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR), _FULL),
    **dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), _LOCKED),
    **dict.fromkeys((sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT), _DAMAGED),
}
_INHERITED: list[sqlite3.Connection] = []


class Database:
    """A connection that threads share, one at a time; a process that was forked off opens one for itself.

    `lock_timeout` is how many seconds to wait for other processes that write.
    """

    def __init__(self, path: Path, lock_timeout: float) -> None:
        self.path = path
        self._lock_timeout = lock_timeout
        try:
            make_folder(path.parent)
            if path.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            if path.exists() and not path.is_file():
                raise OSError(None, "it is not an ordinary file")
            # For its owner alone: SQLite gives the files beside it the same mode.
            with contextlib.suppress(FileExistsError):
                # A link may lead to a file that is not there yet.
                os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _tighten(path)
        except OSError as error:
            raise StorageError(f"the cache {str(path)!r} can't be used: {error.strerror}: {_WAY_OUT}") from error
        self._open()

    def _open(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        with self._explained():
            self._connection = sqlite3.connect(
                self.path, timeout=self._lock_timeout, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Gives the connection to one thread; SQLite's errors become ours."""
        if self._pid != os.getpid():
            # The parent's stays referenced: SQLite forbids to touch it after a fork, even to close it.
            _INHERITED.append(self._connection)
            self._open()
        with self._lock, self._explained():
            yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """As `reading`, in a transaction that is written when all went well and taken back otherwise."""
        with self.reading() as connection, _transaction(connection, "IMMEDIATE"):
            yield connection

    def close(self) -> None:
        """Closes the connection, unless it is another process's."""
        if self._pid == os.getpid():
            with self._lock:
                self._connection.close()

    def _prepare(self) -> None:
        connection, deadline = self._connection, time.monotonic() + self._lock_timeout
        # In one transaction: between two looks, another process might make the tables.
        with _transaction(connection, "DEFERRED"):
            new = self._is_new()
        if new:
            # Both must come before the first table. Switching to WAL does not wait for others' locks by itself.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            while True:
                try:
                    connection.execute("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError as error:
                    if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        # A commit is then safe from the end of the process; a power cut may cost the latest ones, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Begun even where nothing must be made: a file that can't be written is noticed now and not after an hour.
        with _transaction(connection, "IMMEDIATE"):
            if self._is_new():
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _is_new(self) -> bool:
        """Whether the file is empty; refuses one that holds something else."""
        application, version = (pragma(self._connection, name) for name in ("application_id", "user_version"))
        if application == _APPLICATION_ID and version != FORMAT:
            raise StorageError(
                f"the cache {str(self.path)!r} has format {version}, and this r1ranker-ir keeps format {FORMAT}: "
                f"use the release that made it, delete the file, or {_WAY_OUT}"
            )
        is_ours = application == _APPLICATION_ID
        if not is_ours and (application or version or pragma(self._connection, "schema_version")):
            raise StorageError(f"{str(self.path)!r} is an SQLite database of another program, not a cache: {_WAY_OUT}")
        return not is_ours

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            meaning = _MEANINGS.get(_code(error), "can't be read or written ({error})")
            said = meaning.format(error=error, seconds=self._lock_timeout)
            raise StorageError(f"the cache {str(self.path)!r} {said}; or {_WAY_OUT}") from error


def pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _tighten(path: Path) -> None:
    """Takes the right to read from those who can't write: earlier releases gave it, and it is of no use to them.

    Whoever may read and write shares the cache on purpose, and goes on doing so.
    """
    if os.name != "posix":
        return
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(OSError):
            state = each.stat()
            mode = stat.S_IMODE(state.st_mode)
            kept = mode & ~sum(read for read, write in ((0o040, 0o020), (0o004, 0o002)) if not mode & write)
            if kept != mode and state.st_uid == os.geteuid():
                each.chmod(kept)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 where Python's own module complains."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
