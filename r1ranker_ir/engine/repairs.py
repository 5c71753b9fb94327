"""When a run is stopped: too many of its answers had to be repaired, or too many of its calls failed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from r1ranker_ir.errors import BackendError, CallError, InputError, RepairRateError

logger = logging.getLogger(__name__)

RECENT_CALLS = 200
"""How many of an engine's latest answers count where its runs are too short for a rate of their own."""
ENOUGH_CALLS = 50
"""Of how many calls a rate says something."""
# So many calls that fail one after the other are no longer the fault of each.
_FAILURES_IN_A_ROW = 10
_REFUSALS_WITHOUT_ANSWER = 20


@dataclass(frozen=True)
class RepairLimit:
    """The share of answers that may need repair."""

    max_rate: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.max_rate <= 1:
            raise InputError(f"max_repair_rate is {self.max_rate}: give a share from 0 to 1")

    def check(self, calls: int, repairs: int, model: str) -> None:
        """Raises a RepairRateError if a run of enough calls has passed the limit."""
        if calls < ENOUGH_CALLS or not self.is_passed(calls, repairs):
            return
        raise RepairRateError(
            f"{repairs} of {calls} answers of {model!r} had to be repaired ({repairs / calls:.0%}, more than "
            f"max_repair_rate {self.max_rate:.0%}): the model does not keep to the answer format, and the ranking "
            "would be mostly the first stage's. Look at a step's text in the trace; use a model that follows "
            "instructions, a larger max_thought_tokens, or raise max_repair_rate."
        )

    def is_passed(self, calls: int, repairs: int) -> bool:
        """Whether more than the share is repaired, of however few calls."""
        return calls > 0 and repairs / calls > self.max_rate

    def warn(self, calls: int, repairs: int, model: str) -> None:
        """Says at the end of a run that it was too short to be stopped, and would have been."""
        if calls < ENOUGH_CALLS and self.is_passed(calls, repairs):
            logger.warning(
                "%d of %d answers of %r had to be repaired (%.0f%%): what can't be used is completed from the first "
                "stage's order. Look at a step's text in the trace before you rely on these rankings",
                *(repairs, calls, model, 100 * repairs / calls),
            )


@dataclass
class RunCounts:
    """Calls, repairs and failures of one run, and seconds of its programs that are not in the summary yet."""

    calls: int = 0
    repairs: int = 0
    seconds: float = 0.0
    answered: bool = False
    refused: int = 0
    failures_in_a_row: int = 0

    def note_failure(self, error: CallError) -> None:
        """Counts a failed call; raises a BackendError if so many have failed that others would as well."""
        self.refused += error.refused
        self.failures_in_a_row += not error.refused
        told = ""
        if not self.answered and self.refused == _REFUSALS_WITHOUT_ANSWER:
            told = f"the first {self.refused} calls were all refused"
        elif self.failures_in_a_row == _FAILURES_IN_A_ROW:
            told = f"{self.failures_in_a_row} calls failed one after the other"
        if told:
            raise BackendError(f"{told}, so the run is stopped; the latest: {error}")

    def note_answer(self) -> None:
        """Counts a call that was answered, or whose answer was known."""
        self.answered, self.failures_in_a_row = True, 0
