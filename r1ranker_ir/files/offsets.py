"""Finding records of a large file by their ids, at 16 bytes of memory per record."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable
from typing import IO

import numpy as np

_BLOCK = 1 << 20


class OffsetIndex:
    """Where in a file the records of an id start, given id and byte offset of each record in the order of the file.

    Ids themselves are not kept, only 8 bytes of their hash: who looks one up reads the record and sees whether it is
    the one. Building takes about 45 bytes per record for a moment.
    """

    def __init__(self, records: Iterable[tuple[str, int]]) -> None:
        hashes, starts = array("q"), array("q")
        for name, start in records:
            hashes.append(_hash_of(name))
            starts.append(start)
        found = np.array(hashes, dtype=np.int64)
        order = np.argsort(found, kind="stable")
        self._hashes = found[order]
        self._starts = np.array(starts, dtype=np.int64)[order]

    def starts_of(self, name: str) -> list[int]:
        """Rising offsets of the records of an id, and hardly ever one of another id with the same hash."""
        wanted = np.int64(_hash_of(name))
        first, behind = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        return [int(start) for start in self._starts[first:behind]]


def file_state(file: IO[bytes]) -> tuple[int, int]:
    """Size and time of the last change of an open file: equal as long as nobody writes to it."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


def line_number(file: IO[bytes], offset: int) -> int:
    """Counts which line of a file, from 1, begins at a byte offset; moves the file's position."""
    file.seek(0)
    number = 1
    while block := file.read(min(offset, _BLOCK)):
        number += block.count(b"\n")
        offset -= len(block)
    return number


def _hash_of(name: str) -> int:
    # Python's own hash would differ in another process that gets this index by pickling.
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
