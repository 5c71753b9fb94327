"""Rows that can't be used: refused at once, or left out, counted and named."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from r1ranker_ir.errors import DataFileError
from r1ranker_ir.quoting import shorten_message

logger = logging.getLogger(__name__)

OnError = Literal["fail", "skip"]
_NAMED = 5


class LeftOutError(Exception):
    """A row can't be used: `Problems.add`'s arguments, or none where it is not a problem."""


class Problems:
    """Collects what is wrong with the rows of a source.

    `fail` raises an error for the first problem; `skip` counts it, and names the first of each kind in the log.
    """

    def __init__(self, on_error: OnError = "fail") -> None:
        self.on_error = on_error
        self.counts: Counter[str] = Counter()

    def add(self, where: str, reason: str, detail: str = "") -> None:
        """Reports a row at `where`; `reason` is the same for each of the kind, `detail` the value and what to do."""
        message = f"{where}: {reason}{f': {detail}' if detail else ''}"
        if self.on_error == "fail":
            raise DataFileError(f"{message}. To leave such rows out and have them counted, use --on-error skip")
        self.counts[reason] += 1
        if self.counts[reason] <= _NAMED:
            logger.warning("left out: %s", shorten_message(message, 1000))
        elif self.counts[reason] == _NAMED + 1:
            logger.warning("more rows are left out because: %s; they are counted in the summary", reason)

    @contextlib.contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Adds what a `LeftOutError` within says."""
        try:
            yield
        except LeftOutError as error:
            if error.args:
                self.add(*error.args)

    def line(self) -> str:
        """Says in a line how many rows were left out, and why."""
        reasons = ", ".join(f"{count} × {reason}" for reason, count in self.counts.most_common())
        return f"{sum(self.counts.values())} rows left out" + (f" ({reasons})" if reasons else "")
