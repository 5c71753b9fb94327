"""What a ranking may leave out to cost less; by default nothing, as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

from .budget import Budget
from .schedules import PUBLISHED_SCHEDULE, Schedule, parse_schedule

Layout = Literal["shrink", "mark"]
LAYOUTS: tuple[Layout, ...] = ("shrink", "mark")
Think = Literal["always", "first", "never"]
THINK: tuple[Think, ...] = ("always", "first", "never")
Sort = Literal["windows", "tournament", "heap", "bubble"]
SORTS: tuple[Sort, ...] = ("windows", "tournament", "heap", "bubble")
VoteAmong = Literal["permutations", "thoughts"]
VOTE_AMONG: tuple[VoteAmong, ...] = ("permutations", "thoughts")
VoteBy = Literal["majority", "borda"]
VOTE_BY: tuple[VoteBy, ...] = ("majority", "borda")


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
        top_k: how many of the best are ordered; those below keep the first stage's order. `None` for all, or for 10
            where the strategy is `setwise`, as published.
        show_best_first: after the first answer over a window, `shrink` shows it best first by that answer's
            probabilities, so that what goes next stands near the end of the prompt.
        sort: how answers become an order: of `direct`, `windows` or `tournament`; of `setwise`, `heap` or `bubble`.
            `None` for the published one, which is the first.
        shuffle_seed: the candidates of a `setwise` call are shuffled, always alike for the same seed, query and
            candidates; `None` for no shuffling.
        votes: how many calls decide each answer together; see `votes.vote`.
        vote_among: what differs between these calls: `permutations` of the candidates, or sampled `thoughts`.
        vote_by: how their answers are counted, by `majority` or by `borda` count.
        max_calls: how many calls a ranking may make; see `budget.within_budget`. `None` for no limit.
        max_tokens: how many tokens its calls may read and write together. `None` for no limit.

    Raises:
        InputError: if a value is unknown, or two of them do not go together.
    """

    schedule: str | None = None
    layout: Layout = "shrink"
    think: Think = "always"
    top_k: int | None = None
    show_best_first: bool = False
    sort: Sort | None = None
    shuffle_seed: int | None = 0
    votes: int = 1
    vote_among: VoteAmong = "permutations"
    vote_by: VoteBy = "majority"
    max_calls: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.schedule is not None:
            parse_schedule(self.schedule)
        if self.think not in THINK:
            raise InputError(f"think is {self.think!r}: use one of {', '.join(THINK)}")
        choices = {"layout": LAYOUTS, "vote_among": VOTE_AMONG, "vote_by": VOTE_BY}
        for name, known in {**choices, **({} if self.sort is None else {"sort": SORTS})}.items():
            if (value := getattr(self, name)) not in known:
                raise InputError(f"{name} is {value!r}: use {' or '.join(known)}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}: order at least 1, or None for all")
        if self.votes < 1:
            raise InputError(f"votes is {self.votes}: at least 1 call decides an answer")
        for name in ("max_calls", "max_tokens"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise InputError(f"{name} is {limit}: allow at least 1, or None for no limit")
        if self.show_best_first and self.marks:
            raise InputError(
                f"show_best_first moves candidates, and layout {self.layout!r} never does: drop one of them"
            )
        if self.votes > 1:
            self._check_votes()

    def _check_votes(self) -> None:
        if self.vote_among == "permutations" and self.think == "first":
            raise InputError(
                "think='first' keeps a thought's identifiers, and permutations change them: drop one of them"
            )
        if self.vote_among == "thoughts" and self.think == "never":
            raise InputError("vote_among='thoughts' has nothing to vote among with think='never': drop one of them")

    @property
    def marks(self) -> bool:
        """Whether prompts go on showing candidates that are excluded, and name them."""
        return self.layout == LAYOUTS[1]

    @property
    def budget(self) -> Budget:
        """What a ranking may spend."""
        return Budget(self.max_calls, self.max_tokens)

    @property
    def parsed_schedule(self) -> Schedule:
        """The schedule that counts."""
        if self.schedule is None:
            return Schedule("all") if self.think == "never" else PUBLISHED_SCHEDULE
        return parse_schedule(self.schedule)

    def stated(self) -> dict[str, object]:
        """The options that differ from the published behaviour, by name."""
        published = type(self)()
        return {name: value for name, value in vars(self).items() if value != getattr(published, name)}


PUBLISHED = RankingOptions()
"""As the paper has it: one candidate at a step, lists that shrink, a thought before each answer."""


def parse_seed(text: str, named: str) -> int | None:
    """Reads a seed: a whole number, or `none`."""
    if text.strip().lower() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{named} is {quoted(text)}: give a whole number, or none") from None


def ranking_options(given: Mapping[str, Any], kind: type[RankingOptions] = RankingOptions) -> RankingOptions:
    """Takes what concerns a ranking out of the arguments of a `Ranker`."""
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})
