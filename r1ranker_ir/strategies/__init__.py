"""Ranking programs: one file a strategy."""

from __future__ import annotations

from typing import Protocol

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Program, RankingRequest

from .direct import order_directly
from .iterative import eliminate
from .options import PUBLISHED, RankingOptions
from .pointwise import grade_each
from .setwise import sort_setwise


class Strategy(Protocol):
    """What makes a ranking program for a request."""

    def __call__(
        self,
        request: RankingRequest,
        prompt: Prompt,
        *,
        window_size: int = 20,
        stride: int = 10,
        options: RankingOptions = PUBLISHED,
    ) -> Program: ...


STRATEGIES: dict[str, Strategy] = {
    "iterative": eliminate,
    "direct": order_directly,
    "setwise": sort_setwise,
    "pointwise": grade_each,
}
"""Strategy name to what makes its program."""
