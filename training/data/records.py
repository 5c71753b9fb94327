"""Samples: what is asked of a ranking problem with its solution, which every source of training data becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import COMPARED, Asked, Candidate, RankingRequest, Task

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""The tags of the protocol."""


ASKED_OF_SAMPLES: tuple[Asked, ...] = (*COMPARED, "grade")
"""What samples can ask for."""


def sample_strategies() -> tuple[str, ...]:
    """The strategies whose questions can be trained on: those that compare candidates, and those that grade them."""
    return tuple(name for name, strategy in STRATEGIES.items() if strategy.asks in ASKED_OF_SAMPLES)


def judged(
    query: str,
    candidates: Sequence[Candidate],
    gains: Sequence[float],
    task: Task = "passage",
    id: str = "",
    source: str = "",
    aim: str = "",
) -> JudgedRequest:
    """A ranking problem with its solution: what each candidate is worth, 0 for nothing, more for better."""
    return JudgedRequest(RankingRequest(query, tuple(candidates), task, id, aim), tuple(gains), source)


@dataclass(frozen=True)
class Sample:
    """One question to train on; a list to be graded is a question about each of its candidates (`graded`)."""

    strategy: str
    record: JudgedRequest

    @property
    def asks(self) -> Asked:
        """What is asked for."""
        return STRATEGIES.find(self.strategy).asks


def shown_of(record: JudgedRequest, places: Sequence[int]) -> JudgedRequest:
    """A record of some of a list's candidates, in the order of their places."""
    candidates = tuple(record.request.candidates[place] for place in places)
    # A prompt that came with the request lists all of its candidates.
    request = replace(record.request, candidates=candidates, given=None)
    return JudgedRequest(request, tuple(record.gains[place] for place in places), record.source)
