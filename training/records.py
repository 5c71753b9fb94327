"""The one record that every source of training data becomes, and the samples that are made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import OF_ONE, Asked, Candidate, RankingRequest, Task


def sample_strategies() -> tuple[str, ...]:
    """The strategies whose questions can be trained on: those that compare candidates."""
    return tuple(name for name, strategy in STRATEGIES.items() if strategy.asks not in OF_ONE)


@dataclass(frozen=True)
class Record:
    """A ranking problem with its solution.

    Args:
        context: what the candidates are ranked for: a query, a user's history, a question for an LLM.
        candidates: best first by whatever found them.
        gains: what each candidate is worth, in the candidates' order; 0 for none, more for better.
        task: which noun the prompt uses for a candidate.
        id: the query's or user's name.
        source: the data set that it comes from; mixtures and normalisation go by it.
        aim: what the best candidate is to be, where the context does not say it.

    Raises:
        InputError: if the context is blank, gains and candidates differ in number, or a gain is negative or not finite.
    """

    context: str
    candidates: tuple[Candidate, ...]
    gains: tuple[float, ...]
    task: Task = "passage"
    id: str = ""
    source: str = ""
    aim: str = ""

    def __post_init__(self) -> None:
        named = f"record {self.id!r}" + (f" of {self.source!r}" if self.source else "")
        if not self.context.strip():
            raise InputError(f"{named}: the context is blank: give at least one word")
        if len(self.gains) != len(self.candidates):
            raise InputError(f"{named}: {len(self.gains)} gains for {len(self.candidates)} candidates: give one each")
        for gain in self.gains:
            if not math.isfinite(gain) or gain < 0:
                raise InputError(f"{named}: gain {gain!r}: give a finite number of at least 0")

    @property
    def best_gain(self) -> float:
        """The greatest gain; 0 for a record without candidates."""
        return max(self.gains, default=0.0)

    def request(self) -> RankingRequest:
        """The record as a request for a ranker, its candidates in this order."""
        return RankingRequest(self.context, self.candidates, self.task, self.id, self.aim)


@dataclass(frozen=True)
class Sample:
    """One question to train on.

    Args:
        strategy: whose question is asked: `iterative` for the worst candidate, `direct` for all in order, `setwise` for
            the best.
        record: the candidates that the prompt shows, in the prompt's order, with their gains.
    """

    strategy: str
    record: Record

    @property
    def asks(self) -> Asked:
        """What is asked for."""
        return STRATEGIES.find(self.strategy).asks
