"""PPO with a value head, the algorithm of the R1-Ranker paper, on TRL's GRPO loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.rewards.rows import RewardFunction

from .advantages import clipped_value_loss, explained_variance, gae, whiten
from .grpo import RankingGRPOConfig, RankingGRPOTrainer, replace_last
from .value_head import ValueHead, attach_value_head, is_value_head, read_value_head, save_value_head
from .variance import total_rewards

_RANGES = {
    **dict.fromkeys(("gamma", "gae_lambda"), 1.0),
    **dict.fromkeys(("vf_coef", "cliprange_value", "critic_learning_rate"), math.inf),
}
_CHOICES = {
    # Those of TRL's losses that clip the ratio of every token, and so can take an advantage of every token.
    "loss_type": ("bnpo", "grpo", "dr_grpo", "dapo"),
    "importance_sampling_level": ("token",),
    "zero_variance": ("keep",),  # rollouts are not compared within groups
}


@dataclass
class RankingPPOConfig(RankingGRPOConfig):
    """The configuration of GRPO and what PPO adds; the defaults are the paper's where it names them."""

    num_generations: int | None = field(default=1, metadata={"help": "Rollouts per prompt."})
    num_generations_eval: int | None = field(default=1, metadata={"help": "Rollouts per prompt in evaluation."})
    loss_type: str = field(default="bnpo", metadata={"help": f"One of {', '.join(_CHOICES['loss_type'])}."})
    beta: float = field(default=0.001, metadata={"help": "Weight of the KL divergence from the reference model."})
    gamma: float = field(default=1.0, metadata={"help": "Discount of one token."})
    gae_lambda: float = field(default=0.95, metadata={"help": "Lambda of generalised advantage estimation."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    cliprange_value: float = field(default=0.2, metadata={"help": "How far a value may move per generation batch."})
    critic_learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of the value head."})
    value_head_detached: bool = field(default=True, metadata={"help": "Keep the value loss out of the policy."})
    whiten_advantages: bool = field(default=True, metadata={"help": "Whiten advantages over a generation batch."})

    def __post_init__(self) -> None:
        for name, most in _RANGES.items():
            if not 0.0 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)!r}: give a number from 0 to {most:g}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}, which PPO can't use: give {' or '.join(known)}")
        wanted, at_once = self.num_generations, self.rows_at_once()
        if wanted == 1:
            # TRL refuses single rollouts, which tell nothing without a value function, and wants whole groups in a
            # generation batch: it is shown one group as large as a process's share, and nothing depends on that.
            if at_once < 2:
                raise InputError("a generation batch of 1 rollout: raise per_device_train_batch_size to at least 2")
            self.num_generations = at_once
        super().__post_init__()
        self.num_generations = wanted


class RankingPPOTrainer(RankingGRPOTrainer):
    """PPO: the parent's rollouts and clipped loss, with advantages from a value head instead of from groups.

    The head is linear, starts at zero and is a submodule of the policy; it reads the direction of the last hidden
    state of the very forward pass that TRL's log-probabilities come from.
    """

    _tag_names = ["trl", "ppo"]  # noqa: RUF012
    _name = "PPO"
    _paper = {"title": "Proximal Policy Optimization Algorithms", "id": "1707.06347"}  # noqa: RUF012

    args: RankingPPOConfig
    model: Any
    compares_groups = False

    def __init__(
        self, model: Any, reward_funcs: Sequence[RewardFunction], *, args: RankingPPOConfig, **options: Any
    ) -> None:
        super().__init__(model, reward_funcs, args=args, **options)
        policy = self.model.get_base_model() if is_peft_model(self.model) else self.model
        self.value_head = ValueHead(
            policy.config.get_text_config().hidden_size,
            1,
            device=policy.get_output_embeddings().weight.device,
            dtype=policy.dtype if self.is_fsdp_enabled else torch.float32,  # FSDP shards one dtype at a time
        )
        attach_value_head(policy, self.value_head)
        policy.base_model.register_forward_hook(self._read_values)
        self._tokens_read = 0  # how many tokens of a forward pass are wanted; 0 while completions are generated
        self._chunks: list[torch.Tensor] = []
        self._passes: list[torch.Tensor] = []

    def _read_values(self, backbone: Any, inputs: Any, output: Any) -> None:
        if not self._tokens_read:
            return
        # The state in front of a token: where its log-probability comes from, too.
        hidden = output.last_hidden_state[:, -self._tokens_read - 1 : -1]
        self._chunks.append(self.value_head(hidden.detach() if self.args.value_head_detached else hidden))

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **options: Any
    ) -> Any:
        self._tokens_read, self._chunks = logits_to_keep, []
        try:
            output = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **options
            )
        finally:
            self._tokens_read = 0
        if self._chunks:  # none were read if the pass was the reference model's
            self._passes.append(torch.cat(self._chunks))
        return output

    def _old_values(self, rollouts: dict[str, Any], batch_size: int) -> torch.Tensor:
        """The values at rollout: from TRL's pass for old log-probabilities, its first, or from an extra one."""
        if "old_per_token_logps" not in rollouts:
            self._passes.clear()
            ids = torch.cat([rollouts["prompt_ids"], rollouts["completion_ids"]], dim=1)
            attended = torch.cat([rollouts["prompt_mask"], rollouts["completion_mask"]], dim=1)
            tokens = rollouts["completion_ids"].shape[1]
            with torch.no_grad():
                self._get_per_token_logps_and_entropies(self.model, ids, attended, tokens, batch_size=batch_size)
        return self._passes[0]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._passes.clear()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        size = self.args.per_device_train_batch_size if mode == "train" else self.args.per_device_eval_batch_size
        values = self._old_values(output, size)
        # Rows that no reward function scores have no return: nothing is learned from them.
        totals = total_rewards(self.last_rewards, self.reward_weights).unsqueeze(1)
        totals = totals[self.accelerator.process_index * len(values) :][: len(values)]
        mask = output["completion_mask"] * ~totals.isnan()
        last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
        rewards = torch.zeros_like(values).scatter(1, last, totals.nan_to_num(0.0).to(values.dtype))
        advantages, returns = gae(rewards, values, mask, self.args.gamma, self.args.gae_lambda)
        metrics, total = self._metrics[mode], partial(self.accelerator.reduce, reduction="sum")
        metrics["explained_variance"].append(explained_variance(values, returns, mask, total))
        if self.args.whiten_advantages:
            advantages = whiten(advantages, mask, total)
        if self.num_generations == 1:
            metrics.pop("frac_reward_zero_std", None)  # always 1 for groups of one
        # A completion's mean advantage stands in the log of completions, in place of the parent's by groups.
        means = self.accelerator.gather(advantages.sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        replace_last(self._logs["advantages"], means.tolist())
        return {**output, "advantages": advantages, "returns": returns, "old_values": values, "value_mask": mask}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._passes.clear()
        loss = super()._compute_loss(model, inputs)
        mode = "train" if self.model.training else "eval"
        value_loss, share = clipped_value_loss(
            self._passes.pop(), inputs["old_values"], inputs["returns"], inputs["value_mask"], self.args.cliprange_value
        )
        logged = self.accelerator.reduce(torch.stack([value_loss.detach(), share]), reduction="mean")
        self._metrics[mode]["value_loss"].append(logged[0].item())
        self._metrics[mode]["value_clip_fraction"].append(logged[1].item())
        # TRL's losses hold the division by accumulation steps already.
        steps = self.current_gradient_accumulation_steps if mode == "train" else 1
        return loss + self.args.vf_coef * value_loss / steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Makes the optimiser, with the value head in a parameter group of its own."""
        given = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if not given:
            head = list(self.value_head.parameters())
            for group in optimizer.param_groups:
                group["params"] = [each for each in group["params"] if each not in set(head)]
            optimizer.add_param_group({"params": head, "lr": self.args.critic_learning_rate, "weight_decay": 0.0})
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Sharded trainings hand in what they gathered; saving takes the head out of it.
        named = list((self.model.state_dict() if state_dict is None else state_dict).items())
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_value_head(named, Path(str(output_dir or self.args.output_dir)))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if not is_value_head(name)]
        super()._issue_warnings_after_load(load_result)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.is_fsdp_enabled:  # whose own files hold the whole module
            self.value_head.load_state_dict(read_value_head(Path(resume_from_checkpoint)))
