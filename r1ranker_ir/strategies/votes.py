"""Several calls decide each answer of a ranking program: self-consistency, and permutations against position bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Answer, Call, Program, Ranking, Step, Usage

from .asking import asked_in, read_places
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
                    votes.append(_heard(call, asked, answer, prompt))
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


def _items(call: Call) -> tuple[Any, ...]:
    """What a call's identifiers stand for, however it shows them: positions of candidates, or grades of one."""
    question = asked_in(call)
    return call.identifiers if question.asks == "grade" else question.answerable


@dataclass(frozen=True)
class _Vote:
    """One answer to a call: the items that it names, all of them in its order, and their probabilities, if any."""

    asked: Call
    answer: Answer
    named: tuple[Any, ...]
    whole: tuple[Any, ...]
    chances: Mapping[Any, float] | None
    clean: bool

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
            said = self.whole if asked.form == "order" else self.named[:1]
            outcome, grade = tuple(said if self.named else decision), None
        repaired, marked = not self.clean, question.marked
        return record_step(asked, self.answer, question.shown, outcome, repaired=repaired, marked=marked, grade=grade)


def _heard(call: Call, asked: Call, answer: Answer, prompt: Prompt) -> _Vote:
    """Reads the answer to one of the calls that decide another one."""
    # A permuted prompt gives the same candidates other identifiers.
    items = _items(asked)
    if answer.choice is None and asked_in(asked).asks == "grade":
        grade, repaired = grade_of(answer, asked.identifiers)
        named = () if repaired else (items[int(grade * (len(items) - 1) / HIGHEST)],)
    else:
        reading = read_places(asked, answer, prompt)
        named, repaired = tuple(items[place] for place in reading.indices), not reading.clean
    whole = (*named, *(item for item in _items(call) if item not in named))
    meant, told = dict(zip(asked.identifiers, items, strict=True)), answer.probabilities
    chances = None if told is None else {meant[name]: chance for name, chance in told.items()}
    return _Vote(asked, answer, named, whole, chances, not repaired)


def _asked(call: Call, prompt: Prompt, options: RankingOptions) -> list[Call]:
    """The calls that vote."""
    if options.vote_among == "thoughts":
        return [replace(call, sample=number) for number in range(options.votes)]
    question = asked_in(call)
    drawing = seeded_by(f"{question.request.query} {question.shown}")
    calls, orders = [call], [question.shown]
    while len(orders) < options.votes:
        for _ in range(_DRAWS):  # another order than those before, as long as there are some
            order = tuple(drawing.sample(question.shown, len(question.shown)))
            if order not in orders:
                break
        orders.append(order)
        rendered = prompt.ask(question.section, question.request, order, question.marked)
        changed = ("messages", "identifiers", "cut_passages", "cut_query", "question")
        calls.append(replace(call, **{name: getattr(rendered, name) for name in changed}))
    return calls


def _decide(call: Call, votes: Sequence[_Vote], by: VoteBy) -> tuple[Any, ...]:
    """One item, or all of them best first."""
    heard = [each for each in votes if each.named]
    chances = _mean_chances(votes) or {}
    left = _by_first_stage(call)
    wanted = len(left) if call.form == "order" else 1
    if not heard:
        return _items(call) if call.form == "order" else (left[0],)
    if by == "borda":
        points = [each.points() for each in heard]
        left.sort(key=lambda item: (sum(each[item] for each in points), chances.get(item, 0.0)), reverse=True)
        return tuple(left[:wanted])
    decision: list[Any] = []
    while len(decision) < wanted:
        named = Counter(next(item for item in each.whole if item in left) for each in heard)
        # Of equals the more probable one, then the one that comes first.
        decision.append(max(left, key=lambda item: (named[item], chances.get(item, 0.0) if not decision else 0.0)))
        left.remove(decision[-1])
    return tuple(decision)


def _by_first_stage(call: Call) -> list[Any]:
    """The candidates in the first stage's order, the last one first where the worst is asked for; grades from 5 on."""
    asks, items = asked_in(call).asks, _items(call)
    if asks == "grade":
        return sorted(items, key=lambda name: abs(value_of(name, items) - MIDDLE))
    return sorted(items, reverse=asks == "worst")


def _mean_chances(votes: Sequence[_Vote]) -> dict[Any, float] | None:
    """`None` unless every answer has them."""
    told = [each.chances for each in votes if each.chances is not None]
    if len(told) < len(votes):
        return None
    return {item: sum(chances.get(item, 0.0) for chances in told) / len(told) for item in told[0]}


def _as_answer(call: Call, votes: Sequence[_Vote], decision: tuple[Any, ...]) -> Answer:
    """The decision as the program's answer, in the words of the first vote that agrees best."""
    usage = sum((each.answer.usage for each in votes), Usage())
    speaker = max(votes, key=lambda each: each.agreement(decision)).answer
    names, chances = dict(zip(_items(call), call.identifiers, strict=True)), _mean_chances(votes)
    told = None if chances is None else {names[item]: chance for item, chance in chances.items()}
    wanted = len(decision) if call.form == "one" else call.top or len(decision)
    return replace(speaker, choice=tuple(names[item] for item in decision[:wanted]), probabilities=told, usage=usage)
