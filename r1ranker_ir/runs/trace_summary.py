"""What a whole trace shows: which places are answered, repairs, how thoughts ended, what became of the order."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from r1ranker_ir.engine.signs import Signs, sentences, signs_of
from r1ranker_ir.prompts.answers import answer_text
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Step, Usage

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
    judgings: int  # calls that compare thoughts
    passed_over: int  # thoughts of which another one's answer was taken
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


def summarise(rankings: Iterable[TracedRanking]) -> TraceSummary:
    """Takes rankings in one after the other, and says what they show."""
    strategies, endings, repairs, counts = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    named, shown, grades = Counter[int](), Counter[int](), Counter[int]()
    lengths, calls, words, tokens = list[int](), list[int](), list[int](), list[int]()
    query_ids, notes, agreements = set[str](), dict[str, None](), list[tuple[float, float]]()
    usage, signs = Usage(), Signs()
    for traced in rankings:
        ranking = traced.ranking
        strategies[traced.strategy] += 1
        query_ids.add(ranking.request.query_id)
        lengths.append(len(ranking.order))
        calls.append(ranking.usage.calls)
        usage += ranking.usage
        counts["ended_by_budget"] += ranking.budget_reached
        notes.update(dict.fromkeys(traced.notes))
        signs += signs_of(ranking, asked_by(traced.strategy))
        if len(ranking.order) > 1:
            agreements.append((kendall_tau(ranking.order), rank_biased_overlap(ranking.order)))
            counts["unchanged"] += ranking.order == tuple(range(len(ranking.order)))
            counts["first_kept"] += ranking.order[0] == 0
        for step in ranking.steps:
            counts["cut_passages"] += step.cut_passages
            counts["cut_queries"] += step.cut_query
            counts["judgings"] += bool(step.judged)
            counts["passed_over"] += step.passed_over
            tokens.append(step.usage.completion_tokens)
            left = [position for position in step.shown if position not in step.marked]
            if step.repaired:
                repairs[repair_of(step)] += 1
            elif step.judged:
                pass  # What it names is a thought.
            elif step.grade is not None:
                grades[round(step.grade)] += 1
            elif len(left) > 1:
                named[left.index(step.outcome[0]) + 1] += 1
                shown[len(left)] += 1
            if step.thought_given:
                counts["given_thoughts"] += 1
            elif not step.thought.strip() and not step.thought_closed:
                counts["without_thought"] += 1
            else:
                words.append(len(step.thought.split()))
                endings[_ENDINGS[step.closed_at] if step.thought_closed else CLOSED] += 1
    agreement = None
    if agreements:
        tau, overlap = map(statistics.fmean, zip(*agreements, strict=True))
        agreement = Agreement(len(agreements), counts["unchanged"], tau, overlap, counts["first_kept"])
    counted = "ended_by_budget judgings passed_over without_thought given_thoughts cut_passages cut_queries".split()
    return TraceSummary(
        strategies=dict(strategies),
        queries=len(query_ids),
        rankings=len(lengths),
        candidates=_spread(lengths) or Spread(0, 0, 0, 0),
        usage=usage,
        calls=_spread(calls) or Spread(0, 0, 0, 0),
        answers=len(tokens),
        places=tuple(_places(named, shown)),
        unread=repairs.total(),
        grades=dict(sorted(grades.items())),
        repairs=dict(repairs.most_common()),
        thoughts=len(words),
        thought_words=_spread(words),
        completion_tokens=_spread(tokens),
        endings=dict(endings.most_common()),
        agreement=agreement,
        notes=tuple(notes),
        signs=dict(sentences(signs)),
        **{name: counts[name] for name in counted},
    )


def _places(named: Mapping[int, int], shown: Mapping[int, int]) -> Iterable[PlaceShare]:
    for place in range(1, max(shown, default=0) + 1):
        able = {length: count for length, count in shown.items() if length >= place}
        yield PlaceShare(place, named[place], sum(able.values()), sum(count / n for n, count in able.items()))


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
    if step.grade is not None and not step.judged:
        return "not one whole grade in range" if _NUMBER.search(answer) else "no grade in the answer"
    named = _IDENTIFIER.findall(answer) or _NUMBER.findall(answer)
    if not named:
        return "no identifier in the answer"
    places = [ord(name) - ord("A") + 1 if name.isalpha() else int(name[:6]) for name in named]
    if any(not 1 <= place <= len(step.judged or step.shown) for place in places):
        return "an identifier that was not shown"
    if not step.judged and any(step.shown[place - 1] in step.marked for place in places):
        return "a candidate that was excluded before"
    if len(set(places)) < len(places):
        return "an identifier named twice"
    if (step.judged or len(step.outcome) == 1) and len(places) > 1:
        return "several identifiers where one was asked for"
    if not step.judged and len(places) < len(step.outcome):
        return "not all identifiers of an order"
    return "not in the form that was asked for"
