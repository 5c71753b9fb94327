"""Whole-episode training: lists are eliminated by the policy's own answers, and each step gets its own reward.

Sampling steps independently, as the R1-Ranker paper does, trains on prompts with random candidates. Here the prompts
are those that the model's own exclusions lead to.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from .grpo import RankingGRPOConfig, RankingGRPOTrainer
from .rollouts import Completion, Episode, roll_out
from .totals import replace_last, total_rewards
from .variance import GroupCounts, drop_rows

logger = logging.getLogger(__name__)


def episode_rows(samples: Any, renderer: PromptRenderer) -> Any:
    """Makes training rows of whole lists, each with the prompt of its first step."""
    if not hasattr(samples, "num_rows"):
        lists = samples.filter(lambda row: len(set(row["gains"])) > 1)
        return training_rows(lists.map(lambda row: {"strategy": "iterative"}), renderer)
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
        if self.episodes_per_list < 2:
            raise InputError(
                f"episodes_per_list is {self.episodes_per_list}: steps are compared between episodes, give at least 2"
            )
        if not 0 <= self.episode_gamma <= 1:
            raise InputError(f"episode_gamma is {self.episode_gamma}: give a number from 0 to 1")
        if self.zero_variance == "replace":
            raise InputError(
                "zero_variance is 'replace', which episodes can't do: their steps follow each other. Use 'drop'"
            )
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise InputError(
                f"multi_objective_aggregation is {self.multi_objective_aggregation!r}: episodes need the sum of the "
                "rewards, 'sum_then_normalize'"
            )
        self.num_generations = self.episodes_per_list  # a divisor of what it will be
        try:
            super().__post_init__()
        except ValueError as error:
            batch = self.generation_batch_size
            if isinstance(error, InputError) or not batch or batch % self.episodes_per_list == 0:
                raise
            raise InputError(
                f"a batch is {batch} rows, but each list takes up episodes_per_list {self.episodes_per_list} x "
                "(candidates - 1): make per_device_train_batch_size x gradient_accumulation_steps a multiple of that"
            ) from error


class EpisodeGRPOTrainer(RankingGRPOTrainer):
    """GRPO on whole eliminations.

    Rewards see the steps that were played, as rows with their own `prompt`, `gains`, `candidates` and `candidate_ids`,
    and with `episode` and `step`, both counted from 1. Metrics of a batch: `episodes/best_won` (share of episodes whose
    winner is a best candidate), `episodes/reciprocal_rank`, `episodes/reward_step_<n>`, `episodes/repaired` (share of
    the steps played), `episodes/masked_steps` (share of the rows that are not in the loss). `frac_reward_zero_std`
    and `groups/…` count groups of a list and a step.
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
        longest = _longest_list(train_dataset)
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

    def _generate(self, prompts: list[Any]) -> Any:
        output = super()._generate(prompts)
        self._correct_lengths(output[1], "train" if self.model.training else "eval")
        return output

    def _correct_lengths(self, completion_ids: Sequence[Sequence[int]], mode: str) -> None:
        """Takes the tokens that stand for steps not played out of what TRL and the parent have counted."""
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        measured = [
            (len(ids), int(ids[-1] in ends)) if played else (0, 0)
            for ids, played in zip(completion_ids, self._played, strict=True)
        ]
        lengths, ended = self.accelerator.gather(torch.tensor(measured, device=self.accelerator.device)).unbind(dim=1)
        metrics = self._metrics[mode]
        if mode == "train":
            self.generated.count -= int((lengths == 0).sum())
            metrics["generated_tokens"] = [float(self.generated.count)]
        written = lengths[lengths > 0].float()
        terminated = lengths[ended > 0].float()
        for kind, some in (("", written), ("terminated_", terminated)):
            values = some if len(some) else torch.zeros(1)
            for name, value in (("mean", values.mean()), ("min", values.min()), ("max", values.max())):
                metrics[f"completions/{name}_{kind}length"][-1] = value.item()
        metrics["completions/clipped_ratio"][-1] = 1 - len(terminated) / max(1, len(written))

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        with _empty_rows_expected():
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
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
        mode = "train" if self.model.training else "eval"
        started = time.perf_counter()
        episodes = self._roll_out(inputs)
        seconds = time.perf_counter() - started
        rows = self._rows(inputs, episodes)
        batch: dict[str, Any] = super()._generate_and_score_completions(rows)
        self._metrics[mode]["rollout_seconds"][-1] += seconds
        self._log_outcomes(episodes, mode)
        return self._with_advantages(batch, mode)

    def _roll_out(self, inputs: Sequence[dict[str, Any]]) -> list[Episode]:
        records = [sample_of(row).record for row in inputs[:: self.steps_per_episode]]
        for record in records:
            if (length := len(record.request.candidates)) > self.steps_per_episode + 1:
                raise InputError(
                    f"list {record.request.query_id!r} has {length} candidates, the first of the streamed data set has "
                    f"{self.steps_per_episode + 1}: put the longest list first, or load the file whole"
                )
        return roll_out(records, self.renderer, self._complete, rounds=self.steps_per_episode)

    def _rows(self, inputs: Sequence[dict[str, Any]], episodes: Sequence[Episode]) -> list[dict[str, Any]]:
        """One row per step for the rewards, and what TRL takes from the rollout; steps not played become empty rows."""
        nothing = [self._tokenizer.eos_token_id]
        first = self.accelerator.process_index * len(episodes)
        rows: list[dict[str, Any]] = []
        prompt_ids, completion_ids, logprobs = [], [], []
        for number, given in enumerate(inputs):
            episode, step = divmod(number, self.steps_per_episode)
            record, steps = episodes[episode].record, episodes[episode].steps
            turn = (first + episode) % self.args.episodes_per_list
            played = steps[step] if step < len(steps) else None
            prompt_ids.append(self.renderer.prompt_ids(played.call.messages) if played else nothing)
            completion_ids.append(list(played.completion.token_ids) if played else nothing)
            logprobs.append(list(played.completion.logprobs or ()) if played else [0.0])
            shown = row_of(Sample("iterative", shown_of(record, played.shown if played else ())))
            turns = turns_of(played.call.messages) if played else [{"role": "user", "content": ""}]
            place = {"prompt": turns, "played": played is not None, "episode": turn + 1, "step": step + 1}
            rows.append({**given, **shown, **place})
        self._played = [row["played"] for row in rows]
        self._rollout = {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": logprobs if self.use_vllm else None,
        }
        return rows

    def _by_step(self, by_function: torch.Tensor | None) -> torch.Tensor:
        """Weighted sums of the rewards in the shape (lists, episodes, steps)."""
        assert by_function is not None
        totals = total_rewards(by_function, self.reward_weights)
        return totals.view(-1, self.args.episodes_per_list, self.steps_per_episode)

    def _with_advantages(self, batch: dict[str, Any], mode: str) -> dict[str, Any]:
        """Puts each step's advantage in the place of TRL's, and takes steps that were not played out of the loss."""
        rewards, raw = self._by_step(self.last_rewards), self._by_step(self._raw_rewards)
        advantages, varies = step_advantages(rewards, gamma=self.args.episode_gamma, scale=self.scale_rewards)
        learns = ~rewards.isnan()
        tried = learns.any(dim=1)
        groups, equal = float(tried.sum()), float((tried & ~varies).sum())
        drops = self.args.zero_variance == "drop"
        if drops:
            learns = learns & varies.unsqueeze(1)

        replace_last(self._logs["advantages"], advantages.flatten().tolist())
        metrics = self._metrics[mode]
        metrics["frac_reward_zero_std"][-1] = equal / max(1.0, groups)
        for name, value in GroupCounts(equal, equal if drops else 0.0).metrics().items():
            metrics[name].append(value)
        metrics["episodes/masked_steps"].append(1 - learns.float().mean().item())
        for step in range(self.steps_per_episode):
            metrics[f"episodes/reward_step_{step + 1}"].append(raw[..., step].nanmean().item())

        batch = {**batch, "advantages": advantages.flatten()[self._own_rows]}
        return drop_rows(batch, ~learns.flatten()[self._own_rows], self.loss_type, self.accelerator.gather)

    def _log_outcomes(self, episodes: Sequence[Episode], mode: str) -> None:
        outcomes = torch.tensor(
            [
                (each.best_won, each.reciprocal_rank, sum(step.repaired for step in each.steps), len(each.steps))
                for each in episodes
            ],
            dtype=torch.float32,
            device=self.accelerator.device,
        )
        won, reciprocal, repaired, played = self.accelerator.gather(outcomes).unbind(dim=1)
        metrics = self._metrics[mode]
        metrics["episodes/best_won"].append(won.mean().item())
        metrics["episodes/reciprocal_rank"].append(reciprocal.mean().item())
        metrics["episodes/repaired"].append(repaired.sum().item() / max(1.0, played.sum().item()))


def _longest_list(dataset: Any) -> int:
    """Candidates of the longest list, of the first one of a streamed data set."""
    seen = dataset["gains"] if hasattr(dataset, "num_rows") else (row["gains"] for row in dataset.take(1))
    lengths = [len(gains) for gains in seen]
    if not lengths or max(lengths) < 2:
        raise InputError("there is no list of at least 2 candidates to train on: make the rows with `episode_rows`")
    if min(lengths) < max(lengths):
        empty = 1 - sum(length - 1 for length in lengths) / (len(lengths) * (max(lengths) - 1))
        logger.warning(
            "the lists hold %d to %d candidates: %.0f%% of a batch's rows stay empty. Lists of one length waste none",
            min(lengths),
            max(lengths),
            100 * empty,
        )
    return max(lengths)


@contextmanager
def _empty_rows_expected() -> Iterator[None]:
    """Keeps TRL from warning of rows without any reward, with all that they hold: steps not played have none."""

    def is_other(message: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in str(message.msg)

    theirs = logging.getLogger("trl.trainer.grpo_trainer")
    theirs.addFilter(is_other)
    try:
        yield
    finally:
        theirs.removeFilter(is_other)


def _played_only(reward: RewardFunction) -> RewardFunction:
    """A reward that is asked for the steps that were played, and for no others; those get `None`."""

    @functools.wraps(reward)
    def scored(*, played: Sequence[bool], log_extra: Any = None, **columns: Any) -> list[float | None]:
        places = [place for place, flag in enumerate(played) if flag]

        def spread(values: Sequence[Any], missing: Any) -> list[Any]:
            spread_out = [missing] * len(played)
            for place, value in zip(places, values, strict=True):
                spread_out[place] = value
            return spread_out

        if not places:
            return spread([], None)
        if log_extra is not None:
            columns["log_extra"] = lambda column, values: log_extra(column, spread(values, None))
        chosen = {
            name: [column[place] for place in places] if isinstance(column, list) else column
            for name, column in columns.items()
        }
        return spread(reward(**chosen), None)

    return scored
