"""Several calls decide each answer of a ranking program: self-consistency, and permutations against position bias."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Answer, Call, Program, Ranking, Step, Usage

from .asking import asked_in
from .ballots import Decided, Vote, decide, heard, items_of, mean_chances
from .budget import BudgetSpent
from .judged import judge
from .options import RankingOptions

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
    `judged` looks at the thoughts: see `judged.judge`.

    Every vote is a step of its own, whose `confidence` says how far all votes of the decision agree with it: the share
    of votes that name the same candidate or grade, or that order a pair of candidates alike, over all pairs. Where
    they grade a candidate, their `score` is the grade that the program makes of the decision.
    """
    taken: list[tuple[Step, ...]] = []
    by = judge if options.vote_by == "judged" else _count
    try:
        call = next(program)
        while True:
            decided = yield from by(call, prompt, options, sum(step.repaired for steps in taken for step in steps))
            if decided.answer is None:
                call = program.throw(BudgetSpent())
            else:
                taken.append(decided.steps)
                call = program.send(decided.answer)
    except StopIteration as stop:
        ranking: Ranking = stop.value
        return replace(ranking, steps=tuple(_scored(taken, ranking.steps)))


def _scored(taken: Sequence[tuple[Step, ...]], own: Sequence[Step]) -> Iterator[Step]:
    """The steps of all decisions, with the grade by which the program ranks; `own` are the program's steps.

    No grade of a single vote says it: it is that of their mean probabilities, or of the answer that most of them give.
    """
    # A program from elsewhere may keep no step, or several, for an answer.
    grades = [made.grade for made in own] if len(own) == len(taken) else [None] * len(taken)
    for steps, grade in zip(taken, grades, strict=True):
        for step in steps:
            yield step if grade is None or not step.decides else replace(step, score=grade)


def _count(call: Call, prompt: Prompt, options: RankingOptions, repairs: int) -> Generator[Call, Answer, Decided]:
    """Counts votes about one answer."""
    votes: list[Vote] = []
    try:
        for asked in _asked(call, prompt, options):
            answer = yield replace(asked, repairs_before=repairs)
            votes.append(heard(call, asked, answer, prompt))
            repairs += not votes[-1].clean
    except BudgetSpent:
        if not votes:
            return Decided(None, ())
    decision = decide(call, votes, options.vote_by)
    confidence = sum(each.agreement(decision) for each in votes) / len(votes)
    steps = tuple(replace(each.step(decision), confidence=confidence) for each in votes)
    return Decided(_as_answer(call, votes, decision), steps)


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


def _as_answer(call: Call, votes: Sequence[Vote], decision: tuple[Any, ...]) -> Answer:
    """The decision as the program's answer, in the words of the first vote that agrees best."""
    usage = sum((each.answer.usage for each in votes), Usage())
    speaker = max(votes, key=lambda each: each.agreement(decision)).answer
    names, chances = dict(zip(items_of(call), call.identifiers, strict=True)), mean_chances(votes)
    told = None if chances is None else {names[item]: chance for item, chance in chances.items()}
    wanted = len(decision) if call.form == "one" else call.top or len(decision)
    return replace(speaker, choice=tuple(names[item] for item in decision[:wanted]), probabilities=told, usage=usage)
