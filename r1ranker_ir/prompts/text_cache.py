"""What was made of texts, remembered up to a number of bytes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

# What an entry takes besides its texts: its place in the dict, the tuples of key and result.
_ENTRY_BYTES = 250


class _Young(dict[Key, Result]):
    """The results used last; others are asked for elsewhere. A dict of its own kind finds a result fastest."""

    def __init__(self, missing: Callable[[Key], Result]) -> None:
        super().__init__()
        self._missing = missing

    def __missing__(self, key: Key) -> Result:
        return self._missing(key)


class TextCache(Generic[Key, Result]):
    """Remembers a function's results within a limit of bytes; `of` gives them.

    Results are kept in two generations: what is asked for again moves to the younger one, and when that holds half of
    the bytes, the older one is dropped. So the results used last stay, and a hit costs a look into a dict: a prompt
    needs two or three for each passage. Threads may share it; two of them may work out the same result at once.
    """

    def __init__(self, function: Callable[[Key], Result], max_bytes: int) -> None:
        self._function = function
        self._half = max_bytes // 2
        self._young: _Young[Key, Result] = _Young(self._find)
        self._old: dict[Key, Result] = {}
        self._young_bytes = 0
        self._old_bytes = 0
        self._lock = threading.Lock()
        self.of: Callable[[Key], Result] = self._young.__getitem__

    @property
    def bytes(self) -> int:
        """What is kept, in bytes; texts that keys and results share count once for each."""
        return self._young_bytes + self._old_bytes

    def _find(self, key: Key) -> Result:
        """Gives a result that the younger generation does not have, and adds it there."""
        try:
            result = self._old[key]
        except KeyError:
            result = self._function(key)
        size = _ENTRY_BYTES + _size(key)
        if result is not (key[0] if isinstance(key, tuple) else key):
            size += _size(result)
        if size > self._half:
            return result
        with self._lock:
            if key not in self._young:
                if self._young_bytes + size > self._half:
                    self._old, self._old_bytes = dict(self._young), self._young_bytes
                    self._young.clear()
                    self._young_bytes = 0
                self._young[key] = result
                self._young_bytes += size
        return result


def _size(value: Any) -> int:
    return sum(map(sys.getsizeof, value)) if isinstance(value, tuple) else sys.getsizeof(value)
