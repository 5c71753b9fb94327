"""Rewards of each source in units of their own spread, so that no source of a mixture dominates the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from r1ranker_ir.errors import InputError

from .callback_state import KeptCallback
from .totals import replace_last, total_rewards


@dataclass
class RunningMoments:
    """Mean and spread of numbers that come one after another.

    Welford's algorithm (Technometrics 4, 1962): for the n-th number x, with d = x − mean, mean ← mean + d/n and
    m2 ← m2 + d·(x − mean), the mean being the new one.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Takes in further numbers."""
        for value in values:
            self.count += 1
            distance = value - self.mean
            self.mean += distance / self.count
            self.m2 += distance * (value - self.mean)

    @property
    def std(self) -> float:
        """The sample standard deviation, √(m2/(n − 1)); 0 for less than two numbers."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.count > 1 else 0.0


class RewardNormaliser(KeptCallback):
    """Divides rewards by the running standard deviation of their source's total rewards.

    A source's total is the weighted sum over the reward functions. It is not shifted by its mean: baselines of groups
    take any shift away by themselves, PPO's value head learns it, and a reward keeps its sign and its zero. With TRL's
    `scale_rewards="group"`, which divides by the spread of each group, dividing by anything before changes nothing.
    """

    def __init__(self, smallest_std: float = 0.1) -> None:
        if not smallest_std > 0:
            raise InputError(f"the smallest standard deviation is {smallest_std}: give a number above 0")
        self.smallest_std = smallest_std
        self.moments: dict[str, RunningMoments] = {}

    def divisor(self, source: str) -> float:
        """What a source's rewards are divided by."""
        std = self.moments[source].std if source in self.moments else 0.0
        return max(std, self.smallest_std) if std > 0 else 1.0

    def normalise(self, rewards: torch.Tensor, weights: torch.Tensor, sources: Sequence[str]) -> torch.Tensor:
        """Takes in rewards and returns them divided, those of a row all by the same number."""
        if len(sources) != len(rewards):
            raise InputError(f"{len(sources)} sources for {len(rewards)} rows of rewards: give one each")
        for source, total in zip(sources, total_rewards(rewards, weights).tolist(), strict=True):
            if not math.isnan(total):
                self.moments.setdefault(source, RunningMoments()).add([total])
        divisors = {source: self.divisor(source) for source in set(sources)}
        return rewards / rewards.new_tensor([divisors[source] for source in sources]).unsqueeze(1)

    def metrics(self) -> dict[str, float]:
        """Mean and divisor of each source's total rewards so far."""
        found = {}
        for source, moments in sorted(self.moments.items()):
            found[f"reward_mean/{source}"] = moments.mean
            found[f"reward_divisor/{source}"] = self.divisor(source)
        return found

    def kept(self) -> dict[str, Any]:
        """Each source's moments."""
        return {"moments": {source: list(vars(own).values()) for source, own in self.moments.items()}}

    def take_over(self, kept: dict[str, Any]) -> None:
        """Goes on with the moments of each source."""
        self.moments = {
            source: RunningMoments(int(count), float(mean), float(m2))
            for source, (count, mean, m2) in kept["moments"].items()
        }


def log_raw_rewards(
    metrics: dict[str, list[float]],
    table: dict[str, Any],
    rewards: torch.Tensor,
    weights: torch.Tensor,
    names: Sequence[str],
) -> None:
    """Writes rewards as they were before normalising over what TRL has just logged of the normalised ones."""
    columns = [(f"rewards/{name}/mean", f"rewards/{name}/std", rewards[:, place]) for place, name in enumerate(names)]
    for mean_name, std_name, values in [*columns, ("reward", "reward_std", total_rewards(rewards, weights))]:
        scored = values[~values.isnan()].tolist()
        moments = RunningMoments()
        moments.add(scored)
        metrics[mean_name][-1] = moments.mean if scored else math.nan
        metrics[std_name][-1] = moments.std if scored else math.nan
    for place, name in enumerate(names):
        replace_last(table[name], rewards[:, place].tolist())
