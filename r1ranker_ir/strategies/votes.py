"""Several calls decide each answer of a ranking program: self-consistency, and permutations against position bias."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Answer, Call, Program, Ranking, Step, Usage

from .asking import asked_in
from .budget import BudgetSpent
from .grades import HIGHEST, MIDDLE, grade_of, value_of
from .options import RankingOptions, VoteBy
from .windows import record_step

_DRAWS = 20


def vote(program: Program, prompt: Prompt, options: RankingOptions) -> Program:
    """Has `options.votes` calls decide each answer that a program asks for, and hands it the decision as its answer.

    With `vote_among="permutations"` each of these calls shows the candidates in another order, drawn by a fixed seed;
    the first one shows the program's own (Permutation Self-Consistency, arXiv 2310.07712). With `"thoughts"` all of
    them ask the same, and the backend must sample, to think anew each time (self-consistency, arXiv 2203.11171).

    By `majority` the candidate is named that most answers name; of orders, place by place, the candidate that most
    answers rank best of those left. By `borda` an answer gives each candidate a point for every other one below it, and
    the sum decides; an answer that names one candidate ranks the others by their probabilities, if there are any.
    Equals fall back to the first stage's order. An answer that can't be read has no vote, and counts as repaired.

    Every vote is a step of its own, whose `confidence` says how far all votes of the decision agree with it: the share
    of votes that name the same candidate or grade, or that order a pair of candidates alike, over all pairs.
    """
    steps: list[Step] = []
    repairs = 0
    try:
        call = next(program)
        while True:
            votes: list[_Vote] = []
            try:
                for asked in _asked(call, prompt, options):
                    answer = yield replace(asked, repairs_before=repairs)
                    votes.append(_Vote(call, asked, answer, prompt))
                    repairs += not votes[-1].clean
            except BudgetSpent:
                if not votes:
                    call = program.throw(BudgetSpent())
                    continue
            decision = _decide(call, votes, options.vote_by)
            confidence = sum(each.agreement(decision) for each in votes) / len(votes)
            steps += [replace(each.step(decision), confidence=confidence) for each in votes]
            call = program.send(_as_answer(call, votes, decision))
    except StopIteration as stop:
        ranking: Ranking = stop.value
        return replace(ranking, steps=tuple(steps))


class _Vote:
    """One answer to a call that was made, in terms of the identifiers of the call to decide."""

    def __init__(self, call: Call, asked: Call, answer: Answer, prompt: Prompt) -> None:
        self.asked = asked
        self.answer = answer
        # A permuted prompt gives the same candidates other identifiers.
        self._meant = {name: call.identifiers[place] for name, place in _places(call, asked).items()}
        named, self.clean = _read(asked, answer, prompt)
        self.named = tuple(self._meant[name] for name in named)
        self.whole = (*self.named, *(name for name in call.identifiers if name not in self.named))
        self._ordered = call.form == "order"

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Those of the answer."""
        if self.answer.probabilities is None:
            return None
        return {self._meant[name]: chance for name, chance in self.answer.probabilities.items()}

    def points(self) -> dict[str, float]:
        """A point for each candidate below, half a point for an equal one."""
        below = len(self.whole) - 1
        if self._ordered:
            return {name: float(below - place) for place, name in enumerate(self.whole)}
        first, others = self.named[0], self.whole[1:]
        chances = self.probabilities or {}
        points = {first: float(below)}
        for name in others:
            chance = chances.get(name, 0.0)
            less = sum(chances.get(other, 0.0) < chance for other in others)
            equal = sum(chances.get(other, 0.0) == chance for other in others) - 1
            points[name] = less + equal / 2
        return points

    def agreement(self, decision: Sequence[str]) -> float:
        """How far it says the same as the decision, 0 to 1; one that can't be read does not."""
        if not self.named:
            return 0.0
        if not self._ordered:
            return float(self.named[0] == decision[0])
        place = {name: number for number, name in enumerate(self.whole)}
        pairs = [place[above] < place[below] for above, below in combinations(decision, 2)]
        return sum(pairs) / len(pairs) if pairs else 1.0

    def step(self, decision: Sequence[str]) -> Step:
        """The trace entry of its call; the decision stands for what can't be read."""
        asked, question = self.asked, asked_in(self.asked)
        grade = grade_of(self.answer, asked.identifiers)[0] if question.asks == "grade" else None
        if grade is None:
            position = {self._meant[name]: at for name, at in zip(asked.identifiers, question.answerable, strict=True)}
            named = (self.whole if self._ordered else self.named[:1]) if self.named else decision
            outcome = [position[name] for name in named]
        else:
            outcome = list(question.shown)
        marked = question.marked
        return record_step(
            asked, self.answer, question.shown, outcome, repaired=not self.clean, marked=marked, grade=grade
        )


def _asked(call: Call, prompt: Prompt, options: RankingOptions) -> list[Call]:
    """The calls that vote."""
    if options.vote_among == "thoughts":
        return [replace(call, sample=number) for number in range(options.votes)]
    question = asked_in(call)
    drawing = seeded_by(f"{question.request.query} {question.shown}")
    orders = [question.shown]
    while len(orders) < options.votes:
        orders.append(_another_order(orders, drawing))
    return [call, *(_permuted(call, prompt, order) for order in orders[1:])]


def _another_order(orders: Sequence[tuple[int, ...]], drawing: random.Random) -> tuple[int, ...]:
    """A random order, another one than those before as long as there are some."""
    order = orders[0]
    for _ in range(_DRAWS):
        order = tuple(drawing.sample(orders[0], len(orders[0])))
        if order not in orders:
            break
    return order


def _permuted(call: Call, prompt: Prompt, order: Sequence[int]) -> Call:
    """A call as another order renders it."""
    question = asked_in(call)
    rendered = prompt.ask(question.section, question.request, order, question.marked)
    changed = ("messages", "identifiers", "cut_passages", "cut_query", "question")
    return replace(call, **{name: getattr(rendered, name) for name in changed})


def _places(call: Call, asked: Call) -> dict[str, int]:
    """Identifier of the call that was made to the place of the same candidate in the one to be decided."""
    if asked.question == call.question:
        return {name: place for place, name in enumerate(asked.identifiers)}
    place = {position: number for number, position in enumerate(asked_in(call).answerable)}
    answerable = asked_in(asked).answerable
    return {name: place[position] for name, position in zip(asked.identifiers, answerable, strict=True)}


def _read(call: Call, answer: Answer, prompt: Prompt) -> tuple[tuple[str, ...], bool]:
    """The identifiers answered, and whether they need no repair."""
    if answer.choice is not None:
        return answer.choice, True
    if asked_in(call).asks == "grade":
        grade, repaired = grade_of(answer, call.identifiers)
        name = call.identifiers[int(grade * (len(call.identifiers) - 1) / HIGHEST)]
        return (() if repaired else (name,)), not repaired
    shown = len(asked_in(call).shown)
    names = call.identifiers if len(call.identifiers) == shown else prompt.template.identifiers(shown)
    reading = prompt.template.read(answer.text, names, call.form, published=prompt.published)
    named = tuple(names[index] for index in reading.indices if names[index] in call.identifiers)
    return named, reading.clean and len(named) == len(reading.indices)


def _decide(call: Call, votes: Sequence[_Vote], by: VoteBy) -> tuple[str, ...]:
    """One identifier, or all of them best first."""
    heard = [each for each in votes if each.named]
    chances = _mean_probabilities(votes) or {}
    left = _by_first_stage(call)
    if not heard:
        return call.identifiers if call.form == "order" else (left[0],)
    if by == "borda":
        points = defaultdict[str, float](float)
        for each in heard:
            for name, count in each.points().items():
                points[name] += count
        left.sort(key=lambda name: (points[name], chances.get(name, 0.0)), reverse=True)
        return tuple(left) if call.form == "order" else (left[0],)
    decision: list[str] = []
    while left and len(decision) < (len(call.identifiers) if call.form == "order" else 1):
        named = Counter(next(name for name in each.whole if name in left) for each in heard)
        # Of equals the more probable one, then the one that comes first.
        decision.append(max(left, key=lambda name: (named[name], chances.get(name, 0.0) if not decision else 0.0)))
        left.remove(decision[-1])
    return tuple(decision)


def _by_first_stage(call: Call) -> list[str]:
    """The identifiers by the first stage's order of their candidates, or by how near a grade is to the middle one."""
    if asked_in(call).asks == "grade":
        names = call.identifiers
        return sorted(names, key=lambda name: abs(value_of(name, names) - MIDDLE))
    position = dict(zip(call.identifiers, asked_in(call).answerable, strict=True))
    worst_first = asked_in(call).asks == "worst"
    return sorted(call.identifiers, key=position.__getitem__, reverse=worst_first)


def _mean_probabilities(votes: Sequence[_Vote]) -> dict[str, float] | None:
    """`None` unless every answer has them."""
    told: list[Mapping[str, float]] = [chances for each in votes if (chances := each.probabilities) is not None]
    if len(told) < len(votes):
        return None
    return {name: sum(chances.get(name, 0.0) for chances in told) / len(told) for name in told[0]}


def _as_answer(call: Call, votes: Sequence[_Vote], decision: tuple[str, ...]) -> Answer:
    """The decision as the program's answer, in the words of the first vote that agrees best."""
    usage = sum((each.answer.usage for each in votes), Usage())
    speaker = max(votes, key=lambda each: each.agreement(decision)).answer
    places = len(decision) if call.form == "one" else call.top or len(decision)
    return replace(speaker, choice=decision[:places], probabilities=_mean_probabilities(votes), usage=usage)
