"""What an engine has done so far: calls, tokens, repairs and seconds, added up over its runs and threads."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from r1ranker_ir.engine.closed_thoughts import of_many
from r1ranker_ir.engine.signs import NO_SIGNS, Signs
from r1ranker_ir.types import CLOSED_AT, Usage


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
    signs: Signs = NO_SIGNS

    @property
    def closed_thoughts(self) -> str:
        """How many thoughts the model did not close, and where they ended, in words; empty if there are none."""
        return of_many(self.thoughts_closed, {where: getattr(self, f"closed_at_{where}") for where in CLOSED_AT})

    def __add__(self, other: RunSummary) -> RunSummary:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return RunSummary(**{**sums, "cache_memory_peak": max(self.cache_memory_peak, other.cache_memory_peak)})

    def since(self, before: RunSummary) -> RunSummary:
        """What was done between two looks at one engine's summary; the peak is that of all its time."""
        spent = RunSummary(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))
        return replace(spent, cache_memory_peak=self.cache_memory_peak)
