"""One answer of several to the same question: what it says, and what they decide by count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Answer, Call, Step

from .asking import asked_in, read_places
from .grades import HIGHEST, MIDDLE, grade_of, value_of
from .options import VoteBy
from .windows import record_step


@dataclass(frozen=True)
class Decided:
    """What several calls made of a question: its answer, `None` where the budget allowed no call, and their steps."""

    answer: Answer | None
    steps: tuple[Step, ...]


def items_of(call: Call) -> tuple[Any, ...]:
    """What a call's identifiers stand for, however it shows them: positions of candidates, or grades of one."""
    question = asked_in(call)
    return call.identifiers if question.asks == "grade" else question.answerable


@dataclass(frozen=True)
class Vote:
    """One answer to a call: the items that it names, all of them in its order, and their probabilities, if any."""

    asked: Call
    answer: Answer
    named: tuple[Any, ...]
    whole: tuple[Any, ...]
    chances: Mapping[Any, float] | None
    clean: bool

    @property
    def said(self) -> tuple[Any, ...]:
        """What was asked for: one item, or all of them in order."""
        return self.whole if self.asked.form == "order" else self.named[:1]

    def points(self) -> dict[Any, float]:
        """A point for each item below, half a point for an equal one."""
        below = len(self.whole) - 1
        if self.asked.form == "order":
            return {item: float(below - place) for place, item in enumerate(self.whole)}
        chances = self.chances or {}
        others = [chances.get(item, 0.0) for item in self.whole[1:]]
        points = {self.named[0]: float(below)}
        for item, chance in zip(self.whole[1:], others, strict=True):
            points[item] = sum(other < chance for other in others) + (others.count(chance) - 1) / 2
        return points

    def agreement(self, decision: Sequence[Any]) -> float:
        """How far it says the same as the decision, 0 to 1; one that can't be read does not."""
        if not self.named:
            return 0.0
        if self.asked.form == "one":
            return float(self.named[0] == decision[0])
        place = {item: number for number, item in enumerate(self.whole)}
        pairs = [place[above] < place[below] for above, below in combinations(decision, 2)]
        return sum(pairs) / len(pairs) if pairs else 1.0

    def step(self, decision: Sequence[Any]) -> Step:
        """The trace entry of its call; the decision stands for what can't be read."""
        asked, question = self.asked, asked_in(self.asked)
        if question.asks == "grade":
            outcome, grade = question.shown, grade_of(self.answer, asked.identifiers)[0]
        else:
            outcome, grade = tuple(self.said if self.named else decision), None
        repaired, marked = not self.clean, question.marked
        return record_step(asked, self.answer, question.shown, outcome, repaired=repaired, marked=marked, grade=grade)


def heard(call: Call, asked: Call, answer: Answer, prompt: Prompt) -> Vote:
    """Reads the answer to one of the calls that decide another one."""
    # A permuted prompt gives the same candidates other identifiers.
    items = items_of(asked)
    if answer.choice is None and asked_in(asked).asks == "grade":
        grade, repaired = grade_of(answer, asked.identifiers)
        named = () if repaired else (items[int(grade * (len(items) - 1) / HIGHEST)],)
    else:
        reading = read_places(asked, answer, prompt)
        named, repaired = tuple(items[place] for place in reading.indices), not reading.clean
    whole = (*named, *(item for item in items_of(call) if item not in named))
    meant, told = dict(zip(asked.identifiers, items, strict=True)), answer.probabilities
    chances = None if told is None else {meant[name]: chance for name, chance in told.items()}
    return Vote(asked, answer, named, whole, chances, not repaired)


def decide(call: Call, votes: Sequence[Vote], by: VoteBy = "majority") -> tuple[Any, ...]:
    """One item, or all of them best first."""
    counted = [each for each in votes if each.named]
    chances = mean_chances(votes) or {}
    left = _by_first_stage(call)
    wanted = len(left) if call.form == "order" else 1
    if not counted:
        return items_of(call) if call.form == "order" else (left[0],)
    if by == "borda":
        points = [each.points() for each in counted]
        left.sort(key=lambda item: (sum(each[item] for each in points), chances.get(item, 0.0)), reverse=True)
        return tuple(left[:wanted])
    decision: list[Any] = []
    while len(decision) < wanted:
        named = Counter(next(item for item in each.whole if item in left) for each in counted)
        # Of equals the more probable one, then the one that comes first.
        decision.append(max(left, key=lambda item: (named[item], chances.get(item, 0.0) if not decision else 0.0)))
        left.remove(decision[-1])
    return tuple(decision)


def _by_first_stage(call: Call) -> list[Any]:
    """The candidates in the first stage's order, the last one first where the worst is asked for; grades from 5 on."""
    asks, items = asked_in(call).asks, items_of(call)
    if asks == "grade":
        return sorted(items, key=lambda name: abs(value_of(name, items) - MIDDLE))
    return sorted(items, reverse=asks == "worst")


def mean_chances(votes: Sequence[Vote]) -> dict[Any, float] | None:
    """`None` unless every answer has them."""
    told = [each.chances for each in votes if each.chances is not None]
    if len(told) < len(votes):
        return None
    return {item: sum(chances.get(item, 0.0) for chances in told) / len(told) for item in told[0]}
