"""PPO on models so small that the best policy, the true values and every loss can be worked out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.models.checkpoints import SETTINGS_FILE
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.training.data.prompting import PromptRenderer, training_rows
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.trainers.ppo import RankingPPOConfig, RankingPPOTrainer
from r1ranker_ir.training.trainers.value_head import VALUE_HEAD_FILE
from r1ranker_ir.types import Candidate, RankingRequest

Make = Callable[..., Any]
WORDS = "<unk> <end> red green blue black white brown <think> </think> <answer> </answer>".split()
SETTINGS: dict[str, Any] = {
    **{"per_device_train_batch_size": 8, "max_completion_length": 4, "learning_rate": 0.02},
    **{"critic_learning_rate": 0.05, "weight_decay": 0.1},
}
LORA = {"peft_config": LoraConfig(r=2, target_modules=["q_proj", "v_proj"])}


def rows_of(renderer: PromptRenderer, *queries: str) -> Any:
    """Training rows, one per query, each with the same two candidates."""
    candidates = (Candidate("a", "red"), Candidate("b", "blue"))
    records = [judged(query, candidates, (1.0, 0.0), id=f"q{number}") for number, query in enumerate(queries)]
    return training_rows(Dataset.from_list([row_of(Sample("iterative", record)) for record in records]), renderer)


@pytest.fixture(scope="module")
def word_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer that writes twelve words, all about equally likely."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    tokenizer.add_tokens(WORDS[-4:])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    end = WORDS.index("<end>")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": len(WORDS), "max_position_embeddings": 128, "initializer_range": 0.1}
    config = AutoConfig.for_model("llama", **sizes, bos_token_id=None, eos_token_id=end, pad_token_id=end)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("words")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class WatchedTrainer(RankingPPOTrainer):
    """Keeps what every loss was computed from."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[dict[str, torch.Tensor]] = []

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        self.seen.append({name: tensor.clone() for name, tensor in inputs.items()})
        return super().compute_loss(model, inputs, *args, **options)


@pytest.fixture
def make_trainer(make_bench: Make, word_model: Path) -> Make:
    """Makes a trainer: `make_trainer(reward, queries=["red"], lora=True, max_steps=2)`."""

    def make(*rewards: Any, checkpoint: Path = word_model, queries: Any = None, lora: bool = False, **more: Any) -> Any:
        options = {"kind": WatchedTrainer, "config": RankingPPOConfig, "settings": SETTINGS}
        bench = make_bench(checkpoint, context_length=128, completion_tokens=8, **options)
        rows = rows_of(bench.renderer, *(queries or ["red"] * 32))
        return bench.trainer(*rewards, rows=rows, options=LORA if lora else {}, **more)

    return make


def texts(completions: list[Any]) -> list[str]:
    return [completion[0]["content"] for completion in completions]


def says_red(completions: list[Any], **columns: Any) -> list[float | None]:
    return [float(text.split()[:1] == ["red"]) for text in texts(completions)]


def counts_words(completions: list[Any], **columns: Any) -> list[float | None]:
    return [float(len(text.split())) for text in texts(completions)]


def first_word_chances(trainer: RankingPPOTrainer, query: str = "red") -> dict[str, float]:
    [row] = rows_of(trainer.renderer, query)
    with torch.no_grad():
        logits = trainer.model(torch.tensor([trainer.renderer.prompt_ids(row["prompt"])])).logits
    return dict(zip(WORDS, logits[0, -1].softmax(dim=-1).tolist(), strict=True))


def test_the_rewarded_word_becomes_nearly_certain(make_trainer: Make) -> None:
    trainer = make_trainer(says_red, per_device_train_batch_size=32, max_completion_length=1, max_steps=15)
    assert first_word_chances(trainer)["red"] < 0.2
    trainer.train()
    assert first_word_chances(trainer)["red"] > 0.9


def test_values_become_the_expected_rewards_of_a_frozen_policy(make_trainer: Make, weights_of: Make) -> None:
    def pays_for_red_or_for_blue(completions: list[Any], context: list[str], **columns: Any) -> list[float | None]:
        paid = {"red": 4.0, "blue": -4.0}
        return [
            paid[query] if text.split()[:1] == ["green"] else paid[query] / 2
            for text, query in zip(texts(completions), context, strict=True)
        ]

    settings = {"per_device_train_batch_size": 16, "max_completion_length": 1, "max_steps": 50, "learning_rate": 0.0}
    settings |= {"critic_learning_rate": 1.0, "cliprange_value": 1.0, "beta": 0.0, "lr_scheduler_type": "linear"}
    trainer = make_trainer(pays_for_red_or_for_blue, queries=["red", "blue"] * 8, **settings)
    before = weights_of(trainer)
    trainer.train()
    after = weights_of(trainer)
    assert all(torch.equal(each, after[name]) is ("value_head" not in name) for name, each in before.items())
    last = trainer.seen[-1]
    for query, sign in (("red", 1), ("blue", -1)):
        green = first_word_chances(trainer, query)["green"]
        prompts = (last["prompt_ids"] == WORDS.index(query)).sum(dim=1) == 2  # its query, and a candidate
        expected = sign * (4 * green + 2 * (1 - green))
        assert last["old_values"][prompts].mean().item() == pytest.approx(expected, abs=0.3)
    assert trainer.state.log_history[-2]["explained_variance"] > 0.7


def test_the_reward_arrives_at_the_last_token_and_spreads_by_lambda(make_trainer: Make) -> None:
    settings = {"whiten_advantages": False, "max_completion_length": 6, "per_device_train_batch_size": 16}
    trainer = make_trainer(counts_words, says_red, reward_weights=[2.0, 0.5], gae_lambda=0.5, **settings)
    trainer.train()
    [inputs] = trainer.seen
    lengths = inputs["completion_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) > 1, "all completions are equally long: nothing is padded"
    for row, length in enumerate(lengths.tolist()):
        written = [WORDS[token] for token in inputs["completion_ids"][row, :length]]
        words = [word for word in written if word not in ("<end>", "<unk>")]
        reward = 2.0 * len(words) + 0.5 * (words[:1] == ["red"])
        # The head starts at zero, so an advantage is the reward halved once for every token in between.
        spread = [reward * 0.5 ** (length - 1 - token) for token in range(length)]
        padding = [0.0] * (inputs["completion_mask"].shape[1] - length)
        for name in ("advantages", "returns"):
            assert inputs[name][row].tolist() == pytest.approx(spread + padding)
    # The log of completions, which the trainer shuffles afterwards, has their means.
    means = (inputs["advantages"].sum(dim=1) / lengths).tolist()
    assert sorted(trainer._logs["advantages"]) == pytest.approx(sorted(means))


def test_advantages_are_whitened_over_the_batch_once_for_all_updates(make_trainer: Make) -> None:
    trainer = make_trainer(counts_words, steps_per_generation=2, num_iterations=2, max_steps=8)
    trainer.train()
    for first, second in ((4, 6), (5, 7)):
        one, other = trainer.seen[first], trainer.seen[second]
        assert all(torch.equal(one[name], other[name]) for name in ("advantages", "returns", "old_values"))
    advantages = torch.cat([inputs["advantages"][inputs["completion_mask"].bool()] for inputs in trainer.seen[4:6]])
    assert advantages.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert advantages.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-4)


def test_rows_without_any_reward_teach_nothing(make_trainer: Make) -> None:
    def scores_blue_queries(context: list[str], **columns: Any) -> list[float | None]:
        return [3.0 if query == "blue" else None for query in context]

    trainer = make_trainer(scores_blue_queries, queries=["red", "blue"] * 8, whiten_advantages=False)
    trainer.train()
    [inputs] = trainer.seen
    scored = (inputs["prompt_ids"] == WORDS.index("blue")).sum(dim=1) == 2
    assert 0 < scored.sum() < len(scored)
    assert not inputs["advantages"][~scored].any() and not inputs["value_mask"][~scored].any()
    assert torch.equal(inputs["value_mask"][scored], inputs["completion_mask"][scored])
    assert inputs["advantages"][scored].max() == 3.0


def two_rollouts() -> dict[str, torch.Tensor]:
    """A batch for the loss: prompts padded on the left, completions on the right, and padding full of nonsense."""
    mask = torch.tensor([[1, 1], [1, 0]])
    return {
        "prompt_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]),
        "prompt_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]),
        "completion_ids": torch.tensor([[2, 7], [3, 1]]),
        "completion_mask": mask,
        "advantages": torch.tensor([[1.5, -2.0], [0.5, 9.0]]),
        # Far enough from the policy's that one ratio is clipped from above and one from below.
        "old_per_token_logps": torch.tensor([[-4.0, -2.0], [-2.4, 0.0]]),
        "ref_per_token_logps": torch.tensor([[-2.0, -3.0], [-2.5, 0.0]]),
        "old_values": torch.tensor([[0.0, 1.0], [-0.5, 0.0]]),
        "returns": torch.tensor([[1.0, 1.0], [0.0, 9.0]]),
        "value_mask": mask,
        "num_items_in_batch": torch.tensor(3),
    }


def give_values(trainer: RankingPPOTrainer) -> torch.Tensor:
    """Sets the value head to weights that make a difference."""
    weights = torch.linspace(-1, 1, trainer.value_head.in_features)
    with torch.no_grad():
        trainer.value_head.weight.copy_(weights)
        trainer.value_head.bias.fill_(0.25)
    return weights


@pytest.mark.parametrize("corrected", [True, False])
def test_loss_equals_a_calculation_by_hand(make_trainer: Make, word_model: Path, corrected: bool) -> None:
    trainer = make_trainer(says_red, beta=0.5, vf_coef=0.3, use_bias_correction_kl=corrected)
    weights, inputs = give_values(trainer), two_rollouts()
    output = AutoModelForCausalLM.from_pretrained(word_model, dtype=torch.float32)(
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        output_hidden_states=True,
    )
    policy_terms, value_terms, ratios = [], [], []
    for row, token in ((0, 0), (0, 1), (1, 0)):  # the tokens that count
        place = 2 + token  # the state in front of the token
        log_p = output.logits[row, place].log_softmax(dim=-1)[inputs["completion_ids"][row, token]].item()
        ratio = math.exp(log_p - inputs["old_per_token_logps"][row, token].item())
        advantage = inputs["advantages"][row, token].item()
        to_reference = inputs["ref_per_token_logps"][row, token].item() - log_p
        kl = (math.exp(to_reference) - to_reference - 1) * (ratio if corrected else 1)
        policy_terms.append(-min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage) + 0.5 * kl)
        ratios.append(ratio)
        state = output.hidden_states[-1][row, place].detach()
        value = (state / state.norm()).dot(weights).item() + 0.25
        old, wanted = inputs["old_values"][row, token].item(), inputs["returns"][row, token].item()
        value_terms.append(max((value - wanted) ** 2, (old + min(max(value - old, -0.2), 0.2) - wanted) ** 2))
    assert ratios[0] > 1.2 and ratios[1] < 0.8, "the example clips nothing"
    expected = sum(policy_terms) / 3 + 0.3 * 0.5 * sum(value_terms) / 3
    assert trainer.compute_loss(trainer.model, inputs).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("detached", [True, False])
def test_the_value_loss_reaches_the_policy_only_if_asked_to(make_trainer: Make, detached: bool) -> None:
    trainer = make_trainer(says_red, beta=0.0, value_head_detached=detached)
    give_values(trainer)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = two_rollouts()
    trainer.compute_loss(trainer.model, {**inputs, "advantages": torch.zeros_like(inputs["advantages"])}).backward()
    named = trainer.model.named_parameters()
    pulled = {name for name, each in named if each.grad is not None and each.grad.any()}
    if detached:
        assert pulled == {"value_head.weight", "value_head.bias"}
    else:
        assert pulled >= {"value_head.weight", "value_head.bias", "model.embed_tokens.weight"}


def test_the_value_head_learns_at_its_own_rate_without_decay(make_trainer: Make) -> None:
    trainer = make_trainer(says_red, learning_rate=1e-5, critic_learning_rate=0.125)
    groups = trainer.create_optimizer().param_groups
    head = {id(parameter) for parameter in trainer.value_head.parameters()}
    [own] = [group for group in groups if head & set(map(id, group["params"]))]
    assert {id(parameter) for parameter in own["params"]} == head
    assert (own["lr"], own["weight_decay"]) == (0.125, 0.0)
    assert {group["lr"] for group in groups if group is not own} == {1e-5}
    everything = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(everything) == sorted(id(parameter) for parameter in trainer.model.parameters())


@pytest.mark.parametrize(("lora", "per_generation"), [(False, 1), (True, 2)])
def test_values_at_rollout_are_the_policys(make_trainer: Make, lora: bool, per_generation: int) -> None:
    # With the reference in the same module (LoRA) or not, with TRL's pass for old log-probabilities or without: in the
    # first update after a rollout, the values in training are still those at rollout.
    fresh = 2 * per_generation
    trainer = make_trainer(counts_words, lora=lora, steps_per_generation=per_generation, max_steps=fresh + 1)
    trainer.train()
    inputs, logged = trainer.seen[fresh], trainer.state.log_history[fresh]
    mask = inputs["value_mask"].bool()
    assert inputs["old_values"][mask].std() > 1e-3, "the head has learned nothing: any pass would do"
    unmoved = 0.5 * (inputs["returns"] - inputs["old_values"])[mask].square().mean()
    assert logged["value_loss"] == pytest.approx(unmoved.item(), rel=1e-4)
    assert logged["value_clip_fraction"] == 0.0


def test_single_rollouts_divide_nothing_by_zero(make_trainer: Make, weights_of: Make) -> None:
    trainer = make_trainer(says_red, per_device_train_batch_size=3, per_device_eval_batch_size=1, max_steps=2)
    trainer.eval_dataset = trainer.train_dataset.select(range(3))
    trainer.train()
    trainer.evaluate()
    assert (trainer.num_generations, trainer.num_generations_eval) == (1, 1)
    assert [inputs["prompt_ids"].shape[0] for inputs in trainer.seen] == [3, 3, 1, 1, 1]
    # None stands for "can't be said": the variance that is explained where there is none.
    values = [value for entry in trainer.state.log_history for value in entry.values() if value is not None]
    assert all(map(math.isfinite, values))
    first = trainer.state.log_history[0]
    assert {"value_loss", "value_clip_fraction", "reward", "kl", "entropy"} <= set(first)
    assert "frac_reward_zero_std" not in first
    assert all(weight.isfinite().all() for weight in weights_of(trainer).values())


@pytest.mark.parametrize("lora", [False, True])
def test_a_resumed_training_goes_on_bit_by_bit(make_trainer: Make, weights_of: Make, lora: bool) -> None:
    settings: dict[str, Any] = {"steps_per_generation": 2, "max_steps": 4, "lr_scheduler_type": "linear"}
    settings |= {"save_strategy": "steps", "save_steps": 2, "lora": lora}
    whole, resumed = make_trainer(counts_words, **settings), make_trainer(counts_words, **settings)
    before = weights_of(whole)
    whole.train()
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert len(resumed.seen) == 2
    expected = weights_of(whole)
    assert expected[next(name for name in expected if "value_head.weight" in name)].any()
    assert [name for name, weight in weights_of(resumed).items() if not torch.equal(weight, expected[name])] == []
    if lora:  # adapters and head alone are trained, and kept apart
        moved = {name for name, weight in expected.items() if not torch.equal(weight, before[name])}
        assert moved == {name for name in before if "lora_" in name or "value_head" in name}
        assert all("lora_" in name for name in load_file(checkpoint / "adapter_model.safetensors"))
    (checkpoint / VALUE_HEAD_FILE).unlink()
    with pytest.raises(CheckpointError, match="not a checkpoint of PPO"):
        make_trainer(counts_words, **settings).train(resume_from_checkpoint=str(checkpoint))


def test_a_trained_model_ranks_and_says_nothing_of_its_value_head(
    make_trainer: Make,
    embedded_checkpoint: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    settings = {"max_completion_length": 2, "per_device_train_batch_size": 2}
    trainer = make_trainer(counts_words, checkpoint=embedded_checkpoint, **settings)
    trainer.train()
    folder = tmp_path / "trained"
    trainer.save_model(str(folder))
    shutil.copy(embedded_checkpoint / SETTINGS_FILE, folder)
    assert (folder / VALUE_HEAD_FILE).is_file()
    assert not any("value_head" in name for name in load_file(folder / "model.safetensors"))
    capfd.readouterr()
    recwarn.clear()
    request = RankingRequest("red boat", (Candidate("a", "a blue car"), Candidate("b", "a red boat at sea")))
    [ranking] = Ranker(str(folder), strategy="iterative").rank([request])
    assert sorted(ranking.order) == [0, 1]
    assert "value_head" not in "".join([*capfd.readouterr(), *(str(warning.message) for warning in recwarn)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gamma": 1.5}, "gamma is 1.5: give a number from 0 to 1"),
        ({"gae_lambda": -0.1}, "gae_lambda is -0.1"),
        ({"vf_coef": -1.0}, "vf_coef is -1.0: give a number from 0 to inf"),
        ({"cliprange_value": float("nan")}, "cliprange_value is nan"),
        ({"critic_learning_rate": -1e-3}, "critic_learning_rate is -0.001"),
        ({"loss_type": "cispo"}, "loss_type is 'cispo', which PPO can't use: give bnpo or"),
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level is 'sequence'"),
        ({"zero_variance": "drop"}, "zero_variance is 'drop', which PPO can't use: give keep"),
        ({"per_device_train_batch_size": 1}, "raise per_device_train_batch_size to at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        RankingPPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)
    assert words in str(caught.value)


def test_defaults_are_the_papers() -> None:
    config = RankingPPOConfig(output_dir="unused", use_cpu=True, bf16=False)
    assert (config.num_generations, config.num_iterations) == (1, 1)
    assert (config.epsilon, config.beta, config.temperature, config.learning_rate) == (0.2, 0.001, 1.0, 1e-6)
    assert RankingPPOConfig(output_dir="unused", use_cpu=True, bf16=False, num_generations=4).num_generations == 4
