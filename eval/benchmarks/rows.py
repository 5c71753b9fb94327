"""What a benchmark of speed is asked, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from r1ranker_ir.errors import InputError

from .meter import Metered, Phase
from .variants import NAIVE

FLOOR = "one forward pass"
"""The least that a ranking takes: each list's full prompt is read once."""


@dataclass(frozen=True)
class SpeedSettings:
    """What is ranked, and how it is measured."""

    candidates: int = 20  # passages per list
    passage_tokens: int = 100  # of each, by the model's tokenizer
    thought_tokens: int = 64  # of each thought; none ends before
    queries: int = 1  # lists
    order: Literal["first-stage", "random"] = "first-stage"  # in which candidates go; the first stage's last one first
    batch_size: int = 16  # calls at once
    seed: int = 0  # of texts and order
    repeat: int = 1  # measurements per variant; the one of median seconds counts
    naive_queries: int | None = None  # lists that the naive loop ranks, scaled to all of them; None: all
    cache_memory: int | str | None = None  # as TransformersBackend takes it; its own limit if None

    def __post_init__(self) -> None:
        least = {"candidates": 2, "passage_tokens": 1, "thought_tokens": 0, "queries": 1, "batch_size": 1, "repeat": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} is {getattr(self, name)}: give at least {smallest}")
        if self.naive_queries is not None and not 1 <= self.naive_queries <= self.queries:
            raise InputError(f"naive_queries is {self.naive_queries}: give 1 to {self.queries}, the number of queries")


@dataclass
class Measurement:
    """One measurement of one variant."""

    queries: int  # lists that were ranked
    calls: int = 0
    prompt_tokens: int = 0  # sent
    prompt_tokens_computed: int = 0
    completion_tokens: int = 0  # written, or forced after the prompt
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # over all threads; much less than seconds on one thread: the machine was busy
    metered: Metered = field(default_factory=Metered)
    cache_memory_peak: int = 0  # bytes kept between calls
    device_memory_peak: int | None = None  # bytes allocated on a CUDA device, weights included; None elsewhere
    orders: list[tuple[int, ...]] = field(default_factory=list)  # best first


@dataclass(kw_only=True)
class SpeedRow(Measurement):
    """The measurement of median seconds, and what all of a variant's measurements share."""

    variant: str
    all_seconds: tuple[float, ...]
    shares: dict[str, float | None]  # of the device's peaks, see share_of_peak


@dataclass(frozen=True)
class SpeedResult:
    """All rows of a benchmark."""

    settings: SpeedSettings
    floor: SpeedRow
    rows: tuple[SpeedRow, ...]  # of the variants, in their order
    forced: tuple[tuple[int, ...], ...]  # the orders that were forced, best first

    def scale(self, row: Measurement) -> float:
        """The factor that makes a row's counts and seconds those of all lists."""
        return self.settings.queries / row.queries

    def computed_ratio(self, row: Measurement) -> float:
        """Prompt tokens computed, in full prompts of all lists."""
        return row.prompt_tokens_computed * self.scale(row) / self.floor.prompt_tokens

    def times_faster(self, row: Measurement) -> float | None:
        """The naive loop's seconds over a row's; `None` without such a loop."""
        naive = next((each for each in self.rows if each.variant == NAIVE), None)
        return None if naive is None else naive.seconds * self.scale(naive) / (row.seconds * self.scale(row))

    def times_floor(self, row: Measurement) -> float:
        """A row's seconds over those of one forward pass."""
        return row.seconds * self.scale(row) / self.floor.seconds


def rate(*phases: Phase) -> float | None:
    """Tokens per second over some phases; `None` where there were none."""
    seconds = sum(phase.seconds for phase in phases)
    return sum(phase.tokens for phase in phases) / seconds if seconds else None
