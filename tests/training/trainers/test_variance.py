"""Groups without variance in their rewards: found, dropped from the loss, or replaced by others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.training.trainers.variance import ZeroVariance, drop_rows, replace_groups, zero_variance_groups

NAN = float("nan")


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """What `accelerator.gather` does where there is one process."""
    return tensor


def coded_batch(rows: int, tokens: int = 3) -> dict[str, torch.Tensor]:
    """A batch each of whose entries names its row; completions have 1, 2, 3, 1, … tokens."""
    places = torch.arange(rows)
    return {
        "prompt_ids": places.unsqueeze(1).expand(rows, tokens) + 100,
        "completion_mask": (torch.arange(tokens) <= (places % tokens).unsqueeze(1)).long(),
        "advantages": places.float(),
        "num_items_in_batch": torch.tensor(-1),
        "old_per_token_logps": places.unsqueeze(1).expand(rows, tokens).float() + 300,
    }


def test_groups_without_variance_by_hand() -> None:
    rewards = torch.tensor([
        *([1.0, 0.0], [0.0, 1.0]),  # equal sums of unequal rewards
        *([0.1, 0.2], [0.3, 0.0]),  # equal but for rounding
        *([1.0, NAN], [1.0, NAN]),
        *([NAN, NAN], [2.0, 0.0]),  # one completion with a reward
        *([NAN, NAN], [NAN, NAN]),
        *([0.0, 0.0], [0.0, 0.01]),
        *([-1.0, NAN], [1.0, NAN]),
    ])  # fmt: skip
    for weights, by_function, expected in (
        ([1.0, 1.0], False, [True, True, True, True, True, False, False]),
        ([1.0, 1.0], True, [False, False, True, True, True, False, False]),
        ([0.0, 1.0], False, [False, False, True, True, True, False, True]),  # what weighs nothing does not count
    ):
        found = zero_variance_groups(rewards, torch.tensor(weights), 2, by_function=by_function)
        assert found.tolist() == expected
    assert zero_variance_groups(rewards[:4], torch.ones(2), 4).tolist() == [False]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 9))
def test_replaced_rows_are_copies_in_every_tensor(flags: list[bool], num_generations: int, seed: int) -> None:
    old = coded_batch(len(flags) * num_generations)
    new, origin = replace_groups(old, torch.tensor(flags), num_generations, seed=str(seed))
    assert all(torch.equal(new[name], value[origin] if value.ndim else value) for name, value in old.items())
    sources = origin.view(-1, num_generations)
    assert torch.equal(sources - sources[:, :1], torch.arange(num_generations).expand_as(sources))  # whole groups
    donors = [group // num_generations for group in sources[:, 0].tolist()]
    for group, (is_zero, donor) in enumerate(zip(flags, donors, strict=True)):
        assert donor == group if not is_zero or all(flags) else not flags[donor]
    uses = [donors.count(group) for group, is_zero in enumerate(flags) if not is_zero]
    assert not uses or max(uses) - min(uses) <= 1


def test_the_seed_chooses_the_donors() -> None:
    flags = torch.tensor([True] + [False] * 15)
    chosen = [int(replace_groups(coded_batch(16), flags, 1, seed=str(seed))[1][0]) for seed in (*range(30), 3)]
    assert len(set(chosen)) > 5 and chosen[3] == chosen[-1]


@pytest.mark.parametrize(
    ("flags", "rows", "group", "first_row", "origin"),
    [
        # Groups of 4 on processes of 6 rows: the second group lies on both, the first and the third on one each.
        *(([True, False, True], 6, 4, first_row, [0, 1, 2, 3, 4, 5]) for first_row in (0, 6)),
        ([True, False, False, True, True, False], 9, 3, 9, [6, 7, 8] * 3),  # groups 3, 4 and 5
    ],
)
def test_groups_on_two_processes_are_left_alone(
    flags: list[bool], rows: int, group: int, first_row: int, origin: list[int]
) -> None:
    _, found = replace_groups(coded_batch(rows), torch.tensor(flags), group, first_row=first_row)
    assert found.tolist() == origin


def test_dropped_rows_leave_the_count_of_tokens() -> None:
    old, dropped = coded_batch(4), torch.tensor([False, False, True, True])
    new = drop_rows(old, dropped, "dapo", alone)
    assert new["num_items_in_batch"] == 3
    assert torch.equal(new["completion_mask"], old["completion_mask"])
    assert new["tool_mask"].tolist() == [[1] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert "loss_scale" not in new and "tool_mask" not in old
    # A mask that is there already goes on masking.
    new = drop_rows({**old, "tool_mask": torch.tensor([[0, 1, 1]] * 4)}, dropped, "grpo", alone)
    assert new["tool_mask"].tolist() == [[0, 1, 1]] * 2 + [[0] * 3] * 2
    assert (new["num_items_in_batch"], new["loss_scale"]) == (1, 2)
    nothing = drop_rows(old, torch.tensor([True] * 4), "grpo", alone)
    assert (nothing["num_items_in_batch"], nothing["loss_scale"]) == (0, 1)
    # Over processes: the other one's tokens; its rows and rows left.
    others = {1: torch.tensor([5]), 2: torch.tensor([[4.0, 4.0]])}
    new = drop_rows(old, dropped, "dr_grpo", lambda tensor: torch.cat([tensor, others[tensor.ndim]]))
    assert (new["num_items_in_batch"], new["loss_scale"].item()) == (3 + 5, pytest.approx(8 / 6))


@pytest.mark.parametrize(
    ("mode", "flags", "group", "kept", "advantages", "counts"),
    [
        ("keep", [1, 0, 1, 1], 2, None, range(8), (3, 0, 0)),
        ("drop", [1, 0, 1, 1], 2, [0, 0, 1, 1, 0, 0, 0, 0], range(8), (3, 3, 0)),
        ("replace", [1, 0, 1, 1], 2, None, [2, 3] * 4, (3, 0, 3)),
        ("replace", [1, 1, 1, 1], 2, [0] * 8, range(8), (4, 4, 0)),  # nothing to copy
        # Process 0 of 2, groups of 5 on 8 rows each: of group 1 three rows are here.
        ("replace", [0, 1, 0, 0], 5, [1] * 5 + [0] * 3, range(8), (1, 0.6, 0)),
    ],
)
def test_a_batch_is_handled_and_counted(
    mode: Any, flags: list[int], group: int, kept: Any, advantages: Any, counts: tuple[float, ...]
) -> None:
    handler = ZeroVariance(mode, num_generations=group, loss_type="dapo")
    batch, told = handler.apply(coded_batch(8), torch.tensor(flags).bool(), alone)
    assert (batch["tool_mask"][:, 0].tolist() if "tool_mask" in batch else None) == kept
    assert batch["advantages"].tolist() == list(advantages)
    assert list(told.values()) == [pytest.approx(count) for count in counts]
    if mode == "replace" and kept is None:
        assert batch["num_items_in_batch"] == 4 * (3 + 1)
    assert handler.batches == 1


def hand_made_batch(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(5) < torch.tensor([5, 3, 1, 4] * (rows // 4)).unsqueeze(1)).long()
    return {
        "prompt_ids": torch.randint(10, 1000, (rows, 4), generator=generator),
        "prompt_mask": torch.ones(rows, 4, dtype=torch.long),
        "completion_ids": torch.randint(10, 1000, (rows, 5), generator=generator),
        "completion_mask": mask,
        "advantages": torch.randn(rows, generator=generator),
        "ref_per_token_logps": -7 + torch.randn(rows, 5, generator=generator),
        "old_per_token_logps": -7 + torch.randn(rows, 5, generator=generator),
        "num_items_in_batch": mask.sum(),
    }


def test_dropped_rows_are_as_if_they_had_never_been(bench: Any) -> None:
    trainer = bench.trainer(zero_variance="drop", beta=0.1)
    trainer.model.eval()
    batch = hand_made_batch(8)
    dropped = torch.tensor([True, False, True, False, False, True, True, True])
    without = {name: value[~dropped] if value.ndim else value for name, value in batch.items()}
    without["num_items_in_batch"] = without["completion_mask"].sum()
    kinds = [(kind, "token") for kind in ("grpo", "dr_grpo", "dapo", "bnpo", "luspo", "sapo", "cispo", "vespo")]
    for loss_type, level in (*kinds, ("grpo", "sequence")):
        trainer.loss_type, trainer.importance_sampling_level = loss_type, level
        losses, gradients = [], []
        for inputs in (without, drop_rows(batch, dropped, loss_type, alone), batch):
            trainer.model.zero_grad()
            losses.append(trainer._compute_loss(trainer.model, inputs))
            losses[-1].backward()
            gradients.append(torch.cat([own.grad.flatten() for own in trainer.model.parameters()]))
        torch.testing.assert_close(losses[1], losses[0], msg=lambda text, name=loss_type: f"{name}: {text}")
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
        assert abs((losses[2] - losses[0]).item()) > 1e-3, loss_type
    assert trainer._compute_loss(trainer.model, drop_rows(batch, torch.ones(8).bool(), "dapo", alone)) == 0
