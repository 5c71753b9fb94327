"""Groups without variance in their rewards, and short trainings with all that this and the curriculum do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState

from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.training.trainers.curriculum import list_lengths
from r1ranker_ir.training.trainers.grpo import RankingGRPOTrainer
from r1ranker_ir.training.trainers.variance import (
    GroupCounts,
    ZeroVariance,
    drop_rows,
    replace_groups,
    zero_variance_groups,
)

NAN = float("nan")


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """What `accelerator.gather` does where there is one process."""
    return tensor


def coded_batch(rows: int, tokens: int = 3) -> dict[str, Any]:
    """A batch each of whose entries names its row."""
    places = torch.arange(rows)
    wide = places.unsqueeze(1).expand(rows, tokens).clone()
    return {
        "prompt_ids": wide + 100,
        "prompt_mask": torch.ones(rows, tokens, dtype=torch.long),
        "completion_ids": wide + 200,
        "completion_mask": (torch.arange(tokens) <= (places % tokens).unsqueeze(1)).long(),
        "advantages": places.float(),
        "num_items_in_batch": torch.tensor(-1),
        "old_per_token_logps": wide.float() + 300,
        "ref_per_token_logps": wide.float() + 400,
        "sampling_per_token_logps": wide.float() + 500,
        "importance_sampling_ratio": places.float().unsqueeze(1) + 600,
        "num_images": [f"row {row}" for row in range(rows)],
    }


# --- which groups ----------------------------------------------------------------------------------------------------


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
    weights = torch.ones(2)
    assert zero_variance_groups(rewards, weights, 2).tolist() == [True] * 5 + [False] * 2
    assert zero_variance_groups(rewards, weights, 2, by_function=True).tolist() == [
        *(False, False, True, True, True, False, False)
    ]
    # What weighs nothing does not count.
    assert zero_variance_groups(rewards, torch.tensor([0.0, 1.0]), 2).tolist() == [
        *(False, False, True, True, True, False, True)
    ]
    assert zero_variance_groups(rewards[:4], weights, 4).tolist() == [False]


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0]), min_size=4, max_size=4), st.floats(0.01, 100))
def test_dividing_rewards_changes_nothing(rewards: list[float], divisor: float) -> None:
    tensor = torch.tensor(rewards).unsqueeze(1)
    found = [zero_variance_groups(tensor / by, torch.ones(1), 4).item() for by in (1.0, divisor)]
    assert found == [len(set(rewards)) == 1] * 2


# --- replacing -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 9))
def test_replaced_rows_are_copies_in_every_tensor(flags: list[bool], num_generations: int, seed: int) -> None:
    old = coded_batch(len(flags) * num_generations)
    new, origin = replace_groups(old, torch.tensor(flags), num_generations, seed=str(seed))
    for name, value in old.items():
        if name != "num_items_in_batch":
            expected = value[origin] if isinstance(value, torch.Tensor) else [value[row] for row in origin]
            assert type(new[name]) is type(value)
            assert torch.equal(new[name], expected) if isinstance(value, torch.Tensor) else new[name] == expected
    sources = origin.view(-1, num_generations)
    assert torch.equal(sources - sources[:, :1], torch.arange(num_generations).expand_as(sources))  # whole groups
    donors = [group // num_generations for group in sources[:, 0].tolist()]
    for group, (is_zero, donor) in enumerate(zip(flags, donors, strict=True)):
        assert donor == group if not is_zero or all(flags) else not flags[donor]
    uses = [donors.count(group) for group, is_zero in enumerate(flags) if not is_zero]
    assert not uses or max(uses) - min(uses) <= 1


def test_the_seed_chooses_the_donors() -> None:
    flags = torch.tensor([True] + [False] * 15)
    chosen = [int(replace_groups(coded_batch(16), flags, 1, seed=str(seed))[1][0]) for seed in range(30)]
    assert len(set(chosen)) > 5
    assert int(replace_groups(coded_batch(16), flags, 1, seed="3")[1][0]) == chosen[3]


def test_groups_on_two_processes_are_left_alone() -> None:
    # Groups of 4 on processes of 6 rows: the second group lies on both, the first and the third on one each.
    flags = torch.tensor([True, False, True])
    for first_row in (0, 6):
        _, origin = replace_groups(coded_batch(6), flags, 4, first_row=first_row)
        assert origin.tolist() == list(range(6))
    flags = torch.tensor([True, False, False, True, True, False])
    _, origin = replace_groups(coded_batch(9), flags, 3, first_row=9)  # groups 3, 4 and 5
    assert origin.tolist() == [6, 7, 8] * 3


def test_images_are_refused() -> None:
    batch = {**coded_batch(4), "pixel_values": torch.zeros(7, 2)}
    with pytest.raises(InputError, match="pixel_values of the batch has 7 entries for 4 rows"):
        replace_groups(batch, torch.tensor([True, False]), 2)


# --- dropping --------------------------------------------------------------------------------------------------------


def test_dropped_rows_leave_the_count_of_tokens() -> None:
    old = coded_batch(4)  # completions of 1, 2, 3 and 1 tokens
    new = drop_rows(old, torch.tensor([False, False, True, True]), "dapo", alone)
    assert new["num_items_in_batch"] == 3
    assert torch.equal(new["completion_mask"], old["completion_mask"])
    assert new["tool_mask"].tolist() == [[1] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert "loss_scale" not in new
    assert "tool_mask" not in old
    # A mask that is there already goes on masking.
    masked = {**old, "tool_mask": torch.tensor([[0, 1, 1]] * 4)}
    new = drop_rows(masked, torch.tensor([False, False, True, True]), "grpo", alone)
    assert new["tool_mask"].tolist() == [[0, 1, 1]] * 2 + [[0] * 3] * 2
    assert (new["num_items_in_batch"], new["loss_scale"]) == (1, 2)
    nothing = drop_rows(old, torch.tensor([True] * 4), "grpo", alone)
    assert (nothing["num_items_in_batch"], nothing["loss_scale"]) == (0, 1)


def test_dropped_rows_are_counted_over_processes() -> None:
    others = {1: torch.tensor([5]), 2: torch.tensor([[4.0, 4.0]])}  # tokens; rows and rows left

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, others[tensor.ndim]])

    new = drop_rows(coded_batch(4), torch.tensor([False, False, True, True]), "dr_grpo", gather)
    assert new["num_items_in_batch"] == 3 + 5
    assert new["loss_scale"] == pytest.approx(8 / 6)


def test_a_batch_is_handled_and_counted() -> None:
    flags = torch.tensor([True, False, True, True])
    kept, counts = ZeroVariance("keep", num_generations=2, loss_type="dapo").apply(coded_batch(8), flags, alone)
    assert "tool_mask" not in kept
    assert counts == GroupCounts(3, 0, 0)
    dropped, counts = ZeroVariance("drop", num_generations=2, loss_type="dapo").apply(coded_batch(8), flags, alone)
    assert dropped["tool_mask"][:, 0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert counts.metrics() == {"groups/zero_variance": 3, "groups/dropped": 3, "groups/replaced": 0}
    handler = ZeroVariance("replace", num_generations=2, loss_type="dapo")
    replaced, counts = handler.apply(coded_batch(8), flags, alone)
    assert replaced["advantages"].tolist() == [2, 3] * 4
    assert replaced["num_items_in_batch"] == 4 * (3 + 1)
    assert "tool_mask" not in replaced
    assert counts == GroupCounts(3, 0, 3)
    # Nothing to copy: dropped.
    lost, counts = handler.apply(coded_batch(4), torch.tensor([True, True]), alone)
    assert (int(lost["tool_mask"].sum()), counts) == (0, GroupCounts(2, 2, 0))
    assert handler.batches == 2
    state = TrainerState()
    state.stateful_callbacks = json.loads(json.dumps({"ZeroVariance": handler.state()}))
    resumed = ZeroVariance("replace", num_generations=2, loss_type="dapo")
    resumed.on_train_begin(None, state, TrainerControl())
    assert resumed.state() == handler.state()


def test_parts_of_groups_that_cannot_be_replaced_are_dropped() -> None:
    # Process 0 of 2, groups of 4 on 6 rows each: group 1 is only half here.
    handler = ZeroVariance("replace", num_generations=4, loss_type="dapo")
    batch, counts = handler.apply(coded_batch(6), torch.tensor([False, True, False]), alone)
    assert batch["tool_mask"][:, 0].tolist() == [1] * 4 + [0] * 2
    assert (counts.dropped, counts.replaced) == (0.5, 0)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="'skip': choose"):
        ZeroVariance("skip", num_generations=2, loss_type="dapo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one completion"):
        ZeroVariance("drop", num_generations=1, loss_type="dapo")


# --- trainings -------------------------------------------------------------------------------------------------------


class WatchedTrainer(RankingGRPOTrainer):
    """Keeps the rows that the curriculum draws."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        assert self.curriculum is not None
        self.curriculum.warm_up = 2
        self.rows: list[list[int]] = []
        draw = self.curriculum.draw

        def watched(groups: int) -> list[int]:
            self.rows.append(draw(groups))
            return self.rows[-1]

        self.curriculum.draw = watched  # type: ignore[method-assign]


def length_reward(completions: Any, source: Any, **columns: Any) -> list[float]:
    """Rewards text of one source for its letters, all of the other source alike."""
    return [
        len(turns[0]["content"]) * 10.0 if name == "varied" else 1.0
        for turns, name in zip(completions, source, strict=True)
    ]


TrainerMaker = Callable[..., WatchedTrainer]
SETTINGS: dict[str, Any] = {
    **{"per_device_train_batch_size": 16, "max_completion_length": 6, "temperature": 3.0, "max_steps": 2},
    **{"learning_rate": 1e-3, "lr_scheduler_type": "linear", "scale_rewards": "none", "normalise_rewards": True},
    **{"zero_variance": "replace", "adaptive_curriculum": True, "save_strategy": "steps", "save_steps": 1},
}


@pytest.fixture
def make_trainer(bench: Any) -> TrainerMaker:
    rows = bench.rows(24)

    def make(folder: Path, **options: Any) -> WatchedTrainer:
        bench.folder = folder
        trainer: WatchedTrainer = bench.trainer(length_reward, kind=WatchedTrainer, rows=rows, **SETTINGS | options)
        return trainer

    return make


def test_a_resumed_training_is_the_same_to_the_bit(make_trainer: TrainerMaker, tmp_path: Path) -> None:
    straight = make_trainer(tmp_path / "straight")
    straight.train()
    [first, second] = straight.state.log_history[:2]
    assert first["groups/replaced"] > 0
    lengths = list_lengths(straight.train_dataset)
    # Only the shortest lists to begin with, then, after a warm-up of two groups, longer ones too.
    assert {lengths[row] for row in straight.rows[0]} == {2}
    assert first["curriculum/weight/3"] > 0
    for log, rows in zip((first, second), straight.rows, strict=True):
        flat = sum(straight.train_dataset[row]["source"] == "flat" for row in rows)
        assert log["groups/zero_variance"] >= flat
        assert log["groups/dropped"] + log["groups/replaced"] == log["groups/zero_variance"]
        # The rewards that are logged are raw: of letters, 10 each, and of 1.
        assert log["reward"] == pytest.approx(log["rewards/length_reward/mean"])
    seen = [straight.train_dataset[row]["source"] for rows in straight.rows for row in rows]
    totals = [moments.count for moments in straight.normaliser.moments.values()]
    assert (sum(totals), {*straight.normaliser.moments}) == (32, {*seen})
    resumed = make_trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-1"))
    assert resumed.rows == straight.rows[1:]
    for callback in ("curriculum", "normaliser", "zero_variance"):
        assert getattr(resumed, callback).state() == getattr(straight, callback).state()
    weights = straight.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())
    start = AutoModelForCausalLM.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32).state_dict()
    assert not all(torch.equal(value, start[name]) for name, value in weights.items())


def hand_made_batch(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def ids(tokens: int) -> torch.Tensor:
        return torch.randint(10, 1000, (rows, tokens), generator=generator)

    mask = (torch.arange(5) < torch.tensor([5, 3, 1, 4] * (rows // 4)).unsqueeze(1)).long()
    return {
        "prompt_ids": ids(4),
        "prompt_mask": torch.ones(rows, 4, dtype=torch.long),
        "completion_ids": ids(5),
        "completion_mask": mask,
        "advantages": torch.randn(rows, generator=generator),
        "ref_per_token_logps": -7 + torch.randn(rows, 5, generator=generator),
        "old_per_token_logps": -7 + torch.randn(rows, 5, generator=generator),
        "num_items_in_batch": mask.sum(),
    }


def test_dropped_rows_are_as_if_they_had_never_been(make_trainer: TrainerMaker, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, zero_variance="drop", beta=0.1)
    trainer.model.eval()
    batch = hand_made_batch(8)
    dropped = torch.tensor([True, False, True, False, False, True, True, True])
    without = {name: value[~dropped] if value.ndim else value for name, value in batch.items()}
    without["num_items_in_batch"] = without["completion_mask"].sum()
    lost = dict[str, float]()
    for loss_type, level in itertools.chain(
        itertools.product(["grpo", "dr_grpo", "dapo", "bnpo", "luspo", "sapo", "cispo", "vespo"], ["token"]),
        [("grpo", "sequence")],
    ):
        trainer.loss_type, trainer.importance_sampling_level = loss_type, level
        expected = trainer._compute_loss(trainer.model, without)
        found = trainer._compute_loss(trainer.model, drop_rows(batch, dropped, loss_type, alone))
        gradients = []
        for loss in (expected, found):
            trainer.model.zero_grad()
            loss.backward()
            gradients.append(torch.cat([own.grad.flatten() for own in trainer.model.parameters()]))
        torch.testing.assert_close(found, expected, msg=lambda text, name=loss_type: f"{name}: {text}")
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
        lost[loss_type] = abs((trainer._compute_loss(trainer.model, batch) - expected).item())
    assert all(difference > 1e-3 for difference in lost.values()), lost
    nothing = trainer._compute_loss(trainer.model, drop_rows(batch, torch.ones(8, dtype=torch.bool), "dapo", alone))
    assert nothing == 0
