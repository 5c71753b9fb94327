"""How runs are compared, and how places and probabilities are calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import check_offered, option

Test = Literal["ttest", "randomisation"]
Correction = Literal["holm", "bonferroni", "none"]

RESAMPLES = 10_000
"""How many random samples randomisation tests and intervals take."""
_LEAST_RESAMPLES = 100  # with fewer, 95% can't be told from all


@dataclass(frozen=True)
class ComparisonSettings:
    """How runs are tested; each field says what it is for. The same samples are drawn for every run and measure."""

    test: Test = option("ttest", "The paired two-sided test over the queries.")
    correction: Correction = option("holm", "Correction of the p-values for their number, over all runs and measures.")
    alpha: float = option(0.05, "Mark differences whose corrected p-value is at most this.", least=0.0, most=1.0)
    resamples: int = option(
        RESAMPLES, "Random samples of the randomisation test and of the intervals.", least=_LEAST_RESAMPLES
    )
    seed: int = option(0, "Seed of these samples.", least=0)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}: give the probability of a false alarm, such as 0.05")
        check_offered(self)


@dataclass(frozen=True)
class CalibrationSettings:
    """What a map to probabilities of relevance is fitted on; each field says what it is for."""

    relevant_from: int = option(1, "The least grade that counts as relevant.", group="What", least=1)
    unjudged: Literal["irrelevant", "skip"] = option(
        "irrelevant", "What candidates without a judgment count as.", group="What"
    )
    held_out: float = option(0.3, "Share of the queries that nothing is fitted on, to measure the map on.", most=1.0)
    seed: int = option(0, "Seed of the split of queries.", least=0)

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}: give a share of the queries between 0 and 1, such as 0.3")
