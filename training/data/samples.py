"""From records to samples: which candidates a prompt shows, and in which order.

A list is one positive with candidates of lower gain. Step samples, direct samples and setwise samples are made of
lists; windows are cut from the record as the first stage ordered it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.windows import check_window, sliding_windows

from .records import Record, Sample, sample_strategies

WINDOWS = "windows"
"""Samples for a strategy that asks for an order, as it slides over a run."""
Negatives = Literal["top", "random"]

NO_POSITIVE = "no positive among the candidates"
NO_NEGATIVE = "no candidate of lower gain than a positive"
NO_WINDOW = "no window with differing gains"


def sampling_strategies() -> tuple[str, ...]:
    """What samples can be made for."""
    return (*sample_strategies(), WINDOWS)


@dataclass(frozen=True)
class Sampling:
    """How records become samples.

    Args:
        strategy: `iterative` for step samples, `direct` for whole lists, `setwise` for the best of a list, `windows`
            for the windows of a listwise ranker.
        candidates: the length of a list, its positive included; lists are shorter where negatives are lacking.
        negatives: a list takes the negatives that the first stage ranked highest (`top`), or draws them (`random`).
        positives: how many positives of a record are drawn, one list each; all if `None`.
        min_gain: the least gain of a positive; above 0 in any case.
        window_size: the length of a window.
        stride: by how many places windows move up.
        as_given: each record is a list already: one sample of its candidates in their order (not with `windows`).
        seed: of every draw, together with a record's source and id.

    Raises:
        InputError: if a value makes no sense.
    """

    strategy: str = "iterative"
    candidates: int = 10
    negatives: Negatives = "top"
    positives: int | None = None
    min_gain: float = 0.0
    window_size: int = 20
    stride: int = 10
    as_given: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in sampling_strategies():
            raise InputError(f"strategy is {self.strategy!r}: use one of {', '.join(sampling_strategies())}")
        if self.negatives not in ("top", "random"):
            raise InputError(f"negatives is {self.negatives!r}: use top or random")
        if self.candidates < 2:
            raise InputError(f"candidates is {self.candidates}: a list needs at least 2 to compare")
        if self.positives is not None and self.positives < 1:
            raise InputError(f"positives is {self.positives}: draw at least 1 a record")
        check_window(self.window_size, self.stride)
        if self.as_given and self.strategy == WINDOWS:
            raise InputError(f"as_given goes with {', '.join(sample_strategies())}: windows are cut from longer lists")

    @property
    def makes_steps(self) -> bool:
        """Whether samples are the steps of an elimination."""
        return self.strategy in STRATEGIES and STRATEGIES[self.strategy].asks == "worst"


def record_rng(seed: int, record: Record) -> random.Random:
    """The random numbers of a record: they depend on seed, source and id alone, so that order changes nothing.

    Args:
        seed: of the whole data.
        record: gives source and id.

    Returns:
        A generator of its own.
    """
    return random.Random(json.dumps([seed, record.source, record.id]))


def samples_of(record: Record, sampling: Sampling, dropped: Counter[str]) -> list[Sample]:
    """Makes all samples of a record.

    Args:
        record: with its candidates in first-stage order.
        sampling: what to make of it.
        dropped: is told the reason if nothing can be made of the record.

    Returns:
        The samples: for n candidates a list, up to n − 1 step samples a positive, one direct or setwise sample a
        positive, or the windows whose gains differ.
    """
    if not positives_of(record, sampling.min_gain):
        dropped[NO_POSITIVE] += 1
        return []
    rng = record_rng(sampling.seed, record)
    if sampling.strategy == WINDOWS:
        samples = window_samples(record, sampling.window_size, sampling.stride)
        if not samples:
            dropped[NO_WINDOW] += 1
        return samples
    if len(set(record.gains)) < 2:
        dropped[NO_NEGATIVE] += 1
        return []
    if sampling.as_given:
        return [Sample(sampling.strategy, record)]
    samples = []
    for chosen in lists_of(record, sampling, rng):
        if sampling.makes_steps:
            samples += step_samples(chosen, rng, sampling.strategy)
        else:
            samples.append(shuffled_sample(chosen, sampling.strategy, rng))
    if not samples:
        dropped[NO_NEGATIVE] += 1
    return samples


def positives_of(record: Record, min_gain: float = 0.0) -> list[int]:
    """Finds the candidates that count as positives.

    Args:
        record: the record.
        min_gain: the least gain of a positive; above 0 in any case.

    Returns:
        Their places, in the candidates' order.
    """
    return [place for place, gain in enumerate(record.gains) if gain > 0 and gain >= min_gain]


def lists_of(record: Record, sampling: Sampling, rng: random.Random) -> Iterator[Record]:
    """Draws the lists of a record, one for each positive drawn.

    Positives are drawn by falling gain, at random among equals. Negatives of a positive are candidates of a lower gain,
    which they keep; so a list has one best candidate.

    Args:
        record: with its candidates in first-stage order.
        sampling: length, number and choice of negatives.
        rng: of the record.

    Yields:
        Lists of 2 to n candidates: the positive first, then the negatives in first-stage order. A positive without
        any candidate of lower gain gets no list.
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
        yield _shown(record, [positive, *chosen])


def step_samples(chosen: Record, rng: random.Random, strategy: str = "iterative") -> list[Sample]:
    """Makes the step samples of R1-Ranker (arXiv 2506.21638): lists of every length that an elimination goes through.

    Args:
        chosen: a list of n candidates, the positive first.
        rng: of the record.
        strategy: whose steps they are.

    Returns:
        For each k = 1..n−1 a sample with k negatives drawn without replacement and the positive at a random place.
    """
    samples = []
    for count in range(1, len(chosen.candidates)):
        places = rng.sample(range(1, len(chosen.candidates)), count)
        places.insert(rng.randint(0, count), 0)
        samples.append(Sample(strategy, _shown(chosen, places)))
    return samples


def shuffled_sample(chosen: Record, strategy: str, rng: random.Random) -> Sample:
    """Makes one sample of a whole list in random order.

    Args:
        chosen: a list.
        strategy: what the sample asks for.
        rng: of the record.

    Returns:
        The sample, every order being equally likely, and so every place of the positive.
    """
    places = list(range(len(chosen.candidates)))
    rng.shuffle(places)
    return Sample(strategy, _shown(chosen, places))


def window_samples(record: Record, window_size: int = 20, stride: int = 10) -> list[Sample]:
    """Cuts the windows that a listwise ranker slides over the first stage's order, from the back.

    Args:
        record: with its candidates in first-stage order.
        window_size: the length of a window.
        stride: by how many places windows move up; the last one may be shorter, as at inference.

    Returns:
        A `direct` sample for each window whose gains differ, in first-stage order, the lowest window first.

    Raises:
        InputError: if window_size or stride make no sense.
    """
    check_window(window_size, stride)
    return [
        Sample("direct", _shown(record, range(start, end)))
        for start, end in sliding_windows(len(record.candidates), window_size, stride)
        if len(set(record.gains[start:end])) > 1
    ]


def count_windows(record: Record, window_size: int, stride: int) -> int:
    """Counts the windows of a record, those without differing gains included."""
    return len(list(sliding_windows(len(record.candidates), window_size, stride)))


def _shown(record: Record, places: Sequence[int]) -> Record:
    return replace(
        record,
        candidates=tuple(record.candidates[place] for place in places),
        gains=tuple(record.gains[place] for place in places),
    )
