"""What a benchmark of speed is asked, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass

from r1ranker_ir.errors import InputError

from .lists import Order
from .meter import Metered
from .variants import NAIVE

FLOOR = "one forward pass"
"""The row of the least that a ranking takes: each list's full prompt is read once."""


@dataclass(frozen=True)
class SpeedSettings:
    """What is ranked, and how it is measured."""

    candidates: int = 20  # passages a list
    passage_tokens: int = 100  # of each, by the model's tokenizer
    thought_tokens: int = 64  # of each thought; none ends before
    queries: int = 1  # lists
    order: Order = "first-stage"  # in which candidates go: the first stage's last one first, or a random order
    batch_size: int = 16  # calls at once
    seed: int = 0  # of texts and order
    repeat: int = 1  # how often each variant is measured; the measurement of median seconds counts
    naive_queries: int | None = None  # measure the naive loop on so many lists, and scale it; all if None
    cache_memory: int | str | None = None  # as TransformersBackend takes it; its own limit if None

    def __post_init__(self) -> None:
        least = {"candidates": 2, "passage_tokens": 1, "thought_tokens": 0, "queries": 1, "batch_size": 1, "repeat": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} is {getattr(self, name)}: give at least {smallest}")
        if self.naive_queries is not None and not 1 <= self.naive_queries <= self.queries:
            raise InputError(f"naive_queries is {self.naive_queries}: give 1 to {self.queries}, the number of queries")


@dataclass(frozen=True)
class SpeedRow:
    """What one variant took."""

    variant: str  # its name
    calls: int  # prompts sent
    prompt_tokens: int  # sent
    prompt_tokens_computed: int  # of these
    completion_tokens: int  # written, or forced after the prompt
    seconds: float  # of the whole, in the measurement of the median
    all_seconds: tuple[float, ...]  # of each measurement
    cpu_seconds: float  # over all threads; much less than seconds on one thread: the machine was busy
    metered: Metered  # where the model's time went, in the measurement of the median
    cache_memory_peak: int  # bytes that were kept between calls at most
    device_memory_peak: int | None  # bytes allocated on a CUDA device at most, weights included; None elsewhere
    shares: dict[str, float | None]  # of the device's peaks, see share_of_peak
    orders: tuple[tuple[int, ...], ...]  # how each list was ranked, best first
    queries: int  # lists that were ranked


@dataclass(frozen=True)
class SpeedResult:
    """All rows of a benchmark."""

    settings: SpeedSettings  # what was measured
    floor: SpeedRow  # one forward pass over each list's full prompt
    rows: tuple[SpeedRow, ...]  # of the variants, in their order
    forced: tuple[tuple[int, ...], ...]  # the orders that were forced, best first

    @property
    def naive(self) -> SpeedRow | None:
        """The row of the naive loop, if there is one."""
        return next((row for row in self.rows if row.variant == NAIVE), None)

    def scale(self, row: SpeedRow) -> float:
        """By how much a row's counts and seconds are to be multiplied to be those of all lists."""
        return self.settings.queries / row.queries

    def computed_ratio(self, row: SpeedRow) -> float:
        """Prompt tokens computed, in full prompts of all lists."""
        return row.prompt_tokens_computed * self.scale(row) / self.floor.prompt_tokens

    def times_faster(self, row: SpeedRow) -> float | None:
        """The naive loop's seconds over a row's; `None` without such a loop."""
        if self.naive is None:
            return None
        return self.naive.seconds * self.scale(self.naive) / (row.seconds * self.scale(row))

    def times_floor(self, row: SpeedRow) -> float:
        """A row's seconds over those of one forward pass."""
        return row.seconds * self.scale(row) / self.floor.seconds
