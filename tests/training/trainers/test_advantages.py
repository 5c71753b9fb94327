"""Generalised advantage estimation, whitening and the value loss, against arithmetic by hand and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.training.trainers.advantages import clipped_value_loss, explained_variance, gae, masked_moments, whiten


def test_gae_equals_a_calculation_by_hand() -> None:
    # gamma 0.5, lambda 0.5, so a far advantage counts a quarter. From the back:
    #   token 2: delta = 4 + 0.5 * 0 - 2 = 2    advantage = 2
    #   token 1: delta = 0 + 0.5 * 2 - 3 = -2   advantage = -2 + 0.25 * 2 = -1.5
    #   token 0: delta = 1 + 0.5 * 3 - 1 = 1.5  advantage = 1.5 + 0.25 * -1.5 = 1.125
    # and a return is advantage plus value: 2.125, 1.5, 4.
    advantages, returns = gae(
        torch.tensor([[1.0, 0.0, 4.0]]), torch.tensor([[1.0, 3.0, 2.0]]), torch.ones(1, 3), gamma=0.5, lambda_=0.5
    )
    assert advantages.tolist() == [[1.125, -1.5, 2.0]]
    assert returns.tolist() == [[2.125, 1.5, 4.0]]


def test_padding_changes_nothing_whatever_it_holds() -> None:
    rewards = torch.tensor([[1.0, 0.0, 4.0, 7.0], [0.0, 5.0, 7.0, 7.0]])
    values = torch.tensor([[1.0, 3.0, 2.0, 9.0], [1.0, 2.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    advantages, returns = gae(rewards, values, mask, 0.5, 0.5)
    # Second row: token 1: 5 - 2 = 3; token 0: 0 + 0.5 * 2 - 1 + 0.25 * 3 = 0.75.
    assert advantages.tolist() == [[1.125, -1.5, 2.0, 0.0], [0.75, 3.0, 0.0, 0.0]]
    assert returns.tolist() == [[2.125, 1.5, 4.0, 0.0], [1.75, 5.0, 0.0, 0.0]]


def numbers(count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(-3, 3, width=32), min_size=count, max_size=count)


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[list[float], list[float], list[bool]]:
    count = draw(st.integers(1, 7))
    mask = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return draw(numbers(count)), draw(numbers(count)), mask


def slow_advantages(rewards: list[float], values: list[float], gamma: float, lambda_: float) -> list[float]:
    """The definition: sums of discounted deltas, each looked up forwards."""
    after = [*values, 0.0][1:]
    deltas = [reward + gamma * later - value for reward, later, value in zip(rewards, after, values, strict=True)]
    return [
        sum((gamma * lambda_) ** ahead * delta for ahead, delta in enumerate(deltas[token:]))
        for token in range(len(deltas))
    ]


@given(rollouts(), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_a_slow_sum_over_the_tokens_that_count(
    rollout: tuple[list[float], list[float], list[bool]], gamma: float, lambda_: float
) -> None:
    rewards, values, mask = rollout
    kept = [place for place, counts in enumerate(mask) if counts]
    expected = slow_advantages([rewards[i] for i in kept], [values[i] for i in kept], gamma, lambda_)
    advantages, returns = gae(torch.tensor([rewards]), torch.tensor([values]), torch.tensor([mask]), gamma, lambda_)
    assert advantages[0, kept].tolist() == pytest.approx(expected, abs=1e-4)
    assert returns[0, kept].tolist() == pytest.approx(
        [advantage + values[i] for advantage, i in zip(expected, kept, strict=True)], abs=1e-4
    )
    assert not advantages[0, [not counts for counts in mask]].any()


@given(rollouts(), st.floats(0, 1))
def test_the_limits_of_lambda(rollout: tuple[list[float], list[float], list[bool]], gamma: float) -> None:
    rewards, values = torch.tensor([rollout[0]]), torch.tensor([rollout[1]])
    mask = torch.ones_like(values)
    # lambda 1 without discount: the return is what is still to come, whatever the values say.
    _, returns = gae(rewards, values, mask, 1.0, 1.0)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(returns, to_come, atol=1e-4)
    # lambda 0: one reward and the next value.
    _, returns = gae(rewards, values, mask, gamma, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros(1, 1)], dim=1)
    assert torch.allclose(returns, rewards + gamma * following, atol=1e-4)


def test_whitening_looks_at_the_tokens_that_count() -> None:
    # 1, 2, 3 and 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5.
    values = torch.tensor([[1.0, 2.0, 100.0], [3.0, 6.0, -50.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    mean, variance = masked_moments(values, mask)
    assert (mean.item(), variance.item()) == (3.0, 3.5)
    expected = [[-2 / math.sqrt(3.5), -1 / math.sqrt(3.5), 0.0], [0.0, 3 / math.sqrt(3.5), 0.0]]
    for row, wanted in zip(whiten(values, mask).tolist(), expected, strict=True):
        assert row == pytest.approx(wanted)


def test_whitening_over_processes_uses_the_moments_of_all() -> None:
    halves = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])]
    # What the other process would add, in the order in which sums are asked for: count, sum, squares around 3.
    others = {0: iter([2.0, 9.0, 9.0]), 1: iter([2.0, 3.0, 5.0])}
    parts = [
        whiten(half, torch.ones(2), total=lambda value, more=others[number]: value + next(more))
        for number, half in enumerate(halves)
    ]
    assert torch.allclose(torch.cat(parts), whiten(torch.cat(halves), torch.ones(4)))


@pytest.mark.parametrize("mask", [[1, 1, 1], [0, 1, 0], [0, 0, 0]])
def test_nothing_is_divided_by_zero(mask: list[int]) -> None:
    same = torch.full((1, 3), 5.0)
    assert whiten(same, torch.tensor([mask])).tolist() == [[0.0, 0.0, 0.0]]
    assert math.isnan(explained_variance(same, same, torch.tensor([mask])))
    loss, share = clipped_value_loss(same, same, same, torch.tensor([mask]), 0.2)
    assert (loss.item(), share.item()) == (0.0, 0.0)


def test_explained_variance() -> None:
    returns, mask = torch.tensor([[0.0, 1.0, 2.0, 9.0]]), torch.tensor([[1, 1, 1, 0]])
    assert explained_variance(returns + 7, returns, mask) == pytest.approx(1.0)  # a constant error has no variance
    assert explained_variance(torch.zeros(1, 4), returns, mask) == pytest.approx(0.0)
    # Half of every return is foreseen: the rest varies half as far, a quarter of the variance.
    assert explained_variance(returns / 2, returns, mask) == pytest.approx(0.75)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3.0)


def test_value_loss_equals_a_calculation_by_hand() -> None:
    # Old values 0, returns 1, clip 0.2, and the larger of two squared errors counts:
    #   0.1 is within the clip: both (1 - 0.1)^2 = 0.81
    #   0.5 becomes 0.2: (1 - 0.2)^2 = 0.64 beats 0.25, and the clip decides
    #  -0.5 becomes -0.2: its own (1 + 0.5)^2 = 2.25 beats 1.44
    # Half the mean of 0.81, 0.64 and 2.25 is 3.7 / 6; the last token does not count.
    values = torch.tensor([[0.1, 0.5, -0.5, 8.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0]])
    loss, share = clipped_value_loss(values, torch.zeros(1, 4), torch.ones(1, 4), mask, 0.2)
    assert loss.item() == pytest.approx(3.7 / 6)
    assert share.item() == pytest.approx(1 / 3)
    loss.backward()
    # Where the clip decides, nothing pulls; elsewhere (value - return) / 3.
    assert values.grad is not None
    assert values.grad[0].tolist() == pytest.approx([-0.3, 0.0, -0.5, 0.0])
