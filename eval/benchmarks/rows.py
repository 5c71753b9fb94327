"""What a benchmark of speed is asked, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option

from .meter import Metered
from .variants import NAIVE

FLOOR = "one forward pass"
"""The least that a ranking takes: each list's full prompt is read once."""


@dataclass(frozen=True)
class SpeedSettings:
    """What is ranked, and how it is measured; each field says what it is for."""

    candidates: int = option(20, "Passages per list.", least=2)
    passage_tokens: int = option(100, "Tokens of each passage.", least=1)
    thought_tokens: int = option(
        64, "Tokens of each thought, at most with --corpus.", unset="64; with --corpus the checkpoint's", least=0
    )
    queries: int = option(1, "Lists, or queries of the run.", unset="1; with --corpus all", least=1)
    order: Literal["first-stage", "random"] = option("first-stage", "How candidates go: last ones first, or random.")
    batch_size: int = option(16, "Calls at once.", unset="16; with --corpus the checkpoint's", least=1)
    seed: int = option(0, "Seed of random weights, texts and order.", least=0)
    repeat: int = option(1, "Measure each row N times, and show the median of the seconds.", least=1)
    naive_queries: int | None = option(None, "Lists of the naive loop, scaled to all.", unset="all", least=1)
    cache_memory: int | str | None = None  # as TransformersBackend takes it; its own limit if None

    def __post_init__(self) -> None:
        if self.naive_queries is not None and not 1 <= self.naive_queries <= self.queries:
            raise InputError(f"naive_queries is {self.naive_queries}: give 1 to {self.queries}, the number of queries")


@dataclass
class SpeedRow:
    """One measurement of one variant; in a result, that of median seconds."""

    variant: str
    queries: int  # lists that were ranked
    calls: int = 0
    prompt_tokens: int = 0  # sent
    prompt_tokens_computed: int = 0
    completion_tokens: int = 0  # written, or forced after the prompt
    seconds: float = 0.0
    all_seconds: tuple[float, ...] = ()  # of all measurements of the variant
    metered: Metered = field(default_factory=Metered)
    cache_memory_peak: int = 0  # bytes kept between calls
    orders: list[tuple[int, ...]] = field(default_factory=list)  # best first


@dataclass(frozen=True)
class SpeedResult:
    """All rows of a benchmark."""

    settings: SpeedSettings
    floor: SpeedRow
    rows: tuple[SpeedRow, ...]  # of the variants, in their order
    forced: tuple[tuple[int, ...], ...]  # the orders that were forced, best first

    @property
    def all_rows(self) -> tuple[SpeedRow, ...]:
        """The forward pass, and the variants."""
        return (self.floor, *self.rows)

    def scale(self, row: SpeedRow) -> float:
        """The factor that makes a row's counts and seconds those of all lists."""
        return self.settings.queries / row.queries

    def computed_ratio(self, row: SpeedRow) -> float:
        """Prompt tokens computed, in full prompts of all lists."""
        return row.prompt_tokens_computed * self.scale(row) / self.floor.prompt_tokens

    def times_faster(self, row: SpeedRow) -> float | None:
        """The naive loop's seconds over a row's; `None` without such a loop."""
        naive = next((each for each in self.rows if each.variant == NAIVE), None)
        return None if naive is None else naive.seconds * self.scale(naive) / (row.seconds * self.scale(row))

    def times_floor(self, row: SpeedRow) -> float:
        """A row's seconds over those of one forward pass."""
        return row.seconds * self.scale(row) / self.floor.seconds
