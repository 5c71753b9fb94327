"""The completions cache: answers that were paid for once, kept between runs and shared by processes."""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.cache.database import Database, pragma
from r1ranker_ir.cache.records import FORMAT, decode, encode
from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.types import Answer

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "R1RANKER_CACHE"
MAX_BYTES_VARIABLE = "R1RANKER_CACHE_MAX_BYTES"
DEFAULT_MAX_BYTES = 2 * 1024**3
SMALLEST_MAX_BYTES = 2**20

# An answer's last use is noted by the hour, so that reading costs no writing.
_SECONDS_PER_USE = 3600
_KEYS_AT_ONCE = 500
# Room is made for more than the next batch, not for each batch anew; in small transactions, which others wait for.
_FULL, _EMPTIED, _EVICTED_AT_ONCE = 0.98, 0.93, 200


@dataclass(frozen=True)
class ModelEntries:
    """How many answers a cache holds of one version of a model; that of a server is its address."""

    name: str
    version: str
    entries: int


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds: when its answers were used, to the hour, and how many there are by model, most first."""

    path: Path
    format: int
    entries: int
    file_bytes: int
    max_bytes: int
    oldest_use: datetime | None
    newest_use: datetime | None
    models: tuple[ModelEntries, ...]


class CompletionsCache(AbstractContextManager["CompletionsCache"]):
    """Answers by key in one SQLite file; for any number of threads and processes at once.

    What was stored is safe from the end of the process. The file stays below `max_bytes`: answers that have not been
    used for longest make room for new ones. A process that was forked off opens the file for itself.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES, lock_timeout: float = 60.0
    ) -> None:
        if max_bytes < SMALLEST_MAX_BYTES:
            raise InputError(f"the cache's max_bytes is {max_bytes}: give at least {SMALLEST_MAX_BYTES} (1 MiB)")
        self.path = Path(path).expanduser().absolute()
        self.max_bytes = max_bytes
        self._damaged: set[bytes] = set()
        self._database = Database(self.path, lock_timeout)
        self._finalizer = weakref.finalize(self, self._database.close)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._finalizer()

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """Finds answers by their keys, as `records.key_maker` makes them.

        A damaged one counts as missing and is replaced when it is stored again; so does an empty one, which earlier
        versions kept where a server had failed.
        """
        found: dict[bytes, Answer] = {}
        old: list[int] = []
        with self._database.reading() as connection:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]
                asked = f"SELECT id, key, used, value FROM answers WHERE key IN ({','.join('?' * len(some))})"
                for entry, key, used, value in connection.execute(asked, some).fetchall():
                    answer = decode(key, value)
                    if answer is not None and (answer.choice is not None or answer.text.strip()):
                        found[key] = answer
                        old += [entry] if used < _now() else []
                        continue
                    if answer is None and key not in self._damaged:
                        logger.warning("an answer in the cache %s is damaged: it is asked for again", self.path)
                    self._damaged.add(key)
        if old:
            self._note_uses(old)
        return found

    def _note_uses(self, entries: Sequence[int]) -> None:
        try:
            with self._database.writing() as connection:
                connection.executemany("UPDATE answers SET used = ? WHERE id = ?", [(_now(), each) for each in entries])
        # Which answers are old is not worth an error.
        except StorageError as error:
            logger.info("the latest uses of the cache are not noted: %s", error)

    def store(self, answers: Mapping[bytes, Answer], *, model: str, version: str = "") -> dict[bytes, Answer]:
        """Keeps answers, in one transaction; returns other processes' answers to these keys that were there first."""
        with self._database.writing() as connection:
            named = (model, version)
            connection.execute("INSERT OR IGNORE INTO models (name, version) VALUES (?, ?)", named)
            [owner] = connection.execute("SELECT id FROM models WHERE name = ? AND version = ?", named).fetchone()
            damaged = [(key,) for key in answers if key in self._damaged]
            connection.executemany("DELETE FROM answers WHERE key = ?", damaged)
            rows = [(key, owner, _now(), encode(key, answer)) for key, answer in answers.items()]
            new = connection.executemany(
                "INSERT OR IGNORE INTO answers (key, model, used, value) VALUES (?, ?, ?, ?)", rows
            ).rowcount
        self._damaged.difference_update(answers)
        there_first = self.look_up(list(answers)) if new < len(rows) else {}
        self._make_room()
        return {key: answer for key, answer in there_first.items() if answer != answers[key]}

    def info(self) -> CacheInfo:
        with self._database.reading() as connection:
            counts = connection.execute("SELECT count(*), min(used), max(used) FROM answers").fetchone()
            models = connection.execute(
                "SELECT name, version, count(*) AS entries FROM answers JOIN models ON models.id = answers.model "
                "GROUP BY models.id ORDER BY entries DESC, name, version"
            ).fetchall()
            file_bytes, _ = _sizes(connection)
        by_model = tuple(ModelEntries(*row) for row in models)
        entries, oldest, newest = counts
        uses = (_when(oldest), _when(newest))
        return CacheInfo(self.path, FORMAT, entries, file_bytes, self.max_bytes, *uses, by_model)

    def clear(self, model: str | None = None) -> int:
        """Removes the answers of a model, or all, from the disk; returns how many there were."""
        with self._database.writing() as connection:
            of_model = "WHERE ?1 IS NULL OR model IN (SELECT id FROM models WHERE name = ?1)"
            removed = connection.execute(f"DELETE FROM answers {of_model}", (model,)).rowcount
            connection.execute("DELETE FROM models WHERE id NOT IN (SELECT model FROM answers)")
        with self._database.reading() as connection:
            _shrink(connection)
            # The file itself follows when the log is written back.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return removed

    def _make_room(self) -> None:
        """Removes what has not been used for longest, once the file is full."""
        with self._database.reading() as connection:
            file_bytes, used_bytes = _sizes(connection)
        if used_bytes > _FULL * self.max_bytes:
            oldest = f"SELECT id FROM answers ORDER BY used, id LIMIT {_EVICTED_AT_ONCE}"
            removed = True
            while removed and used_bytes > _EMPTIED * self.max_bytes:
                with self._database.writing() as connection:
                    removed = connection.execute(f"DELETE FROM answers WHERE id IN ({oldest})").rowcount > 0
                    _, used_bytes = _sizes(connection)
        if file_bytes > self.max_bytes:
            with self._database.reading() as connection:
                _shrink(connection)


def open_cache(path: str | os.PathLike[str] | None = None, *, max_bytes: int | None = None) -> CompletionsCache:
    """Opens a cache, by default `default_cache_path()`, limited by `R1RANKER_CACHE_MAX_BYTES` or to 2 GiB."""
    given = os.environ.get(MAX_BYTES_VARIABLE, "").strip()
    if max_bytes is None:
        try:
            max_bytes = int(given) if given else DEFAULT_MAX_BYTES
        except ValueError:
            raise InputError(f"{MAX_BYTES_VARIABLE} is {given!r}: give a whole number of bytes") from None
    return CompletionsCache(default_cache_path() if path is None else path, max_bytes=max_bytes)


def default_cache_path() -> Path:
    """The file that `R1RANKER_CACHE` names, or the one in the user's folder for caches."""
    if named := os.environ.get(CACHE_VARIABLE, "").strip():
        return Path(named).expanduser()
    systems = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA") or "~/AppData/Local"}
    folder = os.environ.get("XDG_CACHE_HOME", "").strip() or systems.get(sys.platform, "~/.cache")
    return Path(folder).expanduser() / "r1ranker-ir" / "completions.sqlite"


def _shrink(connection: sqlite3.Connection) -> None:
    """Gives the pages that hold nothing back to the disk."""
    # execute() would take one step, which is one page: the statement gives no rows to fetch.
    connection.executescript("PRAGMA incremental_vacuum")


def _sizes(connection: sqlite3.Connection) -> tuple[int, int]:
    """The bytes of the file, and of these the ones that hold something."""
    pages, free, size = (pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    return pages * size, (pages - free) * size


def _now() -> int:
    return int(time.time()) // _SECONDS_PER_USE


def _when(use: int | None) -> datetime | None:
    return None if use is None else datetime.fromtimestamp(use * _SECONDS_PER_USE, UTC)
