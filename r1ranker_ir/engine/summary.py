"""What an engine has done so far: calls, tokens, repairs and seconds, added up over its runs and threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from r1ranker_ir.engine.closed_thoughts import of_many
from r1ranker_ir.engine.signs import NO_SIGNS, Signs
from r1ranker_ir.types import CLOSED_AT, ChosenBy, Usage

HOW_CHOSEN: dict[ChosenBy, str] = {
    "constraint": "chosen under a constraint",
    "log_probabilities": "chosen by log-probabilities",
    "parsing": "read from text",
}
"""How answers were chosen on a server, in words."""


@dataclass(frozen=True)
class RunSummary:
    """What an engine has done so far.

    Args:
        queries: rankings finished.
        usage: calls and tokens, of unfinished rankings too.
        repairs: answers that had to be repaired, in finished rankings.
        thoughts_closed: thoughts that the model did not close.
        cut_passages: passages shortened to fit, counted per call.
        seconds: time spent on prompts and model calls, waiting for other threads' calls not included.
        cached_calls: how many of `usage.calls` were not made: their answers were in the cache, or came with an equal
            call of the same batch.
        cut_queries: calls whose query was shortened.
        prompt_tokens_computed: how many of `usage.prompt_tokens` the model read, and did not know from a call before:
            none where the answer was cached, all of them on a server that does not tell.
        cache_memory_peak: the most bytes that the backend has kept between calls, in one process.
        closed_at_limit: how many of `thoughts_closed` ran into the limit; likewise `closed_at_end_of_turn` and
            `closed_at_answer`. The rest was not recorded.
        chosen_by_constraint: answers of a server that was held to the identifiers, by a JSON schema or in its own way;
            likewise `chosen_by_log_probabilities` and `chosen_by_parsing`.
        signs: whether answers name one place, grades are equal and orders those that went in; see `signs.sentences`.
    """

    queries: int = 0
    usage: Usage = field(default_factory=Usage)
    repairs: int = 0
    thoughts_closed: int = 0
    cut_passages: int = 0
    seconds: float = 0.0
    cached_calls: int = 0
    cut_queries: int = 0
    prompt_tokens_computed: int = 0
    cache_memory_peak: int = 0
    closed_at_limit: int = 0
    closed_at_end_of_turn: int = 0
    closed_at_answer: int = 0
    chosen_by_constraint: int = 0
    chosen_by_log_probabilities: int = 0
    chosen_by_parsing: int = 0
    signs: Signs = NO_SIGNS

    @property
    def choices(self) -> str:
        """How answers were chosen on a server, in words; empty for other backends."""
        counts = {words: getattr(self, f"chosen_by_{how}") for how, words in HOW_CHOSEN.items()}
        return ", ".join(f"{count} answers {words}" for words, count in counts.items() if count)

    @property
    def closed_thoughts(self) -> str:
        """How many thoughts the model did not close, and where they ended, in words; empty if there are none."""
        return of_many(self.thoughts_closed, {where: getattr(self, f"closed_at_{where}") for where in CLOSED_AT})

    def __add__(self, other: RunSummary) -> RunSummary:
        added = RunSummary(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))
        return replace(added, cache_memory_peak=max(self.cache_memory_peak, other.cache_memory_peak))

    def since(self, before: RunSummary) -> RunSummary:
        """What was done between two looks at one engine's summary; the peak is that of all its time."""
        spent = RunSummary(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))
        return replace(spent, cache_memory_peak=self.cache_memory_peak)


class Tally:
    """Adds up a `RunSummary`, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[str, Any] = defaultdict(int)
        self._signs = NO_SIGNS
        self._peak = 0

    def add(self, counts: Mapping[str, float], *, signs: Signs = NO_SIGNS, cache_memory_peak: int = 0) -> None:
        """Adds counts by their names in `RunSummary` and `Usage`."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count
            self._signs += signs
            self._peak = max(self._peak, cache_memory_peak)

    @property
    def summary(self) -> RunSummary:
        with self._lock:
            counts = dict(self._counts)
            usage = Usage(*(counts.pop(each.name, 0) for each in fields(Usage)))
            return RunSummary(usage=usage, cache_memory_peak=self._peak, signs=self._signs, **counts)
