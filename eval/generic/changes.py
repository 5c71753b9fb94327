"""What changed from one model to the other, sample by sample: gains, forgetting, and what can't be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.comparison import estimate, tested
from r1ranker_ir.eval.measuring.settings import ComparisonSettings
from r1ranker_ir.eval.measuring.significance import ROUNDING, MeanEstimate, correct

from .answers import Answers, Measured

Verdict = Literal["gain", "forgetting", "not shown"]


@dataclass(frozen=True)
class Change:
    """The second model minus the first one, by one measure of one task."""

    measured: Measured
    before: MeanEstimate  # with the bootstrap's interval
    after: MeanEstimate
    difference: MeanEstimate  # with the test's own interval
    per_sample: Mapping[str, float]
    p_value: float
    corrected: float  # for all measures
    significant: bool
    higher_is_better: bool

    @property
    def verdict(self) -> Verdict:
        """What may be said of it."""
        if not self.significant:
            return "not shown"
        return "gain" if (self.difference.mean > 0) is self.higher_is_better else "forgetting"

    @property
    def better(self) -> int:
        """Samples that the second model does better."""
        return sum((value > 0) is self.higher_is_better for value in self.per_sample.values() if value)

    @property
    def worse(self) -> int:
        """Samples that the second model does worse."""
        return sum((value < 0) is self.higher_is_better for value in self.per_sample.values() if value)


@dataclass(frozen=True)
class Changes:
    """Two models beside each other."""

    before: Answers
    after: Answers
    changes: tuple[Change, ...]
    settings: ComparisonSettings

    def by(self, verdict: Verdict) -> tuple[Change, ...]:
        """The changes of which that may be said."""
        return tuple(change for change in self.changes if change.verdict == verdict)


def changes_between(before: Answers, after: Answers, settings: ComparisonSettings | None = None) -> Changes:
    """Pairs the two models' values of each sample, and tests the differences."""
    settings = settings or ComparisonSettings()
    both = [measured for measured in before.scores if measured in after.scores]
    if not both:
        raise InputError(
            f"none of the tasks {', '.join(before.tasks)} has a measure that is a mean over samples: name others"
        )
    per_sample = [_differences(before.scores[measured], after.scores[measured]) for measured in both]
    tests = [tested(list(values.values()), settings) for values in per_sample]
    corrected = correct([p_value for p_value, _ in tests], settings.correction)
    changes = []
    for measured, values, (p_value, interval), final in zip(both, per_sample, tests, corrected, strict=True):
        earlier, later = (estimate(list(each.scores[measured].values()), settings) for each in (before, after))
        difference = MeanEstimate(math.fsum(values.values()) / len(values), interval)
        better, marked = before.higher_is_better[measured], final <= settings.alpha
        changes.append(Change(measured, earlier, later, difference, values, p_value, final, marked, better))
    return Changes(before, after, tuple(changes), settings)


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The second minus the first, without rounding errors; both were asked the same samples."""
    values = {sample: after[sample] - value for sample, value in before.items()}
    return {sample: value if abs(value) > ROUNDING else 0.0 for sample, value in values.items()}
