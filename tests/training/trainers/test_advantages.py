"""Generalised advantage estimation, whitening, the value loss and steps of episodes, by hand and in slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.training.trainers.advantages import (
    clipped_value_loss,
    explained_variance,
    gae,
    masked_moments,
    step_advantages,
    whiten,
)

NAN = float("nan")


def test_gae_equals_a_calculation_by_hand_whatever_padding_holds() -> None:
    # gamma 0.5, lambda 0.5, so a far advantage counts a quarter. From the back:
    #   token 2: delta = 4 + 0.5 * 0 - 2 = 2    advantage = 2
    #   token 1: delta = 0 + 0.5 * 2 - 3 = -2   advantage = -2 + 0.25 * 2 = -1.5
    #   token 0: delta = 1 + 0.5 * 3 - 1 = 1.5  advantage = 1.5 + 0.25 * -1.5 = 1.125
    # and a return is advantage plus value. Second row: 5 - 2 = 3; then 0 + 0.5 * 2 - 1 + 0.25 * 3 = 0.75.
    rewards = torch.tensor([[1.0, 0.0, 4.0, 7.0], [0.0, 5.0, 7.0, 7.0]])
    values = torch.tensor([[1.0, 3.0, 2.0, 9.0], [1.0, 2.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    advantages, returns = gae(rewards, values, mask, 0.5, 0.5)
    assert advantages.tolist() == [[1.125, -1.5, 2.0, 0.0], [0.75, 3.0, 0.0, 0.0]]
    assert returns.tolist() == [[2.125, 1.5, 4.0, 0.0], [1.75, 5.0, 0.0, 0.0]]


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[list[float], list[float], list[bool]]:
    """Rewards, values, and which tokens count."""
    count = draw(st.integers(1, 7))
    numbers = st.lists(st.floats(-3, 3, width=32), min_size=count, max_size=count)
    return draw(numbers), draw(numbers), draw(st.lists(st.booleans(), min_size=count, max_size=count))


@given(rollouts(), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_a_slow_sum_over_the_tokens_that_count(
    rollout: tuple[list[float], list[float], list[bool]], gamma: float, lambda_: float
) -> None:
    rewards, values, mask = (torch.tensor([each]) for each in rollout)
    kept = mask[0].nonzero().flatten()
    own = values[0, kept]
    deltas = rewards[0, kept] + gamma * torch.cat([own, torch.zeros(1)])[1:] - own
    expected = [
        sum((gamma * lambda_) ** ahead * float(delta) for ahead, delta in enumerate(deltas[token:]))
        for token in range(len(deltas))
    ]
    advantages, returns = gae(rewards, values, mask, gamma, lambda_)
    assert advantages[0, kept].tolist() == pytest.approx(expected, abs=1e-4)
    assert returns[0, kept].tolist() == pytest.approx((advantages[0, kept] + own).tolist(), abs=1e-4)
    assert not advantages[~mask].any()


@given(rollouts(), st.floats(0, 1))
def test_the_limits_of_lambda(rollout: tuple[list[float], list[float], list[bool]], gamma: float) -> None:
    rewards, values = torch.tensor([rollout[0]]), torch.tensor([rollout[1]])
    # lambda 1 without discount: the return is what is still to come, whatever the values say.
    _, returns = gae(rewards, values, torch.ones_like(values), 1.0, 1.0)
    assert torch.allclose(returns, rewards.flip(1).cumsum(1).flip(1), atol=1e-4)
    # lambda 0: one reward and the next value.
    _, returns = gae(rewards, values, torch.ones_like(values), gamma, 0.0)
    assert torch.allclose(returns, rewards + gamma * torch.cat([values[:, 1:], torch.zeros(1, 1)], dim=1), atol=1e-4)


def test_whitening_looks_at_the_tokens_that_count_of_all_processes() -> None:
    # 1, 2, 3 and 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5.
    values, mask = torch.tensor([[1.0, 2.0, 100.0], [3.0, 6.0, -50.0]]), torch.tensor([[1, 1, 0], [1, 1, 0]])
    assert [each.item() for each in masked_moments(values, mask)] == [3.0, 3.5]
    expected = torch.tensor([[-2.0, -1.0, 0.0], [0.0, 3.0, 0.0]]) / math.sqrt(3.5)
    torch.testing.assert_close(whiten(values, mask), expected)
    # What the other process would add, in the order in which sums are asked for: count, sum, squares around 3.
    others = {0: iter([2.0, 9.0, 9.0]), 1: iter([2.0, 3.0, 5.0])}
    for row, more in others.items():
        part = whiten(values[row], mask[row], total=lambda value, more=more: value + next(more))
        torch.testing.assert_close(part, expected[row])


@pytest.mark.parametrize("mask", [[1, 1, 1], [0, 1, 0], [0, 0, 0]])
def test_nothing_is_divided_by_zero(mask: list[int]) -> None:
    same, counts = torch.full((1, 3), 5.0), torch.tensor([mask])
    assert whiten(same, counts).tolist() == [[0.0, 0.0, 0.0]]
    assert math.isnan(explained_variance(same, same, counts))
    assert [each.item() for each in clipped_value_loss(same, same, same, counts, 0.2)] == [0.0, 0.0]


def test_explained_variance() -> None:
    returns, mask = torch.tensor([[0.0, 1.0, 2.0, 9.0]]), torch.tensor([[1, 1, 1, 0]])
    # A constant error has no variance; where half of every return is foreseen, the rest varies half as far.
    for values, expected in ((returns + 7, 1.0), (0 * returns, 0.0), (returns / 2, 0.75), (-returns, -3.0)):
        assert explained_variance(values, returns, mask) == pytest.approx(expected)


def test_value_loss_equals_a_calculation_by_hand() -> None:
    # Old values 0, returns 1, clip 0.2, and the larger of two squared errors counts:
    #   0.1 is within the clip: both (1 - 0.1)^2 = 0.81
    #   0.5 becomes 0.2: (1 - 0.2)^2 = 0.64 beats 0.25, and the clip decides
    #  -0.5 becomes -0.2: its own (1 + 0.5)^2 = 2.25 beats 1.44
    # Half the mean of 0.81, 0.64 and 2.25 is 3.7 / 6; the last token does not count.
    values = torch.tensor([[0.1, 0.5, -0.5, 8.0]], requires_grad=True)
    loss, share = clipped_value_loss(values, torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([[1, 1, 1, 0]]), 0.2)
    assert (loss.item(), share.item()) == (pytest.approx(3.7 / 6), pytest.approx(1 / 3))
    loss.backward()
    # Where the clip decides, nothing pulls; elsewhere (value - return) / 3.
    assert values.grad is not None
    assert values.grad[0].tolist() == pytest.approx([-0.3, 0.0, -0.5, 0.0])


def test_each_step_is_compared_with_the_same_step_of_other_episodes() -> None:
    # Two lists, three episodes, three steps; the first list's second episode ends at step 1, the third at step 2.
    rewards = torch.tensor([
        [[1.0, 1.0, 0.0], [0.0, NAN, NAN], [0.5, 0.0, NAN]],
        [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, NAN, NAN]],
    ])  # fmt: skip
    expected = torch.tensor([
        [[0.5, 0.5, 0.0], [-0.5, 0.0, 0.0], [0.0, -0.5, 0.0]],
        [[0.0, -0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]],
    ])  # fmt: skip
    advantages, varies = step_advantages(rewards, scale="none")
    torch.testing.assert_close(advantages, expected)
    assert varies.tolist() == [[True, True, False], [False, True, False]]
    # Of 1, 0, 0.5 the sample deviation is 0.5; of two values 0 and 1 it is the root of one half.
    scaled, _ = step_advantages(rewards, scale="group")
    torch.testing.assert_close(scaled[0, :, 0], expected[0, :, 0] / 0.5001)
    torch.testing.assert_close(scaled[1, :, 1], expected[1, :, 1] / (math.sqrt(0.5) + 1e-4))
    in_batch, _ = step_advantages(rewards, scale="batch")
    torch.testing.assert_close(in_batch, expected / (rewards[~rewards.isnan()].std() + 1e-4))


def test_a_discount_counts_what_follows() -> None:
    rewards = torch.tensor([[[1.0, 0.0, 1.0], [1.0, 1.0, NAN]]])
    # Returns with 0.5: 1 + 0/2 + 1/4, 0 + 1/2, 1 and 1 + 1/2, 1.
    advantages, _ = step_advantages(rewards, gamma=0.5, scale="none")
    torch.testing.assert_close(advantages, torch.tensor([[[-0.125, -0.25, 0.0], [0.125, 0.25, 0.0]]]))
    # Sums of the rest: 2, 1, 1 and 2, 1.
    advantages, varies = step_advantages(rewards, gamma=1.0, scale="none")
    assert not advantages.any() and not varies.any()


STEPS = st.sampled_from([NAN, -1.0, 0.0, 0.5, 1.0])


@given(
    st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(STEPS, min_size=n, max_size=n), min_size=2, max_size=5)),
    st.floats(0, 1),
)
def test_advantages_of_a_step_balance(episodes: list[list[float]], gamma: float) -> None:
    rewards = torch.tensor([episodes], dtype=torch.float64)
    advantages, varies = step_advantages(rewards, gamma=gamma)
    assert not advantages.isnan().any() and not advantages[rewards.isnan()].any()
    assert advantages.sum(dim=1).abs().max() < 1e-6
    assert advantages[0][:, ~varies[0]].abs().sum() < 1e-2
