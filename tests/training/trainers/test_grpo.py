"""GRPO on the embedded model: settings that contradict each other, what it sees, budgets, adapters, that it learns."""

from __future__ import annotations

import copy
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
from r1ranker_ir.training.trainers.grpo import RankingGRPOTrainer
from r1ranker_ir.training.trainers.ppo import RankingPPOConfig, RankingPPOTrainer

Make = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")


def texts_of(completions: Sequence[Any]) -> list[str]:
    return [completion[0]["content"] for completion in completions]


def pays_by_place(completions: Any, source: Sequence[str], **columns: Any) -> list[float | None]:
    """Rewards that differ in all groups of one source, and in none of the other."""
    return [float(place) if name == "varied" else 1.0 for place, name in enumerate(source)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def logged(trainer: RankingGRPOTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize(
    ("settings", "multiple"),
    [
        ({"num_iterations": 2, "save_steps": 3}, 2),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 3, "save_steps": 6}, 4),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_iterations": 3, "save_steps": 500}, 6),
        ({"num_iterations": 2, "save_steps": 0.5}, 2),
    ],
)
def test_checkpoints_between_updates_of_the_same_rollouts_are_refused(
    settings: dict[str, Any], multiple: int, bench: Any
) -> None:
    options = {"save_strategy": "steps", **settings}
    with pytest.raises(InputError, match=f"save_steps is {settings['save_steps']}: .*multiple of {multiple}$"):
        bench.arguments(**options)
    for fine in ({"save_steps": 2 * multiple}, {"save_strategy": "no"}, {"save_strategy": "epoch"}):
        bench.arguments(**options | fine)
    # Where each update has its own rollouts, any checkpoint will do.
    own = {"num_iterations": 1, "steps_per_generation": None, "gradient_accumulation_steps": 3}
    for save_steps in (1, 7, 0.5):
        bench.arguments(**options | own | {"save_steps": save_steps})


def test_fewer_rows_than_a_generation_batch_are_refused(bench: Any, make_bench: Make) -> None:
    with pytest.raises(InputError, match="there are 3 rows to train on, and a generation batch needs 4: 16 comp"):
        bench.trainer(rows=bench.rows(3), gradient_accumulation_steps=2)
    of_ppo = make_bench(kind=RankingPPOTrainer, config=RankingPPOConfig)
    with pytest.raises(InputError, match="there are 7 rows to train on, and a generation batch needs 8"):
        of_ppo.trainer(rows=bench.rows(7), num_generations=1)
    # As many as needed are enough.
    trainer = bench.trainer(rows=bench.rows(4), gradient_accumulation_steps=2)
    trainer.train()
    assert (trainer.state.global_step, trainer.generated.count) == (1, 16)


@pytest.mark.parametrize(("mode", "dropped", "replaced"), [("drop", 4.0, 0.0), ("replace", 0.0, 4.0)])
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


class WatchedTrainer(RankingGRPOTrainer):
    """Keeps the token ids of prompts that were generated from."""

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **options: Any) -> Any:
        self.seen = copy.deepcopy(prompt_ids)
        return super()._generate_single_turn(prompt_ids, *args, **options)


@pytest.mark.parametrize("name", ["embedded", "gemma"])
def test_rollouts_begin_with_the_token_ids_of_inference(name: str, make_checkpoint: Make, make_bench: Make) -> None:
    bench = make_bench(TINY_CHECKPOINT if name == "embedded" else make_checkpoint(name), kind=WatchedTrainer)
    texts = ["flea wool kettle water " * 30, "", "wool </think> [2] <|assistant|>"]
    candidates = tuple(Candidate(str(place), text) for place, text in enumerate(texts))
    hostile = Sample("direct", judged("flea <answer>", candidates, (0.0, 1.0, 0.0), id="hostile"))
    trainer = bench.trainer(rows=bench.rows(3, hostile), per_device_train_batch_size=16)
    trainer.train()
    backend = TransformersBackend(bench.checkpoint, device="cpu", max_thought_tokens=4)
    prompt = Prompt(bench.renderer.template, backend, max_passage_tokens=bench.renderer.max_passage_tokens)
    expected = []
    for sample in (*bench.samples(3), hostile):
        request = sample.record.request
        call = prompt.ask(sample.strategy, request, range(len(request.candidates)))
        expected += [backend._texts.prompt_ids(call.messages)] * 4
        assert call.cut_passages == (request.query_id == "hostile")
    assert sorted(trainer.seen) == sorted(expected)


def test_a_tokenizer_that_parses_responses_does_not_take_thoughts_away(bench: Any) -> None:
    bench.tokenizer.response_schema = {
        "type": "object",
        "properties": {"role": {"const": "assistant"}, "content": {"type": "string", "x-regex": r"\](.*)"}},
    }
    seen: list[tuple[str, str]] = []

    def watches(completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
        seen.extend(zip(texts_of(completions), bench.tokenizer.batch_decode(completion_ids), strict=True))
        return [0.0] * len(completions)

    bench.trainer(watches).train()
    assert len(seen) == 8
    assert all(text == written for text, written in seen)
    assert any("[1]" in text for text, _ in seen)


def test_evaluation_costs_no_budget_and_teaches_nothing(bench: Any, weights_of: Make) -> None:
    trainer = bench.trainer(options={"eval_dataset": bench.rows(2)}, per_device_eval_batch_size=8)
    before = weights_of(trainer)
    assert 0 <= trainer.evaluate()["eval_reward"] <= 1
    assert trainer.generated.count == trainer.zero_variance.batches == 0
    assert same(before, weights_of(trainer))


def test_a_resumed_training_is_the_same_to_the_bit_and_stops_at_the_same_budget(
    bench: Any, tmp_path: Path, weights_of: Make
) -> None:
    # Rollouts of 16 tokens serve two steps: the third batch of them, in step 5, exceeds the budget.
    settings = {"num_iterations": 2, "max_steps": 50, "max_generated_tokens": 40, "per_device_train_batch_size": 16}
    settings |= {"save_strategy": "steps", "save_steps": 2, "zero_variance": "replace"}
    straight = bench.trainer(pays_by_place, **settings)
    straight.train()
    assert (straight.state.global_step, straight.generated.count) == (5, 48)
    assert logged(straight, "generated_tokens") == [16, 32, 48]
    assert max(logged(straight, "groups/replaced")) > 0
    checkpoint = bench.folder / "checkpoint-4"
    bench.folder = tmp_path / "resumed"
    resumed = bench.trainer(pays_by_place, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for callback in ("generated", "zero_variance"):
        assert getattr(resumed, callback).state() == getattr(straight, callback).state()
    assert same(weights_of(resumed), weights_of(straight))
    assert logged(resumed, "loss") == logged(straight, "loss")
    saved = load_file(checkpoint / "model.safetensors")
    assert any(not torch.equal(value, straight.model.state_dict()[name]) for name, value in saved.items())


def chance_of_the_first_identifier(trainer: RankingGRPOTrainer) -> float:
    """How likely a completion begins with [1], at the temperature of the training, exactly."""
    vocabulary = len(trainer.processing_class)
    texts = trainer.processing_class.batch_decode([[token] for token in range(vocabulary)])
    first = torch.tensor([text.lstrip().startswith("[1]") for text in texts])
    chances = []
    for row in trainer.train_dataset:
        with torch.no_grad():
            logits = trainer.model(torch.tensor([trainer.renderer.prompt_ids(row["prompt"])])).logits[0, -1]
        chances.append((logits / trainer.temperature).softmax(-1)[:vocabulary][first].sum().item())
    return sum(chances) / len(chances)


def test_what_is_rewarded_becomes_likely(bench: Any) -> None:
    trainer = bench.trainer(per_device_train_batch_size=16, max_steps=6, learning_rate=5e-4)
    before = chance_of_the_first_identifier(trainer)
    trainer.train()
    assert 0.2 < before < 0.8 < 0.9 < chance_of_the_first_identifier(trainer)
