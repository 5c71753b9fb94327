"""From records to samples: which candidates a prompt shows, and in which order.

A list is one positive with candidates of lower gain. Step samples, direct samples and setwise samples are made of
lists; windows are cut from the record as the first stage ordered it.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.windows import check_window, sliding

from .graded import graded
from .records import Sample, sample_strategies, shown_of

WINDOWS = "windows"
"""Samples for a strategy that asks for an order, as it slides over a run."""
Negatives = Literal["top", "random"]

NO_POSITIVE = "no positive among the candidates"
NO_NEGATIVE = "no candidate of lower gain than a positive"
NO_WINDOW = "no window with differing gains"


@dataclass(frozen=True)
class Sampling:
    """How records become samples; each field says what it is for."""

    strategy: str = option(
        "iterative",
        "Eliminations, whole lists, the best of a list, grades of its candidates, or windows.",
        choices=lambda: (*sample_strategies(), WINDOWS),
    )
    candidates: int = option(10, "Length of a list, its positive included.", least=2)
    negatives: Negatives = option("top", "Negatives that the run ranks highest, or random ones of it.")
    positives: int | None = option(None, "Positives drawn per query, one list each.", unset="all", least=1)
    min_gain: float = option(0.0, "Least gain of a positive; above 0 in any case.", unset="above 0", least=0.0)
    window_size: int = option(20, "Length of a window.", least=2)
    stride: int = option(10, "Places by which windows move up; below the window size.", least=1)
    full_gain: float | None = option(
        None, "With pointwise: the gain that is worth the grade 10.", unset="the greatest of each list"
    )
    passage_words: tuple[int, ...] = option(
        (), "Cut candidates to N words; of several numbers, one is drawn per query.", unset="whole", least=1
    )
    as_given: bool = option(False, "Each request or row is a list already: one sample, in its order.")
    seed: int = option(0, "Seed of every draw.")

    def __post_init__(self) -> None:
        check_window(self.window_size, self.stride)
        if self.as_given and self.strategy == WINDOWS:
            raise InputError(f"as_given goes with {', '.join(sample_strategies())}: windows are cut from longer lists")
        if self.full_gain is not None and not (self.grades and 0 < self.full_gain < math.inf):
            raise InputError(
                f"full_gain is {self.full_gain} with strategy {self.strategy!r}: give a gain above 0, of a strategy "
                "that grades (pointwise)"
            )

    @property
    def makes_steps(self) -> bool:
        """Whether samples are the steps of an elimination."""
        return self.strategy in STRATEGIES and STRATEGIES[self.strategy].asks == "worst"

    @property
    def grades(self) -> bool:
        """Whether samples are lists whose gains are grades."""
        return self.strategy in STRATEGIES and STRATEGIES[self.strategy].asks == "grade"


def record_rng(seed: int, record: JudgedRequest, *more: str) -> random.Random:
    """The random numbers of a record: they depend on seed, source and id alone, so that order changes nothing."""
    return random.Random(json.dumps([seed, record.source, record.request.query_id, *more]))


def samples_of(record: JudgedRequest, sampling: Sampling, dropped: Counter[str]) -> list[Sample]:
    """Makes all samples of a record."""
    samples: list[Sample] = []
    if not positives_of(record, sampling.min_gain):
        reason = NO_POSITIVE
    elif sampling.strategy == WINDOWS:
        reason = NO_WINDOW
        samples = window_samples(_shortened(record, sampling), sampling.window_size, sampling.stride)
    else:
        reason = NO_NEGATIVE
        if len(set(record.gains)) > 1:
            samples = _list_samples(_shortened(record, sampling), sampling)
            samples = [graded(sample, sampling.full_gain) if sampling.grades else sample for sample in samples]
    dropped.update(() if samples else (reason,))
    return samples


def _list_samples(record: JudgedRequest, sampling: Sampling) -> list[Sample]:
    if sampling.as_given:
        return [Sample(sampling.strategy, record)]
    rng = record_rng(sampling.seed, record)
    lists = lists_of(record, sampling, rng)
    if sampling.makes_steps:
        return [sample for chosen in lists for sample in step_samples(chosen, rng, sampling.strategy)]
    return [shuffled_sample(chosen, sampling.strategy, rng) for chosen in lists]


def _shortened(record: JudgedRequest, sampling: Sampling) -> JudgedRequest:
    """Cuts all candidates of a record to one length, which then tells nothing about their gains."""
    if not sampling.passage_words:
        return record
    # Drawn by itself, so that cutting changes no other draw.
    words = record_rng(sampling.seed, record, "words").choice(sampling.passage_words)
    cut = tuple(replace(each, text=" ".join(each.text.split()[:words])) for each in record.request.candidates)
    # A prompt that came with the request shows the candidates whole.
    return replace(record, request=replace(record.request, candidates=cut, given=None))


def positives_of(record: JudgedRequest, min_gain: float = 0.0) -> list[int]:
    """Finds the candidates that count as positives."""
    return [place for place, gain in enumerate(record.gains) if gain > 0 and gain >= min_gain]


def lists_of(record: JudgedRequest, sampling: Sampling, rng: random.Random) -> Iterator[JudgedRequest]:
    """Draws the lists of a record, one for each positive drawn.

    Positives are drawn by falling gain, at random among equals. Negatives of a positive are candidates of a lower gain,
    which they keep; so a list has one best candidate.
    """
    positives = positives_of(record, sampling.min_gain)
    rng.shuffle(positives)
    positives.sort(key=lambda place: -record.gains[place])
    for positive in positives[: sampling.positives]:
        lower = [place for place, gain in enumerate(record.gains) if gain < record.gains[positive]]
        if not lower:
            continue
        count = min(sampling.candidates - 1, len(lower))
        chosen = sorted(rng.sample(lower, count)) if sampling.negatives == "random" else lower[:count]
        yield shown_of(record, [positive, *chosen])


def step_samples(chosen: JudgedRequest, rng: random.Random, strategy: str = "iterative") -> list[Sample]:
    """Makes the step samples of R1-Ranker (arXiv 2506.21638), one for each length of an elimination.

    Each has k of the negatives, drawn without replacement, and the positive at a random place.
    """
    samples = []
    for count in range(1, len(chosen.request.candidates)):
        places = rng.sample(range(1, len(chosen.request.candidates)), count)
        places.insert(rng.randint(0, count), 0)
        samples.append(Sample(strategy, shown_of(chosen, places)))
    return samples


def shuffled_sample(chosen: JudgedRequest, strategy: str, rng: random.Random) -> Sample:
    """Makes one sample of a whole list in random order."""
    places = list(range(len(chosen.request.candidates)))
    rng.shuffle(places)
    return Sample(strategy, shown_of(chosen, places))


def window_samples(record: JudgedRequest, window_size: int = 20, stride: int = 10) -> list[Sample]:
    """Cuts the windows that a listwise ranker slides over the first stage's order; those whose gains differ."""
    check_window(window_size, stride)
    windows = (shown_of(record, window) for window in sliding(len(record.gains), window_size, stride))
    return [Sample("direct", window) for window in windows if len(set(window.gains)) > 1]


def count_windows(record: JudgedRequest, window_size: int, stride: int) -> int:
    """Counts the windows of a record, those without differing gains included."""
    return len(list(sliding(len(record.gains), window_size, stride)))
