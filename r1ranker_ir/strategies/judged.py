"""Votes that look at the thoughts: one of each answer is compared by the model (Aggregation of Reasoning)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from r1ranker_ir.prompts.judging import Chain, judging_call, judging_prompt
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Answer, Call, Step

from .asking import read_places
from .ballots import Decided, Vote, decide, heard
from .budget import BudgetSpent
from .options import RankingOptions
from .windows import record_step


def judge(call: Call, prompt: Prompt, options: RankingOptions, repairs: int) -> Generator[Call, Answer, Decided]:
    """Samples thoughts about a question, and has the model compare the best one of each answer.

    Where all answers are the same, nothing is compared. While the chosen thought leads by less than `vote_lead`, as
    many thoughts again are sampled, up to `max_votes`; where the budget ends first, what is known by then decides. A
    repaired answer is heard only where no other one is. A question that is given a thought is asked once.

    Source: Yin et al., Aggregation of Reasoning, arXiv 2405.12939, which has the model score the thoughts of an answer
    as well; here how they end and how probable they make their answer says which is the best.
    """
    hearing = _Hearing(call, prompt, options, repairs)
    most = 1 if call.thought is not None else options.max_votes or options.votes
    compared: list[int] = []
    try:
        for count in range(min(options.votes, most), most + options.votes, options.votes):
            yield from hearing.sample(min(count, most))
            best = hearing.best_of_each()
            if best != compared:
                yield from hearing.compare(best)
                compared = best
            if hearing.lead >= options.vote_lead:
                break
    except BudgetSpent:
        if not hearing.votes:
            return Decided(None, ())
    return hearing.decided()


@dataclass(frozen=True)
class _Verdict:
    """The answer to a judging call: the numbers of the votes compared, the value of each, and the lead after it."""

    asked: Call
    answer: Answer
    compared: tuple[int, ...]
    values: tuple[float, ...]
    clean: bool
    lead: float = 0.0


@dataclass
class _Hearing:
    """What was said about one question so far, in the order of the calls; votes go by their numbers among votes."""

    call: Call
    prompt: Prompt
    options: RankingOptions
    repaired_before: int
    said: list[Vote | _Verdict] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)

    @property
    def votes(self) -> list[Vote]:
        return [each for each in self.said if isinstance(each, Vote)]

    @property
    def repairs(self) -> int:
        """How many answers of the ranking were repaired."""
        return self.repaired_before + sum(not each.clean for each in self.said)

    @property
    def lead(self) -> float:
        """By how much the best thought is valued above the second one: all of 1 where there is no other answer."""
        best, *others = sorted(self.values.values(), reverse=True) or [0.0]
        return best - max(others, default=0.0)

    def sample(self, count: int) -> Generator[Call, Answer, None]:
        """Asks the question until there are so many votes, each a sample of its own number, and so of its own seed."""
        asked = [replace(self.call, sample=number, repairs_before=self.repairs, ahead=()) for number in range(count)]
        for number in range(len(self.votes), count):
            answer = yield replace(asked[number], ahead=tuple(asked[number + 1 :]))
            self.said.append(heard(self.call, asked[number], answer, self.prompt))

    def counted(self) -> list[int]:
        """The votes that needed no repair; where there are none, those that could be read."""
        clean = [number for number, each in enumerate(self.votes) if each.clean]
        return clean or [number for number, each in enumerate(self.votes) if each.named]

    def best_of_each(self) -> list[int]:
        """The vote with the best thought for each answer: it came to an end, and makes its answer the most probable."""
        votes, groups = self.votes, dict[tuple[Any, ...], list[int]]()
        for number in self.counted():
            groups.setdefault(votes[number].said, []).append(number)
        return [max(group, key=lambda number: _soundness(votes[number])) for group in groups.values()]

    def compare(self, numbers: Sequence[int]) -> Generator[Call, Answer, None]:
        """Has the model compare thoughts, in this order and in the opposite one, so that no place is favoured."""
        self.values = dict.fromkeys(numbers, 1.0)
        if len(numbers) < 2:
            return
        orders = [tuple(numbers), tuple(reversed(numbers))]
        calls = [self._judging(order) for order in orders]
        told: dict[int, list[float]] = {number: [] for number in numbers}
        for place, order in enumerate(orders):
            answer = yield replace(calls[place], ahead=tuple(calls[place + 1 :]))
            verdict = self._verdict(calls[place], answer, order)
            if any(verdict.values):
                for number, value in zip(order, verdict.values, strict=True):
                    told[number].append(value)
            self.values = {number: fmean(each) if each else 0.0 for number, each in told.items()}
            self.said.append(replace(verdict, lead=self.lead))

    def decided(self) -> Decided:
        """The answer of the thought that leads, else the one that most votes give, and the steps of all calls."""
        votes, counted = self.votes, self.counted()
        by_count, said = decide(self.call, [votes[number] for number in counted] or votes), [v.said for v in votes]

        def worth(number: int) -> tuple[float, int, float]:
            alike = sum(said[other] == said[number] for other in counted)
            return self.values.get(number, 0.0), alike, votes[number].agreement(by_count)

        chosen = max(self.best_of_each() or range(1), key=worth)
        decision = said[chosen] or by_count
        confidence = fmean(each.agreement(decision) for each in votes) if len(votes) > 1 else None
        steps, places = list[Step](), list[int]()
        for place, each in enumerate(self.said):
            if isinstance(each, _Verdict):
                named = max(range(len(each.values)), key=each.values.__getitem__)
                vote = votes[each.compared[named] if any(each.values) else chosen]
                back = tuple(place - places[number] for number in each.compared)
                steps.append(self._verdict_step(each, vote.step(decision), back))
            else:
                passed_over = len(places) != chosen
                steps.append(replace(each.step(decision), confidence=confidence, passed_over=passed_over))
                places.append(place)
        return Decided(votes[chosen].answer, tuple(steps))

    def _judging(self, numbers: Sequence[int]) -> Call:
        chains = [_chain(number, self.votes[number]) for number in numbers]
        thought = "" if self.options.judge_think == "never" else None
        limit = self.options.judge_tokens
        return judging_call(self.prompt, self.call, chains, limit, repairs_before=self.repairs, thought=thought)

    def _verdict(self, asked: Call, answer: Answer, compared: tuple[int, ...]) -> _Verdict:
        """What a judging call says: probabilities, or all for the one named; nothing where that can't be read."""
        reading = read_places(asked, answer, judging_prompt(self.prompt, self.options.judge_tokens))
        chances = answer.probabilities or {asked.identifiers[place]: 1.0 for place in reading.indices[:1]}
        values = tuple(chances.get(name, 0.0) for name in asked.identifiers)
        return _Verdict(asked, answer, compared, values, reading.clean)

    def _verdict_step(self, verdict: _Verdict, named: Step, back: tuple[int, ...]) -> Step:
        """The trace entry of a judging call; `named` is that of the vote that it is for."""
        step = record_step(
            verdict.asked,
            # Its probabilities are of thoughts.
            replace(verdict.answer, probabilities=None),
            named.shown,
            named.outcome,
            repaired=not verdict.clean,
            marked=named.marked,
            grade=named.grade,
        )
        return replace(step, judged=back, confidence=verdict.lead)


def _soundness(vote: Vote) -> tuple[bool, float]:
    """What says of a thought, without asking for it, how good it is."""
    return not vote.answer.thought_closed, (vote.chances or {}).get(vote.said[0], 0.0)


def _chain(number: int, vote: Vote) -> Chain:
    """A vote as the judging question shows it."""
    step = vote.step(vote.said)
    return Chain(f"sample {number + 1}", vote.answer.thought, step.outcome, step.grade, str(vote.said[0]))
