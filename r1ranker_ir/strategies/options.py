"""What a ranking may leave out to cost less; by default nothing, as published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import check_offered, limit_option, number_or_none, ranking_option, stated

from .budget import Budget
from .schedules import PUBLISHED_SCHEDULE, Schedule, parse_schedule

Layout = Literal["shrink", "mark"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Think = Literal["always", "first", "never"]
Sort = Literal["windows", "tournament", "heap", "bubble"]
VoteAmong = Literal["permutations", "thoughts"]
VoteBy = Literal["majority", "borda", "judged"]
Pooling = Literal["sum", "mean"]


@dataclass(frozen=True)
class RankingOptions:
    """How a ranking goes about its calls; the defaults are the published behaviour. Each field says what it is for.

    Raises:
        InputError: if a value is unknown, or two of them do not go together.
    """

    schedule: str | None = ranking_option(
        None,
        "How many candidates an elimination excludes at a step: one (as published), fixed:K, halving, halving:M (halve "
        "until M remain, then one by one), confident:P (all that are jointly the worst with probability P), or all.",
        unset="one; all with --think never",
    )
    layout: Layout = ranking_option(
        "shrink",
        "What an elimination's prompts show: the list without the excluded (as published), or always the full list and "
        "a last line that names the excluded (the template needs a section [mark]).",
    )
    think: Think = ranking_option(
        "always",
        "Think before each answer (as published); once over the full list, which the later prompts repeat; or never, "
        "which orders a window by the scores at one answer.",
        unset="always; never for the system first",
    )
    top_k: int | None = ranking_option(
        None,
        "Order only the best N; those below keep the first stage's order.",
        unset="all are ordered; 10 for setwise",
        least=1,
    )
    show_best_first: bool = ranking_option(
        False, "After the first answer over a window, show it best first by that answer's probabilities."
    )
    sort: Sort | None = ranking_option(
        None,
        "How answers become an order: sliding windows or a tournament for direct, a heap or bubble sort for setwise.",
        unset="windows; heap for setwise",
    )
    shuffle_seed: int | None = ranking_option(
        0,
        "Seed of the order in which a call of setwise shows its candidates; none leaves them as they are.",
        metavar="INTEGER|none",
        parse=number_or_none(int, "the seed"),
    )
    pooling: Pooling = ranking_option(
        "sum",
        "A score of likelihood is the sum of the log-probabilities of the query's tokens, or their mean, to compare "
        "queries; the order is the same.",
    )
    votes: int = ranking_option(1, "How many calls decide each answer together.", least=1)
    vote_among: VoteAmong = ranking_option(
        "permutations",
        "What differs between votes: the candidates' order, or thoughts that are sampled (--temperature).",
    )
    vote_by: VoteBy = ranking_option(
        "majority",
        "How votes are counted; or judged: the model compares the thoughts that led to different answers.",
    )
    max_votes: int | None = ranking_option(
        None,
        "Most thoughts sampled for an answer that is judged: --votes more at a time, while the lead is small.",
        unset="no more than --votes",
        least=2,
    )
    vote_lead: float = ranking_option(
        0.3,
        "By how much the chosen thought must lead for no more to be sampled, from 0 to 1.",
        least=0,
        most=1,
    )
    judge_think: Literal["always", "never"] = ranking_option(
        "always", "Whether the model thinks before it says which thought is the best."
    )
    judge_tokens: int = ranking_option(256, "Tokens to which each thought is cut where thoughts are compared.", least=1)
    max_calls: int | None = limit_option(
        None,
        "Most calls per query; when they are spent, the best order so far counts.",
        unset="no limit",
        least=1,
    )
    max_tokens: int | None = limit_option(
        None,
        "Most tokens read and written per query; when they are spent, the best order so far counts.",
        unset="no limit",
        least=1,
    )

    def __post_init__(self) -> None:
        check_offered(self)
        if self.schedule is not None:
            parse_schedule(self.schedule)
        if self.show_best_first and self.marks:
            raise InputError(
                f"show_best_first moves candidates, and layout {self.layout!r} never does: drop one of them"
            )
        if self.votes > 1 and self.vote_among == "permutations" and self.think == "first":
            raise InputError(
                "think='first' keeps a thought's identifiers, and permutations change them: drop one of them"
            )
        if self.votes > 1 and self.vote_among == "thoughts" and self.think == "never":
            raise InputError("vote_among='thoughts' has nothing to vote among with think='never': drop one of them")

        self._check_judging()

    def _check_judging(self) -> None:
        """Raises an InputError if votes that look at thoughts have none to look at, or their options are set alone."""
        own = ("max_votes", "vote_lead", "judge_think", "judge_tokens")
        if self.vote_by != "judged":
            if said := [f"{name}={value!r}" for name, value in stated(self).items() if name in own]:
                raise InputError(f"{said[0]} is for vote_by='judged': set that, or leave it out")
        elif self.vote_among != "thoughts" or self.votes < 2:
            raise InputError(
                f"vote_by='judged' compares sampled thoughts, and votes={self.votes} with vote_among="
                f"{self.vote_among!r} has none: use vote_among='thoughts' and at least 2 votes"
            )
        elif self.max_votes is not None and self.max_votes < self.votes:
            raise InputError(f"max_votes is {self.max_votes}: give at least {self.votes}, as many as votes")

    @property
    def marks(self) -> bool:
        """Whether prompts go on showing candidates that are excluded, and name them."""
        return self.layout == "mark"

    @property
    def budget(self) -> Budget:
        return Budget(self.max_calls, self.max_tokens)

    @property
    def parsed_schedule(self) -> Schedule:
        if self.schedule is None:
            return Schedule("all") if self.think == "never" else PUBLISHED_SCHEDULE
        return parse_schedule(self.schedule)

    def stated(self) -> dict[str, object]:
        """The options that differ from the published behaviour, by name."""
        return stated(self)


PUBLISHED = RankingOptions()
"""As the paper has it: one candidate at a step, lists that shrink, a thought before each answer."""
