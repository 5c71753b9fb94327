"""What a ranking may leave out to cost less; by default nothing, as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from r1ranker_ir.errors import InputError

from .schedules import PUBLISHED_SCHEDULE, Schedule, parse_schedule

Layout = Literal["shrink", "mark"]
LAYOUTS: tuple[Layout, ...] = ("shrink", "mark")
Think = Literal["always", "first", "never"]
THINK: tuple[Think, ...] = ("always", "first", "never")


@dataclass(frozen=True)
class RankingOptions:
    """How a ranking goes about its calls; the defaults are the published behaviour.

    Args:
        schedule: how many an elimination excludes at a step, see `parse_schedule`; `None` for `one`, or for `all` where
            `think` is `never`.
        layout: what the prompts of an elimination show: `shrink`, the candidates that are left, or `mark`, always the
            full list, with a last line that names the excluded ones.
        think: `always`, before each answer; `first`, once over a window's full list, and what was thought then stays
            before the eyes for the rest; `never`: the scores at the answer decide, and one call orders a window.
        top_k: how many of the best are ordered; those below keep the first stage's order. `None` for all.
        show_best_first: after the first answer over a window, `shrink` shows it best first by that answer's
            probabilities, so that what goes next stands near the end of the prompt.

    Raises:
        InputError: if a value is unknown, or two of them do not go together.
    """

    schedule: str | None = None
    layout: Layout = "shrink"
    think: Think = "always"
    top_k: int | None = None
    show_best_first: bool = False

    def __post_init__(self) -> None:
        if self.schedule is not None:
            parse_schedule(self.schedule)
        if self.layout not in LAYOUTS:
            raise InputError(f"layout is {self.layout!r}: use {' or '.join(LAYOUTS)}")
        if self.think not in THINK:
            raise InputError(f"think is {self.think!r}: use one of {', '.join(THINK)}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}: order at least 1, or None for all")
        if self.show_best_first and self.layout == "mark":
            raise InputError("show_best_first moves candidates, and layout 'mark' never does: drop one of them")

    @property
    def parsed_schedule(self) -> Schedule:
        """The schedule that counts."""
        if self.schedule is None:
            return Schedule("all") if self.think == "never" else PUBLISHED_SCHEDULE
        return parse_schedule(self.schedule)

    def by_probabilities(self, strategy: str) -> str:
        """Names the option that goes by the probabilities at the answer; empty if there is none.

        Args:
            strategy: `iterative` or `direct`.
        """
        if strategy == "direct":
            return "think='never'" if self.think == "never" else ""
        if self.parsed_schedule.by_probabilities:
            return "think='never'" if self.schedule is None else f"schedule={self.schedule!r}"
        if self.top_k is not None:
            return f"top_k={self.top_k}"
        return "show_best_first" if self.show_best_first else ""

    def stated(self) -> dict[str, object]:
        """The options that differ from the published behaviour, by name."""
        return {name: value for name, value in vars(self).items() if value != getattr(PUBLISHED, name)}

    def check_direct(self) -> None:
        """Checks that nothing is asked of the direct strategy that only an elimination has.

        Raises:
            InputError: if something is.
        """
        only = ["schedule", "layout", "show_best_first", *(["think"] if self.think == "first" else [])]
        if wrong := [name for name in self.stated() if name in only]:
            raise InputError(
                f"{wrong[0]}={getattr(self, wrong[0])!r} is for the iterative strategy: direct has one call a window, "
                "and takes think='never' and top_k"
            )


PUBLISHED = RankingOptions()
"""As the paper has it: one candidate at a step, lists that shrink, a thought before each answer."""


def ranking_options(given: Mapping[str, Any]) -> RankingOptions:
    """Takes what concerns a ranking out of the arguments of a `Ranker`."""
    return RankingOptions(**{name: given[name] for name in vars(PUBLISHED) if name in given})
