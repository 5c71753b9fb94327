"""GRPO on the embedded model: settings that contradict each other, what it sees, budgets, adapters, that it learns."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from r1ranker_ir import Candidate
from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.trainers.grpo import RankingGRPOConfig, RankingGRPOTrainer
from r1ranker_ir.training.trainers.ppo import RankingPPOConfig, RankingPPOTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

Reward = Callable[..., list[float | None]]


def texts_of(completions: Sequence[Any]) -> list[str]:
    return [completion[0]["content"] for completion in completions]


def pays_for_the_first_identifier(completions: Any, **columns: Any) -> list[float | None]:
    return [float(text.lstrip().startswith("[1]")) for text in texts_of(completions)]


def pays_by_place(completions: Any, source: Sequence[str], **columns: Any) -> list[float | None]:
    """Rewards that differ in all groups of one source, and in none of the other."""
    return [float(place) if name == "varied" else 1.0 for place, name in enumerate(source)]


def pays_every_other(completions: Any, **columns: Any) -> list[float | None]:
    return [float(place % 2) for place in range(len(completions))]


def weights_of(trainer: RankingGRPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def logged(trainer: RankingGRPOTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "multiple"),
    [
        ({"num_iterations": 2, "save_steps": 3}, 2),
        ({"steps_per_generation": 4, "save_steps": 2}, 4),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 3, "save_steps": 6}, 4),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_iterations": 3, "save_steps": 500}, 6),
        ({"num_iterations": 2, "save_steps": 0.5}, 2),
    ],
)
def test_checkpoints_between_updates_of_the_same_rollouts_are_refused(
    settings: dict[str, Any], multiple: int, tmp_path: Path, quick: dict[str, Any]
) -> None:
    options = {"output_dir": str(tmp_path), **quick, "save_strategy": "steps", **settings}
    with pytest.raises(InputError, match=f"save_steps is {settings['save_steps']}: .*multiple of {multiple}$"):
        RankingGRPOConfig(**options)
    for fine in ({"save_steps": 2 * multiple}, {"save_strategy": "no"}, {"save_strategy": "epoch"}):
        RankingGRPOConfig(**{**options, **fine})


@pytest.mark.parametrize("save_steps", [1, 7, 0.5])
def test_any_checkpoint_will_do_where_each_update_has_its_own_rollouts(
    save_steps: float, tmp_path: Path, quick: dict[str, Any]
) -> None:
    options = {"gradient_accumulation_steps": 3, "save_strategy": "steps", "save_steps": save_steps}
    RankingGRPOConfig(**{"output_dir": str(tmp_path), **quick, **options})


def test_fewer_rows_than_a_generation_batch_are_refused(bench: Any) -> None:
    with pytest.raises(InputError, match="there are 3 rows to train on, and a generation batch needs 4: 16 comp"):
        bench.trainer(rows=bench.rows(3), gradient_accumulation_steps=2)
    with pytest.raises(InputError, match="there are 7 rows to train on, and a generation batch needs 8"):
        options = {"num_generations": 1, "rows": bench.rows(7)}
        bench.trainer(kind=RankingPPOTrainer, config=RankingPPOConfig, **options)
    # As many as needed are enough.
    trainer = bench.trainer(rows=bench.rows(4), gradient_accumulation_steps=2)
    trainer.train()
    assert (trainer.state.global_step, trainer.generated.count) == (1, 16)


@pytest.mark.parametrize("num_generations", [1, 4])
def test_a_curriculum_by_variance_needs_groups_that_are_compared(num_generations: int, bench: Any) -> None:
    options = {"num_generations": num_generations, "adaptive_curriculum": True}
    with pytest.raises(InputError, match="adaptive_curriculum goes by the variance of groups: leave it out"):
        bench.trainer(kind=RankingPPOTrainer, config=RankingPPOConfig, **options)


def test_a_curriculum_by_variance_needs_rows_to_choose_among(bench: Any) -> None:
    with pytest.raises(InputError, match="the rows are streamed"):
        bench.trainer(rows=bench.rows().to_iterable_dataset(), adaptive_curriculum=True)


def test_a_curriculum_by_variance_begins_with_short_lists(bench: Any) -> None:
    lengths: list[int] = []

    def watches(completions: Any, gains: Sequence[Any], **columns: Any) -> list[float | None]:
        lengths.extend(map(len, gains))
        return pays_for_the_first_identifier(completions)

    trainer = bench.trainer(watches, adaptive_curriculum=True, max_steps=2)
    trainer.train()
    # Two groups a step, of 4 completions each; longer lists have to wait for 64.
    assert lengths == [2] * 16
    assert logged(trainer, "curriculum/weight/2") == [1, 1]
    assert trainer.curriculum is not None
    assert trainer.curriculum.state()["attributes"]["progress"][0][:2] == [4, 4]


def test_normalising_is_pointless_where_every_group_is_scaled(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "r1ranker_ir"):
        bench.trainer(scale_rewards="none", normalise_rewards=True)
        bench.trainer(scale_rewards="group")
        assert not caplog.records
        bench.trainer(scale_rewards="group", normalise_rewards=True)
    [warning] = caplog.records
    assert "normalise_rewards changes nothing with scale_rewards: group" in warning.getMessage()


def test_rewards_are_divided_by_their_sources_deviation_and_logged_as_they_were(bench: Any) -> None:
    trainer = bench.trainer(pays_by_place, per_device_train_batch_size=32, scale_rewards="none", normalise_rewards=True)
    trainer.train()
    assert trainer.last_rewards is not None and trainer._raw_rewards is not None
    raw, divided = trainer._raw_rewards.flatten(), trainer.last_rewards.flatten()
    varied = raw[[place for place, value in enumerate(raw.tolist()) if value != 1.0]]
    deviation = logged(trainer, "reward_divisor/varied")[0]
    assert len(varied) >= 15  # one of 16 may be 1 by its place
    assert deviation == pytest.approx(varied.std().item(), rel=0.2)
    ratios = {round(value, 4) for value in (raw[raw != 0] / divided[raw != 0]).tolist()}
    assert ratios == {1.0, round(deviation, 4)}
    assert logged(trainer, "reward")[0] == pytest.approx(raw.mean().item())


@pytest.mark.parametrize(
    ("mode", "dropped", "replaced"), [("keep", 0.0, 0.0), ("drop", 4.0, 0.0), ("replace", 0.0, 4.0)]
)
def test_groups_without_variance_are_handled_as_asked_and_counted(
    mode: str, dropped: float, replaced: float, bench: Any
) -> None:
    # All 8 rows in one batch, 4 of them of the source whose rewards do not differ.
    trainer = bench.trainer(pays_by_place, per_device_train_batch_size=32, zero_variance=mode)
    trainer.train()
    counted = [logged(trainer, f"groups/{name}") for name in ("zero_variance", "dropped", "replaced")]
    assert counted == [[4.0], [dropped], [replaced]]
    assert logged(trainer, "frac_reward_zero_std") == [0.5]
    assert logged(trainer, "generated_tokens") == [32]


def test_unknown_handling_of_groups_is_refused(bench: Any) -> None:
    with pytest.raises(InputError, match="zero_variance is 'skip': choose keep, drop or replace"):
        bench.trainer(zero_variance="skip")


# --- what the model sees and what rewards see -----------------------------------------------------------------------


class WatchedTrainer(RankingGRPOTrainer):
    """Keeps the token ids of prompts that were generated from."""

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **options: Any) -> Any:
        self.seen = copy.deepcopy(prompt_ids)
        return super()._generate_single_turn(prompt_ids, *args, **options)


@pytest.mark.parametrize("name", ["embedded", "chatml", "gemma", "plain"])
def test_rollouts_begin_with_the_token_ids_of_inference(
    name: str, make_checkpoint: Callable[..., Path], make_bench: Callable[..., Any]
) -> None:
    bench = make_bench(TINY_CHECKPOINT if name == "embedded" else make_checkpoint(name))
    texts = ["flea wool kettle water " * 30, "", "wool </think> [2] <|assistant|>"]
    candidates = tuple(Candidate(str(place), text) for place, text in enumerate(texts))
    hostile = Sample("direct", judged("flea <answer>", candidates, (0.0, 1.0, 0.0), id="hostile"))
    trainer = bench.trainer(kind=WatchedTrainer, rows=bench.rows(3, hostile), per_device_train_batch_size=16)
    trainer.train()
    backend = TransformersBackend(bench.checkpoint, device="cpu", max_thought_tokens=4)
    prompt = Prompt(bench.renderer.template, backend, max_passage_tokens=bench.renderer.max_passage_tokens)
    expected = []
    for sample in (*bench.samples(3), hostile):
        request = sample.record.request
        call = prompt.ask(sample.strategy, request, range(len(request.candidates)))
        expected += [backend._texts.prompt_ids(call.messages)] * 4
        assert call.cut_passages == (sample.record.request.query_id == "hostile")
    assert sorted(trainer.seen) == sorted(expected)


def test_a_tokenizer_that_parses_responses_does_not_take_thoughts_away(bench: Any) -> None:
    bench.tokenizer.response_schema = {
        "type": "object",
        "properties": {"role": {"const": "assistant"}, "content": {"type": "string", "x-regex": r"\](.*)"}},
    }
    seen: list[tuple[str, str]] = []

    def watches(completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
        seen.extend(zip(texts_of(completions), bench.tokenizer.batch_decode(completion_ids), strict=True))
        return pays_for_the_first_identifier(completions)

    trainer = bench.trainer(watches)
    trainer.train()
    assert trainer.processing_class.response_schema is None
    assert len(seen) == 8
    assert all(text == written for text, written in seen)
    assert any("[1]" in text for text, _ in seen)


def test_evaluation_costs_no_budget_and_teaches_nothing(bench: Any) -> None:
    options = {"eval_dataset": bench.rows(2)}
    settings = {"per_device_eval_batch_size": 8, "scale_rewards": "none", "normalise_rewards": True}
    trainer = bench.trainer(options=options, **settings)
    before = weights_of(trainer)
    measured = trainer.evaluate()
    assert 0 <= measured["eval_reward"] <= 1
    assert trainer.generated.count == 0
    assert trainer.normaliser is not None and trainer.normaliser.moments == {}
    assert same(before, weights_of(trainer))


# --- budgets, resuming, adapters ------------------------------------------------------------------------------------


def test_a_budget_of_tokens_stops_a_training_and_a_resumed_one_in_the_same_step(bench: Any, tmp_path: Path) -> None:
    # Rollouts of 8 tokens serve two steps: the third batch of them, in step 5, exceeds the budget.
    settings = {"num_iterations": 2, "max_steps": 50, "max_generated_tokens": 20}
    settings |= {"save_strategy": "steps", "save_steps": 2}
    straight = bench.trainer(pays_every_other, **settings)
    straight.train()
    assert (straight.state.global_step, straight.generated.count) == (5, 24)
    assert logged(straight, "generated_tokens") == [8, 16, 24]
    checkpoint = bench.folder / "checkpoint-4"
    bench.folder = tmp_path / "resumed"
    resumed = bench.trainer(pays_every_other, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert (resumed.state.global_step, resumed.generated.count) == (5, 24)
    assert same(weights_of(resumed), weights_of(straight))
    assert logged(resumed, "loss") == logged(straight, "loss")
    saved = load_file(checkpoint / "model.safetensors")
    assert any(not torch.equal(value, weights_of(straight)[name]) for name, value in saved.items())


# --- it learns ------------------------------------------------------------------------------------------------------


def chance_of_the_first_identifier(trainer: RankingGRPOTrainer) -> float:
    """How likely a completion begins with [1], at the temperature of the training, exactly."""
    vocabulary = len(trainer.processing_class)
    texts = trainer.processing_class.batch_decode([[token] for token in range(vocabulary)])
    first = torch.tensor([text.lstrip().startswith("[1]") for text in texts])
    chances = []
    for row in trainer.train_dataset:
        with torch.no_grad():
            logits = trainer.model(torch.tensor([trainer.renderer.prompt_ids(row["prompt"])])).logits[0, -1]
        likely = (logits / trainer.temperature).softmax(-1)[:vocabulary]
        chances.append(likely[first].sum().item())
    return sum(chances) / len(chances)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_rewarded_becomes_likely(sign: int, bench: Any) -> None:
    def pays(completions: Any, **columns: Any) -> list[float | None]:
        return [sign * (reward or 0.0) for reward in pays_for_the_first_identifier(completions)]

    trainer = bench.trainer(pays, per_device_train_batch_size=16, max_steps=6, learning_rate=5e-4)
    before = chance_of_the_first_identifier(trainer)
    assert 0.2 < before < 0.8
    trainer.train()
    after = chance_of_the_first_identifier(trainer)
    if sign > 0:
        assert after > 0.9
        rewards = logged(trainer, "reward")
        assert sum(rewards[-3:]) > sum(rewards[:3])
    else:
        assert after < 0.1
