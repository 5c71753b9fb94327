"""What options ask of every strategy alike: votes, and a budget around all of it."""

from __future__ import annotations

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Program

from .budget import within_budget
from .options import RankingOptions
from .votes import vote


def as_asked(program: Program, prompt: Prompt, options: RankingOptions) -> Program:
    """Puts a strategy's program into what its options ask for."""
    if options.votes > 1:
        program = vote(program, prompt, options)
    return within_budget(program, options.budget, prompt.limits)
