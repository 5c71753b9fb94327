"""GRPO on ranking samples with TRL's trainer, on the prompts that the model will get when it ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.rewards.judged import JudgeSettings
from r1ranker_ir.training.rewards.rows import RewardFunction

from .callback_state import KeptCallback
from .mutation import Mutation
from .variance import Mode, ZeroVariance, scale_loss, zero_variance_groups
from .whole_lists import WholeLists, warn_of_parted_lists


@dataclass
class RankingGRPOConfig(JudgeSettings, GRPOConfig):  # type: ignore[misc]  # TRL's types are not all there
    """TRL's `GRPOConfig` and what ranking adds."""

    rewards: list[str] = field(
        default_factory=lambda: ["exclusion"], metadata={"help": "Reward functions by name, summed."}
    )
    zero_variance: Mode = field(
        default="keep", metadata={"help": "What to do with groups without variance in their rewards."}
    )
    mutation_noise: float = field(
        default=0.5,
        metadata={"help": "With zero_variance mutate: standard deviation of grades around the true one."},
    )
    held_out_every: int = field(default=0, metadata={"help": "Steps between measurements on the held-out lists."})
    max_generated_tokens: int | None = field(default=None, metadata={"help": "Stop after N generated tokens."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero_variance == "mutate" and self.use_vllm:
            raise InputError(
                "zero_variance is 'mutate' with use_vllm: the log-probabilities of vLLM are not those of mutated "
                "answers. Turn use_vllm off, or use replace"
            )
        cycle = self.steps_per_generation * self.num_iterations
        updates = math.lcm(cycle, self.gradient_accumulation_steps) // self.gradient_accumulation_steps
        # A save_steps below 1 is a share of all steps, however many they turn out to be.
        if self.save_strategy == "steps" and updates > 1 and (self.save_steps < 1 or self.save_steps % updates):
            raise InputError(
                f"save_steps is {self.save_steps:g}: a checkpoint between two updates that share their rollouts "
                f"could not be resumed exactly. Give a multiple of {updates}"
            )

    def rows_at_once(self) -> int:
        """Rows of a generation batch on a process, before TRL has derived them: the largest group it accepts."""
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        return int(self.generation_batch_size or self.per_device_train_batch_size * steps)


class GeneratedTokens(KeptCallback):
    """Counts generated tokens and stops a training that has spent its budget; a resumed training counts on."""

    keeps = ("count",)

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.count = 0

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.budget is not None and self.count >= self.budget:
            control.should_training_stop = True


class _EpochOrder(TrainerCallback):
    """Shuffles each epoch by its number; TRL shuffles on from its last order, which a resumed training lacks."""

    sampler: Any = None

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if getattr(self.sampler, "shuffle", False):
            self.sampler.generator.manual_seed(args.seed + int(state.epoch or 0))


class RankingGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer with prompts tokenized as at inference, groups without variance handled, and costs counted."""

    compares_groups = True  # the rewards of a prompt's rollouts with each other, so that their variance matters

    def __init__(
        self,
        model: Any,
        reward_funcs: Sequence[RewardFunction],
        *,
        args: RankingGRPOConfig,
        train_dataset: Any,
        renderer: PromptRenderer,
        **options: Any,
    ) -> None:
        _check_fills_a_batch(train_dataset, args)
        # Gains are a column that a model's signature does not know.
        args.remove_unused_columns = False
        super().__init__(model, list(reward_funcs), args=args, train_dataset=train_dataset, **options)
        # A tokenizer that parses responses would take the thought out of the completions before they are scored.
        for parser in ("response_schema", "response_template"):
            if getattr(self._tokenizer, parser, None) is not None:
                setattr(self._tokenizer, parser, None)
        self.renderer = renderer
        self.generated = GeneratedTokens(args.max_generated_tokens)
        self.add_callback(self.generated)
        self.zero_variance: ZeroVariance | None = None
        if self.compares_groups:
            kinds = {"num_generations": self.num_generations, "loss_type": self.loss_type, "seed": args.seed}
            mutation = Mutation(self._tokenizer, args.mutation_noise)
            self.zero_variance = ZeroVariance(args.zero_variance, mutation=mutation, **kinds)
            self.add_callback(self.zero_variance)
        self._order = _EpochOrder()
        self.add_callback(self._order)
        self.last_rewards = torch.empty(0)
        self._asked: list[dict[str, Any]] = []
        self._previewing = False
        if self._has_lists(train_dataset):
            local_rows = args.per_device_train_batch_size * args.steps_per_generation
            warn_of_parted_lists(train_dataset, local_rows // self.num_generations)

    @staticmethod
    def _has_lists(rows: Any) -> bool:
        return "list" in (getattr(rows, "column_names", None) or ())

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler, rows = super()._get_train_sampler(dataset), self.train_dataset if dataset is None else dataset
        if sampler.shuffle and self._has_lists(rows):
            sampler = WholeLists(sampler, rows["list"])
        self._order.sampler = sampler
        return sampler

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.renderer.prompt_ids(prompt) for prompt in prompts], None, {}

    def _written(self, completion_ids: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The completions that the model has written."""
        return list(completion_ids)

    def _generate(self, prompts: list[Any]) -> Any:
        mode = "train" if self.model.training else "eval"
        started = time.perf_counter()
        output = super()._generate(prompts)
        tokens = torch.tensor([sum(map(len, self._written(output[1])))], device=self.accelerator.device)
        if mode == "train":
            self.generated.count += int(self.accelerator.gather(tokens).sum())
            self._metrics[mode]["generated_tokens"] = [float(self.generated.count)]
        self._metrics[mode]["rollout_seconds"].append(time.perf_counter() - started)
        return output

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> Any:
        completion_ids, logprobs = super()._generate_single_turn(*arguments, **options)
        if self.zero_variance is None or self.zero_variance.mode != "mutate" or not self.model.training:
            return completion_ids, logprobs
        flags = self._without_variance(self._preview(completion_ids))
        index = self.accelerator.process_index
        return self.zero_variance.mutate(completion_ids, self._asked, flags, index), logprobs

    def _preview(self, completion_ids: Any) -> torch.Tensor:
        """The rewards of completions before they are scored for good; what they log is left out."""
        texts = self.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        self._previewing = True
        try:
            prompts = [row["prompt"] for row in self._asked]
            rewards: torch.Tensor = super()._calculate_rewards(self._asked, prompts, completions, completion_ids)
        finally:
            self._previewing = False
        return rewards

    def _log_metric(self, name: str, value: float) -> None:
        if not self._previewing:
            super()._log_metric(name, value)

    def _log_completion_extra(self, column: str, values: list[Any]) -> None:
        if not self._previewing:
            super()._log_completion_extra(column, values)

    def _without_variance(self, rewards: torch.Tensor) -> torch.Tensor:
        by_function = self.multi_objective_aggregation == "normalize_then_sum"
        return zero_variance_groups(rewards, self.reward_weights, self.num_generations, by_function=by_function)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        self.last_rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self.last_rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._asked = inputs
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.zero_variance is None or not self.model.training:
            return batch
        flags = self._without_variance(self.last_rewards)
        batch, counts = self.zero_variance.apply(batch, flags, self.accelerator.gather, self.accelerator.process_index)
        for name, value in counts.items():
            self._metrics["train"][name].append(value)
        return batch

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        return scale_loss(super()._compute_loss(model, inputs), inputs)


def replace_last(logged: Any, values: Sequence[float]) -> None:
    """Puts values in the place of as many at the end of a log of TRL's, a deque that may hold fewer."""
    for _ in range(min(len(logged), len(values))):
        logged.pop()
    logged.extend(values)


def _check_fills_a_batch(rows: Any, args: RankingGRPOConfig) -> None:
    """Refuses data that TRL's sampler would leave out without a word: it deals in whole generation batches."""
    needed = args.generation_batch_size // args.num_generations
    if hasattr(rows, "num_rows") and len(rows) < needed:
        raise InputError(
            f"there are {len(rows)} rows to train on, and a generation batch needs {needed}: "
            f"{args.generation_batch_size} completions, {args.num_generations} per row. Give more rows, or lower "
            "per_device_train_batch_size or gradient_accumulation_steps (generation_batch_size, where it is set)"
        )
