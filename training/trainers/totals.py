"""Rewards of several functions summed up, and put in the place of what TRL has logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def total_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums over the functions: (rows, functions) to (rows,); NaN for rows that no function scores."""
    totals = (rewards * weights.to(rewards.device)).nansum(dim=1)
    totals[rewards.isnan().all(dim=1)] = torch.nan
    return totals


def replace_last(logged: Any, values: Sequence[float]) -> None:
    """Puts values in the place of as many at the end of a log, a deque that may hold fewer."""
    for _ in range(min(len(logged), len(values))):
        logged.pop()
    logged.extend(values)
