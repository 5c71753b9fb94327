"""Signs that a model does not rank: it names one place whatever stands there, grades all alike, or echoes its input."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ranker_ir.types import Asked, Ranking, Step

_ADVICE = "r1ranker doctor examines the model, r1ranker trace summary the traces of a run"

LAST = -1
"""The last place, however many are shown; others count from 1."""

# A false alarm should be rarer than this, where a model is as steady as is assumed below.
_ALARM = 1e-4
# The share of the answers, or of the lists, that is nearly all.
_NEARLY_ALL, _ALL_BUT_FEW = 0.9, 0.98
_LEAST_LISTS, _LEAST_PLACED_LISTS = 3, 2
# How often a model that ranks may name one and the same place, other than the one that the input's order speaks for.
_SAME_PLACE = 0.5
# How often it may keep the order of two candidates, or grade two alike; and how often each further one of a list.
_KEPT_PAIR, _KEPT_NEXT = 0.9, 0.6
# Grades so near to each other are equal: the difference is less than a hundredth of the scale.
_EQUAL_GRADES = 0.05
_ORDINALS = {1: "first", 2: "second", 3: "third", LAST: "last"}


@dataclass(frozen=True)
class Signs:
    """What rankings have in common, in counts that add up.

    Args:
        lists: rankings of at least two candidates in which something was decided.
        unchanged: how many of them leave their input's order as it was.
        kept: how many decisions the lists that are unchanged took.
        repaired: answers in these lists that were repaired, which means completed by the input's order.
        graded: lists of which at least two candidates were graded.
        equal: how many of them have equal grades throughout.
        equal_pairs: how many pairs of neighbours these have.
        named: place to how many answers name it, where the input's order speaks for another one.
        spoken_for: place to how many answers could name it, but the input's order speaks for it.
        lengths: number of candidates shown to how many answers chose among as many.
        not_last: how many answers could name the last place, and neither the input's order nor an earlier answer speaks
            for it.
        placed: rankings that these answers belong to.
    """

    lists: int = 0
    unchanged: int = 0
    kept: int = 0
    repaired: int = 0
    graded: int = 0
    equal: int = 0
    equal_pairs: int = 0
    named: Mapping[int, int] = field(default_factory=dict)
    spoken_for: Mapping[int, int] = field(default_factory=dict)
    lengths: Mapping[int, int] = field(default_factory=dict)
    not_last: int = 0
    placed: int = 0

    def __add__(self, other: Signs) -> Signs:
        # As after each batch of calls, of which none ends a ranking.
        return self if other is NO_SIGNS else _combined(self, other, 1)

    def __sub__(self, other: Signs) -> Signs:
        return _combined(self, other, -1)


NO_SIGNS = Signs()


def _combined(one: Signs, other: Signs, sign: int) -> Signs:
    values: dict[str, Any] = {}
    for name, value in vars(one).items():
        added = getattr(other, name)
        if isinstance(value, int):
            values[name] = value + sign * added
        else:
            sums = {key: value.get(key, 0) + sign * added.get(key, 0) for key in sorted({*value, *added})}
            values[name] = {key: count for key, count in sums.items() if count}
    return Signs(**values)


def signs_of(ranking: Ranking, asked: Asked | None) -> Signs:
    """The signs of one ranking; where it is unknown what its steps asked for, only the order counts."""
    count = len(ranking.request.candidates)
    values: dict[str, Any] = {}
    steps = [step for step in ranking.steps if not step.judged]
    told = (step.grade if step.score is None else step.score for step in steps if not step.repaired)
    grades = [value for value in told if value is not None]
    # How many places of the order the steps have decided.
    decisions = min(count - 1, sum(max(1, len(step.outcome) - 1) for step in steps))
    if decisions > 0:
        unchanged = ranking.order == tuple(range(count))
        kept = decisions if unchanged else 0
        values.update(lists=1, unchanged=int(unchanged), kept=kept, repaired=ranking.repairs)
    if len(grades) > 1:
        equal = max(grades) - min(grades) <= _EQUAL_GRADES
        values.update(graded=1, equal=int(equal), equal_pairs=len(grades) - 1 if equal else 0)
    if asked in ("worst", "best", "order"):
        values.update(_places(steps, asked))
    return Signs(**values)


def _places(steps: Sequence[Step], asked: Asked) -> dict[str, Any]:
    """The places that answers name, as far as they had a choice and were not repaired; nothing if there are none."""
    named, spoken_for, lengths = Counter[int](), Counter[int](), Counter[int]()
    not_last = 0
    for step in steps:
        left = [position for position in step.shown if position not in step.marked] if step.marked else step.shown
        if step.repaired or len(left) < 2 or not step.outcome:
            continue
        place = left.index(step.outcome[0]) + 1
        # Where a list is shown in its input's order, a model that agrees with it names one end all the time.
        agreeing = left.index(max(left) if asked == "worst" else min(left)) + 1
        lengths[len(left)] += 1
        spoken_for[agreeing] += 1
        named[place] += place != agreeing
        # An elimination's prompts may show the best first, by the model's own answers: then the last one is its choice.
        if agreeing != len(left) and (asked != "worst" or step.confidence is not None):
            not_last += 1
            named[LAST] += place == len(left)
    counts = {"named": +named, "spoken_for": spoken_for, "lengths": lengths}
    told: dict[str, Any] = {name: dict(sorted(each.items())) for name, each in counts.items()}
    return told | {"not_last": not_last, "placed": int(bool(lengths))}


def _sign_of_place(signs: Signs) -> tuple[int, int, int] | None:
    """The place that nearly all answers name, how many do, and of how many answers.

    Answers that agree with the input's order are no sign, whatever place they name; those that can't be told from it
    are left out of the count. What is left should name a place other than that again and again no more often than
    every second time.
    """
    found = []
    for place, named in signs.named.items():
        able = sum(count for length, count in signs.lengths.items() if length >= place)
        answers = signs.not_last if place == LAST else able - signs.spoken_for.get(place, 0)
        if named >= _NEARLY_ALL * answers and _improbable(named, answers, _SAME_PLACE):
            found.append((place, named, answers))
    if signs.placed < _LEAST_PLACED_LISTS or not found:
        return None
    return max(found, key=lambda sign: (sign[2], sign[1]))


def _improbable(hits: int, answers: int, chance: float) -> bool:
    """Whether this share of hits is less probable than `_ALARM` (Chernoff's bound of the binomial tail)."""
    share = hits / answers if answers else 0.0
    if share <= chance:
        return False
    divergence = share * math.log(share / chance)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - chance))
    return answers * divergence > -math.log(_ALARM)


def _nearly_all(lists: int, of: int, decisions: int) -> bool:
    """Whether all but few lists are that way, and a model that ranks would hardly take so many decisions like that."""
    surprise = -lists * math.log(_KEPT_PAIR) - (decisions - lists) * math.log(_KEPT_NEXT)
    return of >= _LEAST_LISTS and lists >= _ALL_BUT_FEW * of and surprise > -math.log(_ALARM)


def sentences(signs: Signs) -> dict[str, str]:
    """Says what speaks against a model's ranking anything, by kind of sign: `place`, `grades`, `order`."""
    said = {}
    if (sign := _sign_of_place(signs)) is not None:
        place, named, answers = sign
        said["place"] = (
            f"{named} of {answers} answers name the {_ORDINALS.get(place, f'{place}th')} candidate shown, whatever "
            f"stands there: the model answers by place, and such an order says nothing about the candidates"
        )
    if _nearly_all(signs.equal, signs.graded, signs.equal_pairs):
        said["grades"] = (
            f"in {signs.equal} of {signs.graded} lists all grades are equal, so that the order is the one that "
            f"went in: the model does not tell candidates apart"
        )
    elif _nearly_all(signs.unchanged, signs.lists, signs.kept):
        repairs = signs.repaired
        repaired = f" ({repairs} answers were repaired, which fills in that order)" if repairs else ""
        said["order"] = (
            f"{signs.unchanged} of {signs.lists} lists come out in the order in which they went in{repaired}: "
            f"either it was the model's own already, or the model repeats its input. Shuffled input (--shuffle) tells "
            f"which"
        )
    return said


def warnings_of(signs: Signs, model: str, strategy: str) -> dict[str, str]:
    """Says what speaks against a model's ranking anything, and what to do about it, as lines for a log."""
    return {kind: f"{model}, {strategy}: {sentence}. {_ADVICE}" for kind, sentence in sentences(signs).items()}
