"""Regular expressions of template files, matched under a limit on their time.

A pattern such as `(a+)+b` takes longer than the age of the universe on an unlucky answer, and nothing in the same
process could stop Python's `re`. The package `regex` matches what `re` does, and gives up in time.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import regex

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

SECONDS = 5.0
"""How long one answer may take; what takes longer than milliseconds is a fault of the pattern."""
_LONGEST_PATTERN = 10_000
# Counts inside counts are unfolded, and would fill the memory.
_MOST_REPETITIONS = 10_000
_COUNT = re.compile(r"\{(?:\d*,)?(\d+),?\}")


def checked_pattern(pattern: str) -> str:
    """A template file's pattern; an InputError if it is not one, or neither a person's nor a harmless one."""
    if len(pattern) > _LONGEST_PATTERN:
        raise InputError(f"it has {len(pattern):,} characters, and a pattern may have {_LONGEST_PATTERN:,}")
    try:
        re.compile(pattern)
        if math.prod(int(count) for count in _COUNT.findall(pattern)) > _MOST_REPETITIONS:
            raise InputError(f"its counts multiply to more than {_MOST_REPETITIONS:,}: repeat less")
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"it is not a regular expression: {error}") from error
    return pattern


@dataclass(frozen=True)
class TimedPattern:
    """A checked pattern of a template file, and file and key for errors."""

    pattern: str
    where: str
    flags: int = 0

    def search(self, text: str) -> regex.Match[str] | None:
        """The first match; an InputError if that takes too long."""
        return self._found("search", text)

    def fullmatch(self, text: str) -> regex.Match[str] | None:
        return self._found("fullmatch", text)

    def _found(self, how: str, text: str) -> regex.Match[str] | None:
        compiled = regex.compile(self.pattern, self.flags)
        try:
            found: regex.Match[str] | None = getattr(compiled, how)(text, timeout=SECONDS, concurrent=True)
        except (TimeoutError, MemoryError, RecursionError) as error:
            what = "takes more than" if isinstance(error, TimeoutError) else "fills the memory in less than"
            raise InputError(
                f"{self.where} is {quoted(self.pattern)}, which {what} {SECONDS:g} seconds on an answer of "
                f"{len(text):,} characters: write it without repetitions inside repetitions, such as "
                "<answer>(.*?)</answer>"
            ) from error
        return found
