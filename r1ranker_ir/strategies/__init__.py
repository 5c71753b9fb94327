"""Ranking programs, each beside its declaration: one file a strategy."""

from __future__ import annotations

from r1ranker_ir.doors import Door
from r1ranker_ir.prompts.sections import declare_sections

from .strategy import MakesProgram as MakesProgram
from .strategy import Strategy as Strategy

STRATEGIES: Door[Strategy] = Door(Strategy, "r1ranker_ir.strategies", __name__, "strategy")
"""Strategies by name: the modules of this package, and entry points of installed ones."""

declare_sections(STRATEGIES)
