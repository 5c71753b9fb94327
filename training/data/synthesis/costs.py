"""What steps have cost, by the engines' own counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from r1ranker_ir.engine.summary import RunSummary
from r1ranker_ir.rankers.ranker import Ranker


@dataclass(frozen=True)
class Cost:
    """What a step has cost; of its calls, `cached` were not made, since their answers were known.

    Calls and tokens do not depend on how often a run was stopped; `cached` and `seconds` do.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(one + more for one, more in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def line(self) -> str:
        """The cost in words."""
        return (
            f"{self.calls} calls ({self.cached} cached), {self.prompt_tokens} tokens in, {self.completion_tokens} "
            f"tokens out, {self.seconds:.1f} seconds"
        )


class Meter:
    """Reads off what a ranker's engine has counted since the meter was made; nothing for an encoder."""

    def __init__(self, ranker: Ranker | None) -> None:
        self._ranker = ranker
        self._before = RunSummary() if ranker is None else ranker.summary

    def cost(self) -> Cost:
        """The cost until now."""
        if self._ranker is None:
            return Cost()
        spent = self._ranker.summary.since(self._before)
        usage = spent.usage
        tokens = usage.prompt_tokens, usage.completion_tokens
        return Cost(usage.calls, *tokens, spent.cached_calls, round(spent.seconds, 3))


def total(costs: Iterable[Mapping[str, float]]) -> Cost:
    """Adds up costs as they were written down."""
    return sum((Cost(**each) for each in costs), Cost())  # type: ignore[arg-type]
