"""What was made of texts, remembered up to a number of bytes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

# What an entry takes besides its texts: its place in the dict, the tuples of arguments and of entry.
_ENTRY_BYTES = 250


class TextCache(Generic[*Arguments, Result]):
    """Remembers a function's results by its arguments, within a limit of bytes.

    Results are kept in two generations: what is asked for again moves to the younger one, and when that holds half of
    the bytes, the older one is dropped. So the results used last stay, and a hit costs a look into a dict: a prompt
    needs three for each passage. Threads may share it; two of them may work out the same result at once.

    Args:
        function: gives the same result for the same arguments, which are hashable.
        max_bytes: what arguments and results may take together. A result that takes more than half of it is not kept.
    """

    def __init__(self, function: Callable[[*Arguments], Result], max_bytes: int) -> None:
        self._function = function
        self._half = max_bytes // 2
        self._young: dict[tuple[*Arguments], Result] = {}
        self._old: dict[tuple[*Arguments], Result] = {}
        self._young_bytes = 0
        self._old_bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What is kept, in bytes; texts that arguments and results share count once for each."""
        return self._young_bytes + self._old_bytes

    def __call__(self, *args: *Arguments) -> Result:
        """Gives the function's result."""
        try:
            return self._young[args]
        except KeyError:
            pass
        try:
            result = self._old[args]
        except KeyError:
            result = self._function(*args)
        self._keep(args, result)
        return result

    def _keep(self, args: tuple[*Arguments], result: Result) -> None:
        size = _ENTRY_BYTES + sum(sys.getsizeof(each) for each in args)
        if not any(result is each for each in args):
            size += _size(result)
        if size > self._half:
            return
        with self._lock:
            if args in self._young:
                return
            if self._young_bytes + size > self._half:
                self._old, self._old_bytes = self._young, self._young_bytes
                self._young, self._young_bytes = {}, 0
            self._young[args] = result
            self._young_bytes += size


def _size(result: Any) -> int:
    return sum(map(sys.getsizeof, result)) if isinstance(result, tuple) else sys.getsizeof(result)
