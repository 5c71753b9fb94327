"""Rewards of grades: each completion grades one candidate, and is paid by what becomes of the list with that grade.

A list's completions are those of one batch: all rollouts about all of its candidates that are scored together. They
come in one call, as rows of `graded.rows_of_questions` do. A list whose candidates lie in two batches is scored in two
parts.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies.grades import HIGHEST

from .answer_protocol import closed_answer, format_term
from .rows import Completion, Components, LogMetric, RewardFunction, asked_of, check_lengths, checked_gains, summed
from .rows import whole_outputs as outputs_of

_GRADE = re.compile(r"(?:10|[0-9])|\[(?:10|[0-9])\]")
_UNREADABLE = -2.0
_TOLERANCE = 5.0


@dataclass(frozen=True)
class Graded:
    """One completion: the grade that it gives, `None` where it can't be read, the one due, and the list's greatest."""

    given: int | None
    due: float
    best: float

    @property
    def is_positive(self) -> bool:
        """Whether no candidate of the list is worth more."""
        return self.due == self.best


def grade_in(output: str) -> int | None:
    """The grade of an output in the protocol's form: one thought, then `[7]` or `7` as the answer."""
    answer = (closed_answer(output) or "").strip()
    if format_term(output) < 0 or _GRADE.fullmatch(answer) is None:
        return None
    return int(answer.strip("[]"))


def list_reward(logged_as: str) -> Callable[[Callable[[Sequence[Graded]], list[Components]]], RewardFunction]:
    """Makes a function in TRL's form of one that says the components of all completions about one list."""

    def make(components: Callable[[Sequence[Graded]], list[Components]]) -> RewardFunction:
        @functools.wraps(components)
        def scored(
            completions: Sequence[Completion],
            gains: Sequence[Sequence[float]],
            opening: Sequence[str | None] | None = None,
            strategy: Sequence[str] | None = None,
            graded: Sequence[int | None] | None = None,
            list: Sequence[int | None] | None = None,
            log_metric: LogMetric | None = None,
            **kwargs: object,
        ) -> Any:
            outputs = outputs_of(completions, opening)
            check_lengths(len(outputs), gains=gains, strategy=strategy, graded=graded, list=list)
            lists: dict[Any, dict[int, Graded]] = {}
            for place, output in enumerate(outputs):
                if strategy is not None and asked_of(place, strategy[place]) != "grade":
                    continue
                about = None if graded is None or list is None else (graded[place], list[place])
                worth = checked_gains(place, gains[place])
                if about is None or about[0] is None or about[1] is None or not 0 <= about[0] < len(worth):
                    raise InputError(
                        f"row {place} grades a candidate, and graded and list are {about!r}: give the candidate's "
                        "place in gains, from 0, and the number of its list (rows_of_questions makes such rows)"
                    )
                lists.setdefault(about[1], {})[place] = Graded(grade_in(output), worth[about[0]], max(worth))
            told: dict[int, Components] = {}
            for own in lists.values():
                told.update(zip(own, components([*own.values()]), strict=True))
            return summed(told, len(outputs), logged_as, log_metric)

        del scored.__wrapped__  # it is called otherwise
        return scored

    return make


@list_reward("grade_rank")
def grade_rank_reward(rollouts: Sequence[Graded]) -> list[Components]:
    """Pays a grade by the order that it leads to within its list; from −2 to 1.

    All grades of a list, of all rollouts of all its candidates, are ranked together; equal ones share the best of their
    ranks. With φ the rank of a rollout, s its grade and t the one due, R =
    1 / φ for a positive: a candidate of the greatest grade due,
    −1 / φ for another candidate that is not ranked below all rollouts of all positives: what a positive would have
    earned there,
    1 − ((s − t) / 10)² for another candidate that is, which keeps grades from drifting,
    −2 where no grade can be read (`grade_in`); such a rollout has no rank.

    After the reward r_RR of ERank (arXiv 2509.00520, section 3.3), which has these four cases. Its formulas were not in
    the text that could be read: the sizes of the penalties are ours, and so is that a tie with a positive is a wrong
    rank. There t is a grade of the model before the reinforcement learning, here the file's, which may be a teacher's.
    """
    known = sorted(each.given for each in rollouts if each.given is not None)
    ranks = [0 if each.given is None else 1 + len(known) - bisect_right(known, each.given) for each in rollouts]
    lowest = max((rank for rank, each in zip(ranks, rollouts, strict=True) if each.is_positive), default=0)
    return [_ranked(each, rank, lowest) for each, rank in zip(rollouts, ranks, strict=True)]


def _ranked(rollout: Graded, rank: int, lowest_positive: int) -> Components:
    parts = {"positive": 0.0, "misplaced": 0.0, "closeness": 0.0, "format": 0.0}
    if rollout.given is None:
        return {**parts, "format": _UNREADABLE}
    if rollout.is_positive:
        return {**parts, "positive": 1 / rank}
    if rank <= lowest_positive:
        return {**parts, "misplaced": -1 / rank}
    return {**parts, "closeness": 1 - ((rollout.given - rollout.due) / HIGHEST) ** 2}


@list_reward("grade_close")
def grade_close_reward(rollouts: Sequence[Graded]) -> list[Components]:
    """Pays a grade by how close it is to the one due, and by the pairs that it orders rightly; from −1 to 2.

    R = closeness + order + f. With s the grade and t the one due, closeness is 1 − (s − t)² / 5² where they differ by
    at most 5, else 0. Order is the share of the list's rollouts about candidates that are due another grade which stand
    on the right side of this one; equal grades count half, and without such rollouts it is 0. f = −1 where no grade can
    be read (`grade_in`), and then the rest is 0; such rollouts are no part of pairs.

    After RARL (arXiv 2601.20585), which has a regression reward (this closeness, for a tolerance δ), a ranking reward
    and one for the form. Only a review of the paper could be read. Its ranking reward is for one answer that orders
    several images, and its δ is not known: the pairs, and δ = 5 (half the scale), are ours.
    """
    known = [each for each in rollouts if each.given is not None]
    return [_close(each, known) for each in rollouts]


def _close(rollout: Graded, known: Sequence[Graded]) -> Components:
    if rollout.given is None:
        return {"closeness": 0.0, "order": 0.0, "format": -1.0}
    right = [
        0.5 if other.given == rollout.given else float((other.given > rollout.given) == (other.due > rollout.due))
        for other in known
        if other.given is not None and other.due != rollout.due
    ]
    off = (rollout.given - rollout.due) / _TOLERANCE
    return {"closeness": max(0.0, 1 - off**2), "order": sum(right) / len(right) if right else 0.0, "format": 0.0}


LIST_REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {"grade_rank": grade_rank_reward, "grade_close": grade_close_reward}
)
"""The rewards of grades by the names that recipes use."""
