"""PPO's arithmetic on tokens (advantage estimation, whitening, the clipped value loss), and advantages of episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

_EPSILON = 1e-8

Total = Callable[[torch.Tensor], torch.Tensor]


def _of_one_process(value: torch.Tensor) -> torch.Tensor:
    return value


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lambda_: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates how much better each token was than its state promised (Schulman et al. 2016, equations 11 to 16).

    From the last token to the first, with the value after the last one 0: delta_t = reward_t + gamma * value_(t+1) -
    value_t, advantage_t = delta_t + gamma * lambda * advantage_(t+1), and return_t = advantage_t + value_t.
    """
    counts = mask.bool()
    advantages = torch.zeros_like(values)
    next_value = next_advantage = values.new_zeros(values.shape[0])
    for token in reversed(range(values.shape[1])):
        here = counts[:, token]
        delta = rewards[:, token] + gamma * next_value - values[:, token]
        next_advantage = torch.where(here, delta + gamma * lambda_ * next_advantage, next_advantage)
        next_value = torch.where(here, values[:, token], next_value)
        advantages[:, token] = next_advantage
    return advantages.masked_fill(~counts, 0.0), (advantages + values).masked_fill(~counts, 0.0)


def masked_moments(
    values: torch.Tensor, mask: torch.Tensor, total: Total = _of_one_process
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes mean and (population) variance of the entries that count."""
    weights = mask.to(values.dtype)
    count = total(weights.sum()).clamp(min=1.0)
    mean = total((values * weights).sum()) / count
    return mean, total(((values - mean).square() * weights).sum()) / count


def whiten(values: torch.Tensor, mask: torch.Tensor, total: Total = _of_one_process) -> torch.Tensor:
    """Shifts and scales the entries that count to mean 0 and variance 1; equal entries all become 0."""
    mean, variance = masked_moments(values, mask, total)
    return ((values - mean) * torch.rsqrt(variance + _EPSILON)).masked_fill(~mask.bool(), 0.0)


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, cliprange: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes the value loss: half the mean over tokens of the larger squared error, of the value and of its clip."""
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    free, held = (values - returns).square(), (clipped - returns).square()
    loss, _ = masked_moments(torch.maximum(free, held), mask)
    share, _ = masked_moments((held > free).to(values.dtype), mask)
    return 0.5 * loss, share


def explained_variance(
    values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, total: Total = _of_one_process
) -> float:
    """Computes how much of the returns' variance the values foresee: 1 − Var(returns − values) / Var(returns)."""
    _, unforeseen = masked_moments(returns - values, mask, total)
    _, variance = masked_moments(returns, mask, total)
    return float(1.0 - unforeseen / variance) if variance > _EPSILON else float("nan")


def step_advantages(
    rewards: torch.Tensor, *, gamma: float = 0.0, scale: Literal["group", "batch", "none"] = "group"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compares each step with the same step of the other episodes of its list.

    With r the rewards, the return of episode g at step s is R(g, s) = Σ_{k ≥ s} γ^(k−s) · r(g, k) over the steps that
    were played. Its advantage is A(g, s) = (R(g, s) − mean_s) / (σ + 10⁻⁴), where mean_s is the mean over the episodes
    of the list that played step s. σ is the sample standard deviation of R over these episodes (`group`) or over all
    steps of the batch (`batch`); `none` leaves the division out. A step that one episode alone played has advantage 0.

    This is GRPO's advantage (arXiv 2402.03300), with (list, step) for its group; rewards have the shape (lists,
    episodes, steps) and are NaN where nothing was played. Also returned is whether a step's rewards vary.
    """
    returns = torch.zeros_like(rewards)
    rest = torch.zeros_like(rewards[..., 0])
    for step in reversed(range(rewards.shape[-1])):
        rest = rewards[..., step].nan_to_num(0.0) + gamma * rest
        returns[..., step] = rest
    played = ~rewards.isnan()
    count = played.sum(dim=1, keepdim=True)
    mean = torch.where(played, returns, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(played, returns - mean, 0.0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    varies = (deviation > 1e-6).squeeze(1)
    if scale == "none":
        return centred, varies
    if scale == "batch":
        deviation = returns[played].std() if played.sum() > 1 else torch.zeros(())
    return centred / (deviation + 1e-4), varies
