"""Teachers: who grades candidates one by one, who orders lists, and who writes queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Protocol

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import RankerSource
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.training.data.from_traces import TraceStep, steps_of
from r1ranker_ir.training.data.quoted_thoughts import HIGHEST as HIGHEST_QUOTED
from r1ranker_ir.training.data.quoted_thoughts import Quoting
from r1ranker_ir.training.data.records import Sample, sample_strategies, shown_of
from r1ranker_ir.training.data.teacher import Teacher, Teaching, nearness
from r1ranker_ir.types import OF_ONE, RankingRequest, Step, Usage

from .answered import answered
from .settings import HIGHEST, Synthesis

ENCODER = "encoder:"
"""What stands before a sentence encoder's name where a teacher is named."""


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder as teacher: a folder or hub name; see `SentenceEncoder`."""

    model: str


@dataclass(frozen=True)
class Roles:
    """Who teaches, not opened yet.

    Args:
        teacher: orders lists, with its thoughts; one that only scores candidates orders by the scores, and its thoughts
            quote.
        labels: grades candidates; `None` for the teacher.
        writer: writes queries; `None` for the teacher.
        label_strategy: how a model grades, `pointwise` or `likelihood`; `None` for the first that it has words for.
    """

    teacher: RankerSource | Encoder
    labels: RankerSource | Encoder | None = None
    writer: RankerSource | None = None
    label_strategy: str | None = None


@dataclass(frozen=True)
class Labelled:
    """A list, and the unrounded grades of its candidates."""

    record: JudgedRequest
    grades: tuple[float, ...]


@dataclass(frozen=True)
class Try:
    """One order of a list: places best first, and what would be learned of it; a repaired one is not `usable`."""

    order: tuple[int, ...]
    steps: tuple[TraceStep, ...]
    usable: bool = True


class Grades(Protocol):
    """Who grades candidates; `ranker` counts what it costs."""

    ranker: Ranker | None

    def grades(self, requests: Sequence[RankingRequest]) -> list[tuple[float, ...] | None]:
        """Grades from 0 to 10, one each candidate; `None` for a request that could not be answered."""
        ...


class Orders(Protocol):
    """Who orders lists; `strategy` says what its thoughts answer, `ranker` counts what it costs."""

    strategy: str
    ranker: Ranker | None

    def tries(self, lists: Sequence[Labelled], settings: Synthesis) -> list[list[Try]]:
        """Several orders of each list; fewer where some could not be answered."""
        ...


class ModelGrades:
    """A model grades: by `pointwise` as it says, by `likelihood` relative to the likeliest candidate of the list."""

    def __init__(self, ranker: Ranker, strategy: str) -> None:
        self.ranker: Ranker | None = ranker
        self._engine, self._prompt = ranker.engine, ranker.prompt
        self._declared = STRATEGIES.find(strategy)
        scored = self._declared.asks == "likelihood"
        think = "never" if ranker.options.think == "never" else "always"
        told: dict[str, Any] = {"pooling": "mean"} if scored else {"think": think}
        self._options = self._declared.options(**told)

    def grades(self, requests: Sequence[RankingRequest]) -> list[tuple[float, ...] | None]:
        """Grades all candidates of all requests together."""
        found: list[tuple[float, ...] | None] = [None] * len(requests)
        programs = [self._declared(request, self._prompt, options=self._options) for request in requests]
        for place, outcome in answered(self._engine.outcomes(programs)).items():
            scores = dict(zip(outcome.order, outcome.scores, strict=True))
            told = [score for each in range(len(scores)) if (score := scores[each]) is not None]
            if self._declared.asks == "likelihood":
                told = [HIGHEST * math.exp(score - max(told)) for score in told]
            found[place] = tuple(told) if len(told) == len(scores) else None
        return found


class EncoderGrades:
    """A sentence encoder grades by cosines: 0.1 is worth nothing, 0.8 the highest grade."""

    def __init__(self, encoder: Encoder) -> None:
        self.ranker: Ranker | None = None
        self._encoder = Teacher(Teaching(encoder.model))

    def grades(self, requests: Sequence[RankingRequest]) -> list[tuple[float, ...] | None]:
        """Grades request by request."""
        return [
            tuple(
                HIGHEST * nearness(cosine)
                for cosine in self._encoder.similarities(request.query, [each.text for each in request.candidates])
            )
            for request in requests
        ]


class ModelOrders:
    """A model orders each list several times, shuffled anew; at a temperature its thoughts differ as well."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker: Ranker | None = ranker
        self._ranker = ranker
        self.strategy = ranker.strategy

    def tries(self, lists: Sequence[Labelled], settings: Synthesis) -> list[list[Try]]:
        """Orders all lists together."""
        asked = [
            (place, dealt)
            for place, each in enumerate(lists)
            for dealt in shuffles(each.record, settings.seed, settings.samples)
        ]
        requests = [shown_of(lists[place].record, dealt).request for place, dealt in asked]
        found: list[list[Try]] = [[] for _ in lists]
        outcomes = answered(self._ranker.outcomes(requests))
        for index, (place, dealt) in enumerate(asked):
            if (outcome := outcomes.get(index)) is not None:
                order = tuple(dealt[position] for position in outcome.order)
                usable = not outcome.repairs and not outcome.budget_reached
                found[place].append(Try(order, tuple(steps_of(outcome, self.strategy)), usable))
        return found


class GradedOrders:
    """Orders by grades, of which there is one each list; its thought quotes candidates and says the grades."""

    strategy = "direct"

    def __init__(self, grades: Grades, labels: Grades) -> None:
        self._grades, self._known = grades, grades is labels
        self.ranker = None if self._known else grades.ranker

    def tries(self, lists: Sequence[Labelled], settings: Synthesis) -> list[list[Try]]:
        """Orders each list once, shown shuffled; grades that the labels were made of are not asked for again."""
        known: Sequence[tuple[float, ...] | None] = [each.grades for each in lists]
        if not self._known:
            known = self._grades.grades([each.record.request for each in lists])
        return [
            [] if grades is None else [_by_grades(each.record, grades, settings.seed)]
            for each, grades in zip(lists, known, strict=True)
        ]


def _by_grades(record: JudgedRequest, grades: Sequence[float], seed: int) -> Try:
    [dealt] = shuffles(record, seed, 1)
    shown = shown_of(record, dealt)
    told = [grades[place] * HIGHEST_QUOTED / HIGHEST for place in dealt]
    best_first = tuple(sorted(range(len(told)), key=lambda place: -told[place]))
    thought = Quoting().thought(Sample(GradedOrders.strategy, shown), told)
    step = Step(tuple(range(len(told))), best_first, thought, "", None, False, False, 0, Usage())
    return Try(tuple(dealt[place] for place in best_first), (TraceStep(shown.request, GradedOrders.strategy, 1, step),))


def shuffles(record: JudgedRequest, seed: int, count: int) -> list[tuple[int, ...]]:
    """The places of a list's candidates in the order of each try, no two alike as long as there are enough.

    A model that echoes its prompt, or names one place always, never agrees with itself.
    """
    drawing, places = seeded_by(f"{seed}:{record.request.query_id}"), list(range(len(record.gains)))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(count, math.factorial(len(places))):
        drawing.shuffle(places)
        found.setdefault(tuple(places))
    return [each for each, _ in zip(cycle(found), range(count), strict=False)]


def graders() -> tuple[str, ...]:
    """The strategies that grade candidates one by one."""
    return tuple(name for name, strategy in STRATEGIES.items() if strategy.asks in OF_ONE)


@dataclass(frozen=True)
class Teachers:
    """Who teaches, opened; a `writer` only where queries are to be written."""

    labels: Grades
    orders: Orders
    writer: Ranker | None


def open_teachers(roles: Roles, *, writes: bool) -> Teachers:
    """Loads models and encoders, each once."""
    writer = roles.writer or roles.teacher
    if writes and isinstance(writer, Encoder):
        raise InputError(
            f"queries have to be written, which sentence encoder {writer.model!r} can't do: name a model as --writer"
        )
    opened: list[tuple[RankerSource, Ranker]] = []

    def ranker_of(source: RankerSource, *, orders: bool = False) -> Ranker:
        for known, ranker in opened:
            same = (known.model, known.settings) == (source.model, source.settings)
            if same and (not orders or (known.strategy, known.options) == (source.strategy, source.options)):
                return ranker
        opened.append((source, source.open()))
        return opened[-1][1]

    def grades_of(source: RankerSource | Encoder) -> Grades:
        if isinstance(source, Encoder):
            return EncoderGrades(source)
        ranker = ranker_of(source)
        own = (roles.label_strategy, source.strategy if source.strategy in graders() else None)
        worded = (name for name in graders() if STRATEGIES[name].is_worded_by(ranker.template))
        return ModelGrades(ranker, next(filter(None, (*own, *worded))))

    teacher = roles.teacher
    scores = isinstance(teacher, Encoder) or teacher.strategy in graders()
    if not isinstance(teacher, Encoder) and not scores:
        if teacher.strategy not in sample_strategies():
            raise InputError(
                f"strategy {teacher.strategy!r} neither compares candidates nor grades them one by one: use a teacher "
                f"with {', '.join((*sample_strategies(), *graders()))}"
            )
        ranker_of(teacher, orders=True)
    labels = grades_of(roles.labels or teacher)
    orders: Orders
    if isinstance(teacher, Encoder) or scores:
        orders = GradedOrders(labels if roles.labels is None else grades_of(teacher), labels)
    else:
        orders = ModelOrders(ranker_of(teacher, orders=True))
    write = ranker_of(writer) if writes and not isinstance(writer, Encoder) else None
    return Teachers(labels, orders, write)
