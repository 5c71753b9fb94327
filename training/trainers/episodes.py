"""Whole-episode training: lists are eliminated by the policy's own answers, and each step gets its own reward.

Sampling steps independently, as the R1-Ranker paper does, trains on prompts with random candidates. Here the prompts
are those that the model's own exclusions lead to.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.prompting import OPENING, PromptRenderer, sample_of, training_rows, turns_of
from r1ranker_ir.training.data.records import Sample, shown_of
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.rewards.rows import RewardFunction
from r1ranker_ir.types import Call

from .advantages import step_advantages
from .grpo import RankingGRPOConfig, RankingGRPOTrainer, replace_last
from .rollouts import Completion, Episode, roll_out
from .variance import drop_rows, group_metrics, total_rewards

logger = logging.getLogger(__name__)


def episode_rows(samples: Any, renderer: PromptRenderer) -> Any:
    """Makes training rows of whole lists, each with the prompt of its first step."""
    kept = [place for place, gains in enumerate(samples["gains"]) if len(set(gains)) > 1]
    if not kept:
        raise InputError(
            f"none of the {len(samples)} lists has candidates of different gains: there is nothing to learn from them"
        )
    if dropped := len(samples) - len(kept):
        logger.warning("%d of %d lists are left out: all of their gains are equal", dropped, len(samples))
    lists = samples.select(kept).map(lambda row: {"strategy": "iterative"}, load_from_cache_file=False)
    return training_rows(lists, renderer)


@dataclass
class EpisodeGRPOConfig(RankingGRPOConfig):
    """`RankingGRPOConfig` and what episodes add.

    A list takes up `episodes_per_list` × (candidates − 1) rows of a batch; `num_generations` is set to that number
    when the trainer sees the lists, whatever was given.
    """

    episodes_per_list: int = field(default=4, metadata={"help": "How often a list is eliminated, at least 2."})
    episode_gamma: float = field(
        default=0.0, metadata={"help": "What later steps count: 0 for a step's own reward alone, 1 for their sum."}
    )

    def __post_init__(self) -> None:
        for name, makes_sense, wanted in (
            ("episodes_per_list", self.episodes_per_list >= 2, "at least 2: steps are compared between episodes"),
            ("episode_gamma", 0 <= self.episode_gamma <= 1, "a number from 0 to 1"),
            (
                "zero_variance",
                self.zero_variance in ("keep", "drop"),
                "keep or drop: the steps of episodes follow each other",
            ),
            (
                "multi_objective_aggregation",
                self.multi_objective_aggregation == "sum_then_normalize",
                "'sum_then_normalize': episodes need the sum of the rewards",
            ),
        ):
            if not makes_sense:
                raise InputError(f"{name} is {getattr(self, name)!r}: give {wanted}")
        # Rows per list are known when the trainer sees the lists: until then TRL is shown one group.
        self.num_generations = self.rows_at_once()
        super().__post_init__()


class EpisodeGRPOTrainer(RankingGRPOTrainer):
    """GRPO on whole eliminations.

    Rewards see the steps that were played, as rows with their own `prompt`, `gains`, `candidates` and `candidate_ids`,
    and with `episode` and `step`, both counted from 1. Of the metrics, `episodes/best_won` is the share of episodes
    whose winner is a best candidate, `episodes/repaired` that of the steps played, and `episodes/masked_steps` that of
    the rows that are not in the loss. `frac_reward_zero_std` and `groups/…` count groups of a list and a step.
    """

    compares_groups = False  # the parent's are of a prompt; here steps are compared

    def __init__(
        self,
        model: Any,
        reward_funcs: Sequence[RewardFunction],
        *,
        args: EpisodeGRPOConfig,
        train_dataset: Any,
        renderer: PromptRenderer,
        **options: Any,
    ) -> None:
        if options.get("eval_dataset") is not None:
            raise InputError("episodes are rolled out for training alone: measure with held_out.rank_held_out instead")
        longest = _longest_list(train_dataset["gains"])
        self.steps_per_episode = longest - 1
        rows_per_list = args.episodes_per_list * self.steps_per_episode
        local_rows = args.per_device_train_batch_size * args.steps_per_generation
        if args.generation_batch_size % rows_per_list or local_rows % self.steps_per_episode:
            raise InputError(
                f"a batch is {args.generation_batch_size} rows, {local_rows} on each device, but a list of {longest} "
                f"candidates takes up {rows_per_list}: {args.episodes_per_list} episodes of {self.steps_per_episode} "
                "steps. Make per_device_train_batch_size x gradient_accumulation_steps x devices a multiple of "
                f"{rows_per_list}, each device's share one of {self.steps_per_episode}"
            )
        args.num_generations = rows_per_list
        super().__init__(
            model,
            [_played_only(reward) for reward in reward_funcs],
            args=args,
            train_dataset=train_dataset,
            renderer=renderer,
            **options,
        )
        self.rollout_func = self._hand_over
        self._rollout: dict[str, Any] = {}
        self._played: list[bool] = []

    def _complete(self, calls: Sequence[Call]) -> list[Completion]:
        """Generates with TRL's own generation, be it transformers' or vLLM's."""
        # Every device takes part in every generation, with as many prompts as the others.
        mine = torch.tensor([len(calls)], device=self.accelerator.device)
        count = int(self.accelerator.gather(mine).max())
        if not count:
            return []
        prompts = [self.renderer.prompt_ids(call.messages) for call in calls]
        padding = [[self._tokenizer.eos_token_id]] * (count - len(calls))
        # 1: with more, vLLM's server would take the prompts for copies and answer only the first of them.
        ids, logprobs = self._generate_single_turn([*prompts, *padding], None, {}, 1)
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        return [
            Completion(tuple(ids[row]), OPENING + texts[row], None if logprobs is None else tuple(logprobs[row]))
            for row in range(len(calls))
        ]

    def _hand_over(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        # TRL's rollout function. The rollout itself comes before, because TRL takes the rows' prompts from its input.
        return self._rollout

    def _written(self, completion_ids: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        return [ids for ids, played in zip(completion_ids, self._played, strict=True) if played]

    def _generate(self, prompts: list[Any]) -> Any:
        output = super()._generate(prompts)
        # TRL has measured the tokens that stand for steps not played, too.
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        measured = torch.zeros(len(self._played), 2, device=self.accelerator.device)
        for row, ids in enumerate(self._written(output[1])):
            measured[row] = torch.tensor([len(ids), ids[-1] in ends])
        lengths, ended = self.accelerator.gather(measured).unbind(dim=1)
        metrics = self._metrics["train"]
        for kind, some in (("", lengths[lengths > 0]), ("terminated_", lengths[ended > 0])):
            values = some if len(some) else torch.zeros(1)
            for name, value in (("mean", values.mean()), ("min", values.min()), ("max", values.max())):
                metrics[f"completions/{name}_{kind}length"][-1] = value.item()
        metrics["completions/clipped_ratio"][-1] = 1 - ended.sum().item() / max(1, int((lengths > 0).sum()))
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        theirs = logging.getLogger("trl.trainer.grpo_trainer")
        theirs.addFilter(_tells_of_other_rows)
        try:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        finally:
            theirs.removeFilter(_tells_of_other_rows)
        if any(self._played) and rewards[self._own_rows].isnan().all():
            raise InputError(
                f"none of the rewards {', '.join(self.reward_func_names)} scores exclusions: add one that does"
            )
        return rewards

    @property
    def _own_rows(self) -> slice:
        """This process's rows among those of all."""
        first = self.accelerator.process_index * len(self._played)
        return slice(first, first + len(self._played))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        records = [sample_of(row).record for row in inputs[:: self.steps_per_episode]]
        episodes = roll_out(records, self.renderer, self._complete, rounds=self.steps_per_episode)
        seconds = time.perf_counter() - started
        batch: dict[str, Any] = super()._generate_and_score_completions(self._rows(inputs, episodes))
        self._metrics["train"]["rollout_seconds"][-1] += seconds
        self._log_outcomes(episodes)
        return self._with_advantages(batch)

    def _rows(self, inputs: Sequence[dict[str, Any]], episodes: Sequence[Episode]) -> list[dict[str, Any]]:
        """One row per step for the rewards, and what TRL takes from the rollout; steps not played become empty rows."""
        nothing = [self._tokenizer.eos_token_id]
        first = self.accelerator.process_index * len(episodes)
        rows: list[dict[str, Any]] = []
        rollout: dict[str, list[Any]] = {"prompt_ids": [], "completion_ids": [], "logprobs": []}
        for number, given in enumerate(inputs):
            episode, step = divmod(number, self.steps_per_episode)
            record, steps = episodes[episode].record, episodes[episode].steps
            turn = (first + episode) % self.args.episodes_per_list
            played = steps[step] if step < len(steps) else None
            rollout["prompt_ids"].append(self.renderer.prompt_ids(played.call.messages) if played else nothing)
            rollout["completion_ids"].append(list(played.completion.token_ids) if played else nothing)
            rollout["logprobs"].append(list(played.completion.logprobs or ()) if played else [0.0])
            shown = row_of(Sample("iterative", shown_of(record, played.shown if played else ())))
            turns = turns_of(played.call.messages) if played else [{"role": "user", "content": ""}]
            place = {"prompt": turns, "played": played is not None, "episode": turn + 1, "step": step + 1}
            rows.append({**given, **shown, **place})
        self._played = [row["played"] for row in rows]
        self._rollout = {**rollout, "logprobs": rollout["logprobs"] if self.use_vllm else None}
        return rows

    def _with_advantages(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Puts each step's advantage in the place of TRL's, and takes steps that were not played out of the loss."""
        totals = total_rewards(self.last_rewards, self.reward_weights)
        rewards = totals.view(-1, self.args.episodes_per_list, self.steps_per_episode)
        advantages, varies = step_advantages(rewards, gamma=self.args.episode_gamma, scale=self.scale_rewards)
        learns = ~rewards.isnan()
        tried = learns.any(dim=1)
        groups, equal = float(tried.sum()), float((tried & ~varies).sum())
        drops = self.args.zero_variance == "drop"
        if drops:
            learns = learns & varies.unsqueeze(1)
        replace_last(self._logs["advantages"], advantages.flatten().tolist())
        metrics = self._metrics["train"]
        metrics["frac_reward_zero_std"][-1] = equal / max(1.0, groups)
        logged = group_metrics(equal, equal if drops else 0.0)
        logged["episodes/masked_steps"] = 1 - learns.float().mean().item()
        for step in range(self.steps_per_episode):
            logged[f"episodes/reward_step_{step + 1}"] = rewards[..., step].nanmean().item()
        for name, value in logged.items():
            metrics[name].append(value)
        batch = {**batch, "advantages": advantages.flatten()[self._own_rows]}
        return drop_rows(batch, ~learns.flatten()[self._own_rows], self.loss_type, self.accelerator.gather)

    def _log_outcomes(self, episodes: Sequence[Episode]) -> None:
        outcomes = [
            (each.best_won, each.reciprocal_rank, sum(step.repaired for step in each.steps), len(each.steps))
            for each in episodes
        ]
        told = torch.tensor(outcomes, dtype=torch.float32, device=self.accelerator.device)
        won, reciprocal, repaired, played = self.accelerator.gather(told).mean(dim=0).tolist()
        metrics = self._metrics["train"]
        metrics["episodes/best_won"].append(won)
        metrics["episodes/reciprocal_rank"].append(reciprocal)
        metrics["episodes/repaired"].append(repaired / played if played else 0.0)


def _longest_list(gains: Sequence[Sequence[float]]) -> int:
    """Candidates of the longest list."""
    lengths = [len(own) for own in gains]
    longest = max(lengths, default=0)
    if longest < 2:
        raise InputError("there is no list of at least 2 candidates to train on: make the rows with `episode_rows`")
    if empty := 1 - sum(length - 1 for length in lengths) / (len(lengths) * (longest - 1)):
        said = "the lists hold %d to %d candidates: %.0f%% of a batch's rows stay empty. Lists of one length waste none"
        logger.warning(said, min(lengths), longest, 100 * empty)
    return longest


def _tells_of_other_rows(message: logging.LogRecord) -> bool:
    """TRL warns of rows without any reward, with all that they hold; steps that were not played have none."""
    return "All reward functions returned None" not in str(message.msg)


def _played_only(reward: RewardFunction) -> RewardFunction:
    """A reward that is asked for the steps that were played, and for no others; those get `None`."""

    @functools.wraps(reward)
    def scored(*, played: Sequence[bool], log_extra: Any = None, **columns: Any) -> list[float | None]:
        places = [place for place, flag in enumerate(played) if flag]

        def spread(values: Sequence[Any]) -> list[Any]:
            by_place = dict(zip(places, values, strict=True))
            return [by_place.get(place) for place in range(len(played))]

        if log_extra is not None:
            columns["log_extra"] = lambda column, values: log_extra(column, spread(values))
        chosen = {
            name: [column[place] for place in places] if isinstance(column, list) else column
            for name, column in columns.items()
        }
        return spread(reward(**chosen) if places else [])

    return scored
