"""What a whole trace shows: which places are answered, repairs, how thoughts ended, what became of the order."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.engine.signs import Signs, sentences, signs_of
from r1ranker_ir.prompts.answers import answer_text
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Step, Usage

NOTHING_READ = "no identifier in the answer"
"""The kind of a repair where nothing is known of what was answered."""

PERSISTENCE = 0.9
"""How probable it is that a reader goes on from one place to the next, for `rank_biased_overlap`."""

_IDENTIFIER = re.compile(r"\[\s*(\d+|[A-Z])\s*\]")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Spread:
    """How some numbers are spread."""

    least: float
    median: float
    most: float
    mean: float


@dataclass(frozen=True)
class PlaceShare:
    """How often one place of a prompt was answered."""

    place: int  # from 1
    named: int  # answers that name it (of an order, as the best)
    able: int  # answers that could have: at least this many candidates were there
    expected: float  # of these, how many would if all candidates were named alike


@dataclass(frozen=True)
class Agreement:
    """How far rankings agree with the orders that went in."""

    lists: int  # rankings of at least two candidates
    unchanged: int  # how many leave the order as it was
    tau: float  # mean of Kendall's tau
    overlap: float  # mean of rank-biased overlap
    first_kept: int  # how many leave the first candidate first


@dataclass(frozen=True)
class TraceSummary:
    """What a trace shows."""

    strategies: Mapping[str, int]  # rankings by strategy
    queries: int  # different query ids
    rankings: int
    candidates: Spread  # per ranking
    usage: Usage
    calls: Spread  # per ranking
    ended_by_budget: int  # rankings
    answers: int  # calls whose answer was looked at
    places: tuple[PlaceShare, ...]  # none of grades
    unread: int  # answers that were repaired, and so name no place
    grades: Mapping[int, int]  # answers by grade, rounded to a whole number
    repairs: Mapping[str, int]  # answers by kind
    thoughts: int  # calls with a thought of their own
    without_thought: int  # calls in which nothing was thought
    given_thoughts: int  # calls that were given an earlier call's thought, or none on purpose
    thought_words: Spread | None
    completion_tokens: Spread | None  # per call, thought and answer
    endings: Mapping[str, int]  # thoughts by how they ended
    cut_passages: int  # counted for each call
    cut_queries: int  # calls
    agreement: Agreement | None  # None where there was nothing to order
    notes: tuple[str, ...]  # on how the model was asked
    signs: Mapping[str, str]  # what speaks against the model's ranking anything; see signs.sentences


_ENDINGS = {
    "limit": "cut off at the limit",
    "end_of_turn": "ended with the model's turn, not closed",
    "answer": "went over to the answer, not closed",
    None: "not closed, cause not recorded",
}
CLOSED = "closed by the model"
"""How a thought ends that the model closes itself."""


class TraceCounts:
    """Takes in rankings one after the other; `summary` says what they show."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._strategies: Counter[str] = Counter()
        self._query_ids: set[str] = set()
        self._lengths: list[int] = []
        self._calls: list[int] = []
        self._usage = Usage()
        self._named: Counter[int] = Counter()
        self._shown: Counter[int] = Counter()
        self._grades: Counter[int] = Counter()
        self._repairs: Counter[str] = Counter()
        self._words: list[int] = []
        self._tokens: list[int] = []
        self._endings: Counter[str] = Counter()
        self._agreements: list[tuple[float, float]] = []
        self._notes: dict[str, None] = {}
        self._signs = Signs()

    def add(self, traced: TracedRanking) -> None:
        """Takes in one ranking."""
        ranking = traced.ranking
        self._strategies[traced.strategy] += 1
        self._query_ids.add(ranking.request.query_id)
        self._lengths.append(len(ranking.order))
        self._calls.append(ranking.usage.calls)
        self._usage += ranking.usage
        self._counts["ended_by_budget"] += ranking.budget_reached
        self._notes.update(dict.fromkeys(traced.notes))
        self._signs += signs_of(ranking, asked_by(traced.strategy))
        for step in ranking.steps:
            self._add_answer(step)
            self._add_thought(step)
        if len(ranking.order) > 1:
            self._agreements.append((kendall_tau(ranking.order), rank_biased_overlap(ranking.order)))
            self._counts["unchanged"] += ranking.order == tuple(range(len(ranking.order)))
            self._counts["first_kept"] += ranking.order[0] == 0

    def _add_answer(self, step: Step) -> None:
        self._counts["cut_passages"] += step.cut_passages
        self._counts["cut_queries"] += step.cut_query
        if step.repaired:
            self._repairs[repair_of(step)] += 1
        elif step.grade is not None:
            self._grades[round(step.grade)] += 1
        else:
            left = [position for position in step.shown if position not in step.marked]
            if len(left) > 1:
                self._named[left.index(step.outcome[0]) + 1] += 1
                self._shown[len(left)] += 1

    def _add_thought(self, step: Step) -> None:
        self._tokens.append(step.usage.completion_tokens)
        if step.thought_given:
            self._counts["given_thoughts"] += 1
        elif not step.thought.strip() and not step.thought_closed:
            self._counts["without_thought"] += 1
        else:
            self._words.append(len(step.thought.split()))
            self._endings[_ENDINGS[step.closed_at] if step.thought_closed else CLOSED] += 1

    def summary(self) -> TraceSummary:
        """Says what all of them show."""
        counted = ("ended_by_budget", "without_thought", "given_thoughts", "cut_passages", "cut_queries")
        return TraceSummary(
            strategies=dict(self._strategies),
            queries=len(self._query_ids),
            rankings=len(self._lengths),
            candidates=_spread(self._lengths) or Spread(0, 0, 0, 0),
            usage=self._usage,
            calls=_spread(self._calls) or Spread(0, 0, 0, 0),
            answers=len(self._tokens),
            places=tuple(self._places()),
            unread=self._repairs.total(),
            grades=dict(sorted(self._grades.items())),
            repairs=dict(self._repairs.most_common()),
            thoughts=len(self._words),
            thought_words=_spread(self._words),
            completion_tokens=_spread(self._tokens),
            endings=dict(self._endings.most_common()),
            agreement=self._agreement(),
            notes=tuple(self._notes),
            signs=sentences(self._signs),
            **{name: self._counts[name] for name in counted},
        )

    def _places(self) -> Iterable[PlaceShare]:
        for place in range(1, max(self._shown, default=0) + 1):
            able = {length: count for length, count in self._shown.items() if length >= place}
            expected = sum(count / length for length, count in able.items())
            yield PlaceShare(place, self._named[place], sum(able.values()), expected)

    def _agreement(self) -> Agreement | None:
        if not self._agreements:
            return None
        tau, overlap = map(statistics.fmean, zip(*self._agreements, strict=True))
        counts = self._counts
        return Agreement(len(self._agreements), counts["unchanged"], tau, overlap, counts["first_kept"])


def summarise(rankings: Iterable[TracedRanking]) -> TraceSummary:
    """Summarises rankings of a trace."""
    counts = TraceCounts()
    for traced in rankings:
        counts.add(traced)
    return counts.summary()


def _spread(values: Sequence[int]) -> Spread | None:
    if not values:
        return None
    return Spread(min(values), statistics.median(values), max(values), statistics.fmean(values))


def kendall_tau(order: Sequence[int]) -> float:
    """Compares an order with that of the numbers in it: 1 if they rise throughout, -1 if they fall (Kendall, 1938)."""
    rising = sum(one < other for place, one in enumerate(order) for other in order[place + 1 :])
    return 4 * rising / (len(order) * (len(order) - 1)) - 1


def rank_biased_overlap(order: Sequence[int], persistence: float = PERSISTENCE) -> float:
    """Compares an order with that of the numbers in it, the top counting most, from 0 to 1 if they are the same.

    Extrapolated beyond the end, where both hold the same: Webber, Moffat and Zobel, TOIS 2010, equation 32.
    """
    other, agreed = sorted(order), 0.0
    seen: set[int] = set()
    common = 0
    for depth, (one, two) in enumerate(zip(order, other, strict=True), start=1):
        common += (one in seen) + (two in seen) + (one == two)
        seen |= {one, two}
        agreed += persistence**depth * common / depth
    return (1 - persistence) / persistence * agreed + persistence ** len(order)


def repair_of(step: Step) -> str:
    """The kind of fault of an answer that had to be repaired, in words."""
    answer = answer_text(step.text)
    if answer is None or (step.thought_closed and not step.text.replace(step.thought, "", 1).strip()):
        return "the thought never came to an answer"
    if not answer.strip():
        return "nothing answered"
    if step.grade is not None:
        return "not one whole grade in range" if _NUMBER.search(answer) else "no grade in the answer"
    named = _IDENTIFIER.findall(answer) or _NUMBER.findall(answer)
    if not named:
        return NOTHING_READ
    places = [ord(name) - ord("A") + 1 if name.isalpha() else int(name[:6]) for name in named]
    if any(not 1 <= place <= len(step.shown) for place in places):
        return "an identifier that was not shown"
    if any(step.shown[place - 1] in step.marked for place in places):
        return "a candidate that was excluded before"
    if len(set(places)) < len(places):
        return "an identifier named twice"
    if len(step.outcome) == 1 and len(places) > 1:
        return "several identifiers where one was asked for"
    if len(places) < len(step.outcome):
        return "not all identifiers of an order"
    return "not in the form that was asked for"


def summary_data(summary: TraceSummary) -> dict[str, Any]:
    """Lays a summary out as plain data for JSON, with full precision."""
    return {name: _plain(value) for name, value in vars(summary).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return _plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value
