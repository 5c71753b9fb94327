"""The SQLite file of a bank of thoughts: what it holds, how it is written and read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.prompts.worked_examples import WorkedExample

_APPLICATION_ID = int.from_bytes(b"r1tb", "big")
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE thoughts (
    id INTEGER PRIMARY KEY,
    query_id TEXT NOT NULL,
    query TEXT NOT NULL,
    task TEXT NOT NULL,
    asks TEXT NOT NULL,
    texts TEXT NOT NULL,
    thought TEXT NOT NULL,
    answer TEXT NOT NULL
);
"""
_COLUMNS = "query_id, query, task, asks, texts, thought, answer"


@dataclass(frozen=True)
class ThoughtBank:
    """Worked examples, and what they were made of; equal contents have equal digests."""

    path: str
    examples: tuple[WorkedExample, ...]
    about: Mapping[str, Any]
    digest: str


def write_bank(path: str | os.PathLike[str], examples: Sequence[WorkedExample], about: Mapping[str, Any]) -> None:
    """Writes a bank, whole or not at all, for its owner alone: thoughts quote documents."""
    target = Path(path)
    partial = Path(f"{target}.partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        with contextlib.closing(sqlite3.connect(partial)) as connection, connection:
            connection.executescript(f"PRAGMA application_id = {_APPLICATION_ID};{_TABLES}")
            connection.executemany(
                "INSERT INTO about VALUES (?, ?)", [(key, json.dumps(v)) for key, v in about.items()]
            )
            rows = map(_row, examples)
            connection.executemany(f"INSERT INTO thoughts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        os.replace(partial, target)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"can't write the bank {str(path)!r} ({error}): choose another --output") from error


def read_bank(path: str | os.PathLike[str]) -> ThoughtBank:
    """Reads a bank.

    Raises:
        InputError: if there is no such file, or it is not a bank.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no bank of thoughts {os.fspath(path)!r}: make one with r1ranker thoughts build")
    address = f"{Path(path).resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            [kind] = connection.execute("PRAGMA application_id").fetchone()
            if kind != _APPLICATION_ID:
                raise ValueError("it was made by something else")
            about = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM about")}
            rows = connection.execute(f"SELECT {_COLUMNS} FROM thoughts ORDER BY id").fetchall()
            examples = tuple(map(_example, rows))
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise InputError(
            f"{os.fspath(path)!r} is not a bank of thoughts ({error}): make one with r1ranker thoughts build"
        ) from error
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    return ThoughtBank(os.fspath(path), examples, about, digest)


def _row(example: WorkedExample) -> tuple[str, ...]:
    lists = json.dumps(example.texts), example.thought, json.dumps(example.answer)
    return (example.query_id, example.query, example.task, example.asks, *lists)


def _example(row: tuple[Any, ...]) -> WorkedExample:
    query_id, query, task, asks, texts, thought, answer = row
    told = tuple(json.loads(texts)), thought, tuple(json.loads(answer))
    if not all(0 <= place < len(told[0]) for place in told[2]):
        raise ValueError(f"the answer to {query_id!r} names no candidate")
    return WorkedExample(query_id, query, task, asks, *told)
