"""What a synthesis has come to: what was kept, what was dropped and why, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from .costs import Cost
from .judged import KEPT


@dataclass
class Report:
    """Counts of what was dropped, by step and reason; costs by step; means over the lists."""

    written: bool = False
    queries: int = 0
    lists: int = 0
    rl_samples: int = 0
    sft_samples: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    agreement: float | None = None
    ndcg: float | None = None
    judged: dict[str, dict[str, float]] = field(default_factory=dict)
    finished_before: int = 0

    def of(self, step: str) -> Counter[str]:
        """What a step has dropped."""
        return self.dropped.setdefault(step, Counter())

    def add(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Takes the means of the lists that were kept, which stand beside their outcomes."""
        kept = [each["consistency"] for each in outcomes if each["reason"] == KEPT]
        taus = [each["agreement"] for each in kept if each["agreement"] is not None]
        self.lists = len(kept)
        self.agreement = fmean(taus) if taus else None
        self.ndcg = fmean(fmean(each["ndcg"]) for each in kept) if kept else None

    def lines(self) -> list[str]:
        """The report in words, one line per subject."""
        how = "written" if self.written else "read"
        tau = "" if self.agreement is None else f", mean Kendall's tau {self.agreement:.3f}"
        means = "" if self.ndcg is None else f"; mean nDCG@10 by the labels {self.ndcg:.3f}{tau}"
        lines = [
            f"{self.lists} lists of {self.queries} queries ({how}) kept{means}",
            f"{self.rl_samples} samples for reinforcement learning, {self.sft_samples} with answers for fine-tuning",
        ]
        for step, reasons in self.dropped.items():
            if reasons:
                why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
                lines.append(f"{reasons.total()} {step} dropped: {why}")
        for name, found in self.judged.items():
            lines.append(
                f"by the corpus's judgments, {found['lists']:.0f} {name} lists: nDCG@10 {found['nDCG@10']:.3f} (first "
                f"stage {found['nDCG@10 of the first stage']:.3f}), {100 * found['positives judged relevant']:.0f}% of "
                "the positives judged relevant"
            )
        if self.finished_before:
            lines.append(f"{self.finished_before} steps of an earlier run were taken as they were")
        lines += [f"cost of {step}: {cost.line()}" for step, cost in self.costs.items()]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return vars(self) | {"costs": {step: asdict(cost) for step, cost in self.costs.items()}}
