"""What a ranking may spend: when its calls or tokens are used up, it ends with the best order known by then."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import TextLimits, answer_tokens
from r1ranker_ir.types import Answer, Call, Program, Ranking, Usage

logger = logging.getLogger(__name__)


class BudgetSpent(Exception):
    """Raised inside a program in place of an answer: it makes no further call and returns what it knows. No error."""


@dataclass(frozen=True)
class Budget:
    """How many model calls a ranking may make, and how many tokens they may read and write; `None` for no limit."""

    max_calls: int | None = None
    max_tokens: int | None = None

    def __bool__(self) -> bool:
        return self.max_calls is not None or self.max_tokens is not None

    def __str__(self) -> str:
        return " and ".join(f"{name} {value}" for name, value in vars(self).items() if value is not None)

    def after(self, spent: Usage) -> Budget:
        tokens = spent.prompt_tokens + spent.completion_tokens
        return Budget(
            None if self.max_calls is None else max(0, self.max_calls - spent.calls),
            None if self.max_tokens is None else max(0, self.max_tokens - tokens),
        )

    def allows(self, call: Call, limits: TextLimits) -> bool:
        """Whether a call can't exceed it: its tokens are those of the prompt and the most that may be written."""
        if self.max_calls is not None and self.max_calls < 1:
            return False
        if self.max_tokens is None:
            return True
        return limits.count_prompt_tokens(call.messages) + answer_tokens(limits, call) <= self.max_tokens


def within_budget(program: Program, budget: Budget, limits: TextLimits) -> Program:
    """Ends a program before its budget is exceeded: it is told by `BudgetSpent`. Answers from a cache count as others.

    A call is made only if it fits for certain: its prompt and as much as a thought and an answer may take must be left
    of the tokens. On a server whose tokenizer is not known they are estimated, rather too many than too few.
    """
    return _within(program, budget, limits) if budget else program


def _within(program: Program, budget: Budget, limits: TextLimits) -> Program:
    left, calls, reached, of_another = budget, 0, False, False
    answer: Answer | None = None
    try:
        call = next(program)
        while True:
            # What a program asks for once it knows is not looked at: it might fit, and the program go on for ever.
            if not reached and left.allows(call, limits):
                try:
                    # What is asked ahead might exceed it.
                    answer = yield replace(call, ahead=()) if call.ahead else call
                except BudgetSpent:
                    # Of a greater budget around this one, which says so itself.
                    reached = of_another = True
                else:
                    calls += 1
                    # Not every backend counts itself as a call.
                    left = left.after(replace(answer.usage, calls=1))
                    call = program.send(answer)
                    continue
            reached = True
            try:
                call = program.throw(BudgetSpent())
            except BudgetSpent:
                raise InputError(
                    f"the budget ({budget}) is spent, and this strategy can't end early: leave the budget out, or "
                    "catch BudgetSpent in its program"
                ) from None
    except StopIteration as stop:
        ranking: Ranking = stop.value
    if reached and not calls and not of_another:
        request = ranking.request
        logger.warning(
            "query %r keeps its order: the budget of %s does not allow a single call, which may take %d tokens",
            request.query_id or request.query[:60],
            budget,
            limits.count_prompt_tokens(call.messages) + answer_tokens(limits, call),
        )
    return replace(ranking, budget_reached=True) if reached else ranking
