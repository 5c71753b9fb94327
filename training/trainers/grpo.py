"""GRPO on ranking samples with TRL's trainer, on the prompts that the model will get when it ranks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from transformers import TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.rewards.rows import RewardFunction

from .callback_state import KeptCallback
from .curriculum import VarianceCurriculum, list_lengths, local_rows, stages_by_length
from .normalisation import RewardNormaliser, log_raw_rewards
from .variance import ZeroVariance, scale_loss, zero_variance_groups

logger = logging.getLogger(__name__)


@dataclass
class RankingGRPOConfig(GRPOConfig):  # type: ignore[misc]  # TRL's types are not all there
    """TRL's `GRPOConfig` and what ranking adds."""

    rewards: list[str] = field(
        default_factory=lambda: ["exclusion"], metadata={"help": "Reward functions by name, summed."}
    )
    zero_variance: Literal["keep", "drop", "replace"] = field(
        default="keep", metadata={"help": "What to do with groups without variance in their rewards."}
    )
    adaptive_curriculum: bool = field(
        default=False, metadata={"help": "Draw list lengths easy to hard, by the share of groups with variance."}
    )
    normalise_rewards: bool = field(
        default=False, metadata={"help": "Divide rewards by the running standard deviation of their source's."}
    )
    held_out_every: int = field(default=0, metadata={"help": "Steps between measurements on the held-out lists."})
    max_generated_tokens: int | None = field(default=None, metadata={"help": "Stop after N generated tokens."})

    def __post_init__(self) -> None:
        super().__post_init__()
        cycle = self.steps_per_generation * self.num_iterations
        updates = math.lcm(cycle, self.gradient_accumulation_steps) // self.gradient_accumulation_steps
        # A save_steps below 1 is a share of all steps, however many they turn out to be.
        if self.save_strategy == "steps" and updates > 1 and (self.save_steps < 1 or self.save_steps % updates):
            raise InputError(
                f"save_steps is {self.save_steps:g}: a checkpoint between two updates that share their rollouts "
                f"could not be resumed exactly. Give a multiple of {updates}"
            )


class GeneratedTokens(KeptCallback):
    """Counts generated tokens and stops a training that has spent its budget; a resumed training counts on."""

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.count = 0

    def kept(self) -> dict[str, Any]:
        """The count."""
        return {"count": self.count}

    def take_over(self, kept: dict[str, Any]) -> None:
        """Counts on."""
        self.count = int(kept["count"])

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stops when the budget is spent."""
        if self.budget is not None and self.count >= self.budget:
            control.should_training_stop = True


class RankingGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer with prompts tokenized as at inference, groups without variance handled, and costs counted."""

    compares_groups = True
    """Whether the rewards of a prompt's rollouts are compared with each other, so that their variance matters."""

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
        # Gains and sources are columns that a model's signature does not know.
        args.remove_unused_columns = False
        super().__init__(model, list(reward_funcs), args=args, train_dataset=train_dataset, **options)
        # A tokenizer that parses responses would take the thought out of the completions before they are scored.
        for parser in ("response_schema", "response_template"):
            if getattr(self._tokenizer, parser, None) is not None:
                setattr(self._tokenizer, parser, None)
        self.renderer = renderer
        self.generated = GeneratedTokens(args.max_generated_tokens)
        self.zero_variance = (
            ZeroVariance(
                args.zero_variance, num_generations=self.num_generations, loss_type=self.loss_type, seed=args.seed
            )
            if self.compares_groups and self.num_generations > 1
            else None
        )
        self.curriculum = self._open_curriculum(args) if args.adaptive_curriculum else None
        self.normaliser = RewardNormaliser() if args.normalise_rewards else None
        if self.normaliser is not None and self.compares_groups and args.scale_rewards == "group":
            logger.warning("normalise_rewards changes nothing with scale_rewards: group, which scales every group")
        for callback in (self.generated, self.zero_variance, self.curriculum, self.normaliser):
            if callback is not None:
                self.add_callback(callback)
        self.last_rewards: torch.Tensor | None = None
        self._raw_rewards: torch.Tensor | None = None

    def _open_curriculum(self, args: RankingGRPOConfig) -> VarianceCurriculum:
        if self.zero_variance is None:
            raise InputError("adaptive_curriculum goes by the variance of groups: leave it out for this trainer")
        return VarianceCurriculum(stages_by_length(list_lengths(self.train_dataset)), seed=args.seed)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.renderer.prompt_ids(prompt) for prompt in prompts], None, {}

    def _generate(self, prompts: list[Any]) -> Any:
        mode = "train" if self.model.training else "eval"
        started = time.perf_counter()
        output = super()._generate(prompts)
        completion_ids = output[1]
        written = torch.tensor([sum(map(len, completion_ids))], device=self.accelerator.device)
        if mode == "train":
            self.generated.count += int(self.accelerator.gather(written).sum())
            self._metrics[mode]["generated_tokens"] = [float(self.generated.count)]
        self._metrics[mode]["rollout_seconds"].append(time.perf_counter() - started)
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._raw_rewards = rewards
        if self.normaliser is not None and self.model.training:
            sources = gather_object([row["source"] for row in inputs])
            rewards = self.normaliser.normalise(rewards, self.reward_weights, sources)
        self.last_rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return batch
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        drawn: list[int] = []
        if self.curriculum is not None:
            drawn = self.curriculum.draw(len(inputs) * processes // self.num_generations)
            inputs = [self.train_dataset[row] for row in local_rows(drawn, self.num_generations, processes, process)]
        batch = super()._generate_and_score_completions(inputs)
        metrics: dict[str, float] = {}
        if self.normaliser is not None and self._raw_rewards is not None:
            logs = self._metrics["train"], self._logs["rewards"]
            log_raw_rewards(*logs, self._raw_rewards, self.reward_weights, self.reward_func_names)
            metrics |= self.normaliser.metrics()
        if self.zero_variance is not None:
            assert self.last_rewards is not None
            flags = zero_variance_groups(
                self.last_rewards,
                self.reward_weights,
                self.num_generations,
                by_function=self.multi_objective_aggregation == "normalize_then_sum",
            )
            if self.curriculum is not None:
                self.curriculum.observe(drawn, flags.tolist())
                metrics |= self.curriculum.metrics()
            batch, counts = self.zero_variance.apply(batch, flags, self.accelerator.gather, process)
            metrics |= counts.metrics()
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        return batch

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        return scale_loss(super()._compute_loss(model, inputs), inputs)


def _check_fills_a_batch(rows: Any, args: RankingGRPOConfig) -> None:
    """Refuses data that TRL's sampler would leave out without a word: it deals in whole generation batches."""
    needed = args.generation_batch_size // args.num_generations
    if hasattr(rows, "num_rows") and len(rows) < needed:
        raise InputError(
            f"there are {len(rows)} rows to train on, and a generation batch needs {needed}: "
            f"{args.generation_batch_size} completions, {args.num_generations} per row. Give more rows, or lower "
            "per_device_train_batch_size or gradient_accumulation_steps (generation_batch_size, where it is set)"
        )
