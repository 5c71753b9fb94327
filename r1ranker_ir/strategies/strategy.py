"""What a strategy says of itself: everything else that knows strategies derives from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt, PromptTemplate
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.prompts.template import Wording, check_wording
from r1ranker_ir.types import Asked, Program, RankingRequest

from .budget import within_budget
from .options import PUBLISHED, RankingOptions
from .votes import vote


class MakesProgram(Protocol):
    def __call__(
        self,
        request: RankingRequest,
        prompt: Prompt,
        *,
        window_size: int = 20,
        stride: int = 10,
        options: RankingOptions = PUBLISHED,
    ) -> Program: ...


def needs_no_thought(options: RankingOptions) -> str:
    """Names the option that goes by the probabilities at an answer where no thought comes before it."""
    return "think='never'" if options.think == "never" else ""


@dataclass(frozen=True)
class Strategy:
    """A way to rank, declared beside its program.

    Args:
        name: how it is asked for, in Python, on the command line and in a checkpoint's `r1ranker.json`.
        program: makes its ranking programs.
        sections: the sections of a template that it may need, the one that it asks for by default first.
        summary: what it does, in a few words for `--help`.
        own: its own options, those that other strategies refuse: name to the values that are its own, `None` for all.
        options: the class of its options; one derived from `RankingOptions` may add fields, which `Ranker` takes as
            arguments.
        section_of: the section that it asks for with options, where that is not always the first.
        by_probabilities: names the option that goes by the probabilities at an answer; empty if no option does.
        listed: its place in lists of strategies.
    """

    name: str
    program: MakesProgram = field(hash=False)
    sections: tuple[Section, ...]
    summary: str = ""
    own: Mapping[str, Sequence[object] | None] = field(default_factory=dict, hash=False)
    options: type[RankingOptions] = RankingOptions
    section_of: Callable[[RankingOptions], Section] | None = field(default=None, hash=False)
    by_probabilities: Callable[[RankingOptions], str] = field(default=needs_no_thought, hash=False)
    listed: int = 100

    def __post_init__(self) -> None:
        if not self.sections:
            raise InputError(f"strategy {self.name!r} has no section: name at least one that it asks for")
        for section in self.sections:
            for user in (section.user, *section.tasks.values()) if section.user else ():
                check_wording(section, Wording(section.system, user), f"section [{section.name}]")

    def __call__(
        self, request: RankingRequest, prompt: Prompt, *, options: RankingOptions | None = None, **windows: int
    ) -> Program:
        """Makes a ranking program, see `program`, with votes about its answers and a budget around all of it."""
        given = self.options() if options is None else options
        program = self.program(request, prompt, options=given, **windows)
        if given.votes > 1:
            program = vote(program, prompt, given)
        return within_budget(program, given.budget, prompt.limits)

    @property
    def section(self) -> Section:
        return self.sections[0]

    @property
    def asks(self) -> Asked:
        return self.section.asks

    def asked_with(self, options: RankingOptions) -> Section:
        return self.section if self.section_of is None else self.section_of(options)

    def is_worded_by(self, template: PromptTemplate) -> bool:
        """Whether a template has words for what it asks by default, or brings them itself."""
        return self.section.name in template.wordings or bool(self.section.user)

    def owns(self, option: str, value: object) -> bool:
        """Whether an option is the strategy's own with that value."""
        return option in self.own and ((values := self.own[option]) is None or value in values)
