"""Whole-episode training: eliminations by the policy's own answers, their steps as rows, and each step's advantage."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.training.data.prompting import OPENING, PromptRenderer
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.rewards.rewards import exclusion_reward, ranking_reward
from r1ranker_ir.training.trainers.advantages import step_advantages
from r1ranker_ir.training.trainers.episodes import EpisodeGRPOConfig, EpisodeGRPOTrainer, episode_rows
from r1ranker_ir.training.trainers.rollouts import Completion, roll_out
from r1ranker_ir.types import Answer, Call, Candidate

NAN = float("nan")
WORDS = ("boat", "car", "tree", "stone", "lamp", "river")


def make_record(gains: Sequence[float], number: int = 0) -> JudgedRequest:
    """A list whose texts name their places; what is worth more holds more of the query's words."""
    query = f"red {WORDS[number % len(WORDS)]} harbour"
    words = query.split()
    candidates = tuple(
        Candidate(f"c{place}", " ".join([f"place{place}", *words[: round(gain * len(words))]]))
        for place, gain in enumerate(gains)
    )
    return judged(query, candidates, tuple(gains), id=f"q{number}", source="made up")


def make_lists(*gains: Sequence[float]) -> Any:
    records = [make_record(list_gains, number) for number, list_gains in enumerate(gains)]
    return Dataset.from_list([row_of(Sample("direct", record)) for record in records])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def renderer(tokenizer: Any) -> PromptRenderer:
    template = read_settings(TINY_CHECKPOINT).template
    assert template is not None
    return PromptRenderer(tokenizer, template, max_passage_tokens=16, context_length=512, completion_tokens=80)


class Answering:
    """Answers calls from a list of texts, in their order, and keeps the calls of every round."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = iter(texts)
        self.rounds: list[list[Call]] = []

    def __call__(self, calls: Sequence[Call]) -> list[Completion]:
        self.rounds.append(list(calls))
        return [Completion((1,), OPENING + next(self._texts)) for _ in calls]


def excluding(number: int) -> str:
    return f"</think>\n<answer>[{number}]</answer>"


# --- rollouts --------------------------------------------------------------------------------------------------------


def test_lists_advance_together_and_end_when_decided(renderer: PromptRenderer) -> None:
    records = [make_record([0, 1, 0, 0]), make_record([0, 0, 1], 1), make_record([1, 1], 2)]
    # Round 1: the first list loses its third, the second its positive. Round 2: the first its first; round 3 its last.
    answers = Answering([excluding(3), excluding(3), excluding(1), excluding(2)])
    first, second, third = roll_out(records, renderer, answers, rounds=4)
    assert [len(calls) for calls in answers.rounds] == [2, 1, 1, 0]
    assert [step.shown for step in first.steps] == [(0, 1, 2, 3), (0, 1, 3), (1, 3)]
    assert [step.excluded for step in first.steps] == [2, 0, 3]
    assert first.order == (1, 3, 0, 2)
    assert (first.best_won, first.reciprocal_rank) == (True, 1.0)
    # What is left of the second list can't be told apart any more, and never could in the third.
    assert [step.excluded for step in second.steps] == [2]
    assert (second.order, second.best_won, second.reciprocal_rank) == ((0, 1, 2), False, 1 / 3)
    assert (third.steps, third.order, third.best_won) == ((), (0, 1), True)


def test_graded_lists_go_on_while_gains_differ(renderer: PromptRenderer) -> None:
    record = make_record([0.5, 1, 0.5, 0])
    [episode] = roll_out([record], renderer, Answering([excluding(2), excluding(3)]))
    assert [step.excluded for step in episode.steps] == [1, 3]
    assert (episode.order, episode.best_won, episode.reciprocal_rank) == ((0, 2, 3, 1), False, 1.0)


ANSWERS = st.one_of(
    st.integers(0, 6).map(excluding),
    st.sampled_from([
        "",
        "no idea",
        "[1] is bad",
        "</think>",
        "</think><answer></answer>",
        "</think><answer>none</answer>",
        "</think><answer>2</answer>",
        "</think><answer>[1] [2]</answer>",
        "</think><answer>[9] [2]</answer>",
        "</think><answer>[2",
    ]),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    places=st.integers(2, 5).flatmap(lambda count: st.permutations(range(count))), texts=st.lists(ANSWERS, min_size=4)
)
def test_rollouts_are_what_inference_makes_of_the_same_answers(
    renderer: PromptRenderer, places: list[int], texts: list[str]
) -> None:
    # All gains differ, so that the episode goes on to the end.
    record = make_record([place / 10 for place in places])
    [episode] = roll_out([record], renderer, Answering(texts))
    prompt = Prompt(renderer.template, renderer, max_passage_tokens=renderer.max_passage_tokens)
    program, calls, answers = eliminate(record.request, prompt), [], iter(texts)
    call = next(program)
    while True:
        calls.append(call)
        try:
            call = program.send(Answer(OPENING + next(answers)))
        except StopIteration as stop:
            ranking = stop.value
            break
    assert episode.order == ranking.order
    assert [step.call.messages for step in episode.steps] == [call.messages for call in calls]
    played = [(step.shown, (step.excluded,), step.repaired) for step in episode.steps]
    assert played == [(step.shown, step.outcome, step.repaired) for step in ranking.steps]


# --- advantages ------------------------------------------------------------------------------------------------------


def test_each_step_is_compared_with_the_same_step_of_other_episodes() -> None:
    # Two lists, three episodes, three steps; the first list's second episode ends at step 1, the third at step 2.
    rewards = torch.tensor([
        [[1.0, 1.0, 0.0], [0.0, NAN, NAN], [0.5, 0.0, NAN]],
        [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, NAN, NAN]],
    ])  # fmt: skip
    advantages, varies = step_advantages(rewards, scale="none")
    expected = [
        [[0.5, 0.5, 0.0], [-0.5, 0.0, 0.0], [0.0, -0.5, 0.0]],
        [[0.0, -0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]],
    ]
    torch.testing.assert_close(advantages, torch.tensor(expected))
    assert varies.tolist() == [[True, True, False], [False, True, False]]
    # Of 1, 0, 0.5 the sample deviation is 0.5; of two values 0 and 1 it is the root of one half.
    scaled, _ = step_advantages(rewards, scale="group")
    assert scaled[0, :, 0].tolist() == pytest.approx([0.5 / 0.5001, -0.5 / 0.5001, 0.0])
    assert scaled[1, :, 1].tolist() == pytest.approx([-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4), 0])
    values = [1, 1, 0, 0, 0.5, 0, 1, 0, 1, 1, 1, 1, 1]
    mean = sum(values) / 13
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 12)
    in_batch, _ = step_advantages(rewards, scale="batch")
    torch.testing.assert_close(in_batch, torch.tensor(expected) / (deviation + 1e-4))


def test_a_discount_counts_what_follows() -> None:
    rewards = torch.tensor([[[1.0, 0.0, 1.0], [1.0, 1.0, NAN]]])
    # Returns with 0.5: 1 + 0/2 + 1/4, 0 + 1/2, 1 and 1 + 1/2, 1.
    advantages, _ = step_advantages(rewards, gamma=0.5, scale="none")
    torch.testing.assert_close(advantages, torch.tensor([[[-0.125, -0.25, 0.0], [0.125, 0.25, 0.0]]]))
    # Sums of the rest: 2, 1, 1 and 2, 1.
    advantages, varies = step_advantages(rewards, gamma=1.0, scale="none")
    assert advantages.tolist() == [[[0.0] * 3] * 2]
    assert varies.tolist() == [[False] * 3]


@given(
    st.integers(2, 4).flatmap(
        lambda steps: st.lists(
            st.lists(st.sampled_from([NAN, -1.0, 0.0, 0.5, 1.0]), min_size=steps, max_size=steps),
            min_size=2,
            max_size=5,
        )
    ),
    st.floats(0, 1),
)
def test_advantages_of_a_step_balance(episodes: list[list[float]], gamma: float) -> None:
    rewards = torch.tensor([episodes], dtype=torch.float64)
    advantages, varies = step_advantages(rewards, gamma=gamma)
    assert not advantages.isnan().any()
    assert advantages[rewards.isnan()].abs().sum() == 0
    assert advantages.sum(dim=1).abs().max() < 1e-6
    assert advantages[0][:, ~varies[0]].abs().sum() < 1e-2


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_ask_for_the_first_exclusion_of_lists_with_something_to_learn(
    renderer: PromptRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows = episode_rows(make_lists([0, 1, 0], [0, 0, 0], [1, 0], [1, 1]), renderer)
    assert "2 of 4 lists" in caplog.text
    assert (rows["id"], rows["strategy"]) == (["q0", "q2"], ["iterative"] * 2)
    for row in rows:
        expected = renderer.render(Sample("iterative", make_record(row["gains"], int(row["id"][1:]))))
        assert [turn["content"] for turn in row["prompt"]] == [message.content for message in expected.messages]
    streamed = list(episode_rows(make_lists([0, 1, 0], [0, 0, 0], [1, 0]).to_iterable_dataset(), renderer))
    assert [row["prompt"] for row in streamed] == rows["prompt"]
    with pytest.raises(InputError, match="none of the 2 lists has candidates of different gains"):
        episode_rows(make_lists([0, 0], [1, 1]), renderer)


# --- the trainer -----------------------------------------------------------------------------------------------------


class Recorder:
    """The exclusion reward, which keeps what it is asked."""

    __name__ = "exclusion"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, **columns: Any) -> list[float | None]:
        rewards = exclusion_reward(**columns)
        self.asked.append({**columns, "rewards": rewards})
        return rewards


SETTINGS: dict[str, Any] = {
    **{"per_device_train_batch_size": 9, "episodes_per_list": 3, "max_completion_length": 80, "seed": 3},
    # The embedded model is too sure of itself for rewards to differ.
    **{"temperature": 1.5, "learning_rate": 1e-3},
}


@pytest.fixture
def make_trainer(make_bench: Callable[..., Any], renderer: PromptRenderer) -> Callable[..., Any]:
    """Makes a trainer on rows, by default of the embedded model: `make_trainer(rows, max_steps=2)`."""

    def make(rows: Any, reward: Any = exclusion_reward, *, model: Path = TINY_CHECKPOINT, **options: Any) -> Any:
        bench = make_bench(model, kind=EpisodeGRPOTrainer, config=EpisodeGRPOConfig, settings=SETTINGS, loading={})
        bench.renderer = options.pop("renderer", renderer)
        more = {name: options.pop(name) for name in ("eval_dataset", "processing_class") if name in options}
        return bench.trainer(reward, rows=rows, options=more, **options)

    return make


# Gains for which the model, which counts words, is often unsure.
LISTS = ([0.3, 0, 0.3, 1.0], [1.0, 0.6, 0, 0.3], [0, 0.6, 0.6, 1.0], [0.6, 1.0, 0, 0])


@pytest.fixture(scope="module")
def rows(renderer: PromptRenderer) -> Any:
    return episode_rows(make_lists(*LISTS), renderer)


def test_rows_are_steps_of_eliminations(make_trainer: Callable[..., Any], renderer: PromptRenderer) -> None:
    # Two or three steps decide the first list, one decides the second, whatever the model excludes. The words of the
    # second mislead, so that what is right for one is wrong for the other.
    first, second = make_record([0.3, 0, 0.3, 1.0]), replace(make_record([0.6, 1.0], 1), gains=(1.0, 0.6))
    rows = episode_rows(Dataset.from_list([row_of(Sample("direct", record)) for record in (first, second)]), renderer)
    reward = Recorder()
    trainer = make_trainer(rows, reward, per_device_train_batch_size=18)
    trainer.model.train()
    inputs = [trainer.train_dataset[number] for number in (0, 1) for _ in range(9)]
    batch = trainer._generate_and_score_completions(inputs)
    [asked] = reward.asked
    records = {"q0": first, "q1": second}
    episodes: dict[tuple[str, int], list[int]] = {}
    for place in range(len(asked["id"])):
        record = records[asked["id"][place]]
        steps = episodes.setdefault((record.request.query_id, asked["episode"][place]), [])
        steps.append(place)
        assert asked["step"][place] == len(steps)
        ids = asked["candidate_ids"][place]
        # The gains and the prompt are those of the candidates shown, in the list's order.
        shown = [int(identity[1:]) for identity in ids]
        assert shown == sorted(shown)
        assert asked["gains"][place] == [record.gains[position] for position in shown]
        prompt = asked["prompts"][place][-1]["content"]
        assert [int(number) for number in re.findall(r"^\[\d+\] place(\d+)", prompt, re.MULTILINE)] == shown
        assert asked["strategy"][place] == "iterative"
        if len(steps) > 1:
            # One candidate less than at the step before: the one that the answer named.
            before = asked["candidate_ids"][steps[-2]]
            [gone] = set(before) - set(ids)
            text = asked["completions"][steps[-2]][0]["content"]
            named = re.search(r"<answer>\[(\d)\]</answer>", text)
            assert gone == (before[int(named[1]) - 1] if named and int(named[1]) <= len(before) else before[-1])
    assert sorted(episodes) == [(name, turn) for name in ("q0", "q1") for turn in (1, 2, 3)]
    for (name, _), places in episodes.items():
        assert len(asked["candidate_ids"][places[0]]) == len(records[name].gains)
        assert len(places) in ((2, 3) if name == "q0" else (1,))
        # The last step played is the first after which all that is left is worth the same.
        assert all(len(set(asked["gains"][place])) > 1 for place in places)
    # TRL gets all rows; those that were not played are not in the loss, and the others hold what the reward was asked.
    mask = batch["tool_mask"].bool()
    played = torch.tensor([
        3 * list(episodes).index(key) + step for key, places in episodes.items() for step in range(len(places))
    ])  # fmt: skip
    assert batch["prompt_ids"].shape[0] == 18
    assert 9 <= len(played) <= 12
    assert len(set(asked["rewards"])) > 1
    assert mask.any(dim=1).nonzero().flatten().tolist() == played.tolist()
    for row, prompt, ids in zip(played.tolist(), asked["prompts"], asked["completion_ids"], strict=True):
        assert batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist() == renderer.prompt_ids(prompt)
        assert batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist() == ids
    tokens = sum(map(len, asked["completion_ids"]))
    assert batch["num_items_in_batch"] == tokens
    assert trainer.generated.count == tokens
    rewards = torch.full((18,), NAN)
    rewards[played] = torch.tensor(asked["rewards"], dtype=torch.float32)
    expected, _ = step_advantages(rewards.view(2, 3, 3))
    torch.testing.assert_close(batch["advantages"], expected.flatten())
    metrics = trainer._metrics["train"]
    assert metrics["generated_tokens"] == [tokens]
    assert metrics["completions/mean_length"][-1] == pytest.approx(tokens / len(played))
    assert metrics["completions/min_length"][-1] == min(map(len, asked["completion_ids"]))
    assert metrics["episodes/masked_steps"][-1] == pytest.approx(1 - len(played) / 18)
    assert metrics["reward"][-1] == pytest.approx(rewards.nanmean().item())
    assert metrics["episodes/reward_step_2"][-1] == pytest.approx(rewards.view(-1, 3)[:, 1].nanmean().item())
    assert metrics["rollout_seconds"][-1] > 0.05
    assert list(trainer._logs["advantages"]) == pytest.approx(expected.flatten().tolist())


def test_unusable_answers_are_repaired_and_rewarded_as_they_are(
    make_trainer: Callable[..., Any], make_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint("chatml")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    renderer = PromptRenderer(tokenizer, load_template(), context_length=1024, completion_tokens=24)
    # A model of random weights never closes its thought, so the last candidate goes, at every step.
    reward = Recorder()
    trainer = make_trainer(
        episode_rows(make_lists([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]), renderer),
        reward,
        model=folder,
        processing_class=tokenizer,
        renderer=renderer,
        per_device_train_batch_size=12,
        episodes_per_list=2,
        max_completion_length=24,
        num_train_epochs=1,
        max_steps=-1,
    )
    trainer.train()
    [asked] = reward.asked
    shown = {
        (number, step): ids
        for number, step, ids in zip(asked["id"], asked["step"], asked["candidate_ids"], strict=True)
    }
    assert shown == {
        ("q0", 1): ["c0", "c1", "c2"],
        ("q0", 2): ["c0", "c1"],
        ("q1", 1): ["c0", "c1", "c2"],
        ("q1", 2): ["c0", "c1"],
        ("q2", 1): ["c0", "c1", "c2"],  # its positive goes, and with it what there was to learn
    }
    assert len(asked["id"]) == 10
    assert "All reward functions returned None" not in caplog.text
    assert max(asked["rewards"]) < -1
    [logged] = [entry for entry in trainer.state.log_history if "episodes/repaired" in entry]
    assert logged["episodes/repaired"] == 1
    assert logged["episodes/best_won"] == pytest.approx(1 / 3)
    assert logged["episodes/reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert logged["episodes/masked_steps"] == pytest.approx(2 / 12)
    # The text of random tokens varies, but it has no tags, and so all rewards are the same.
    assert logged["frac_reward_zero_std"] == 1


def train(trainer: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The weights after a training, and what it has logged but for seconds."""
    trainer.train()
    weights = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    history = [
        {name: value for name, value in entry.items() if "seconds" not in name and "time" not in name}
        for entry in trainer.state.log_history[:-1]
    ]
    return weights, history


def test_training_learns_and_repeats_itself(make_trainer: Callable[..., Any], rows: Any) -> None:
    before = dict(AutoModelForCausalLM.from_pretrained(TINY_CHECKPOINT).named_parameters())
    options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "max_steps": 2}
    weights, history = train(make_trainer(rows, **options))
    assert [entry["step"] for entry in history] == [1, 2]
    assert all(entry["grad_norm"] > 0 for entry in history)
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    again, repeated = train(make_trainer(rows, **options))
    assert history == repeated
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_groups_without_variance_can_be_dropped(make_trainer: Callable[..., Any], rows: Any) -> None:
    # Without any reward that differs, nothing is left of the loss.
    def constant(completions: list[Any], **columns: Any) -> list[float]:
        columns["log_extra"]("length", [len(completion[0]["content"]) for completion in completions])
        return [0.25] * len(completions)

    trainer = make_trainer(rows, constant, zero_variance="drop", beta=0.1)
    trainer.train()
    [entry] = trainer.state.log_history[:-1]
    assert (entry["episodes/masked_steps"], entry["frac_reward_zero_std"], entry["grad_norm"]) == (1, 1, 0)
    assert entry["groups/dropped"] == entry["groups/zero_variance"] > 0
    # Rewards are asked for the steps that were played; what they log has one entry a row all the same.
    lengths = list(trainer._logs["extra"]["length"])
    assert len(lengths) == len(trainer._logs["prompt"]) == 9
    assert [length is None for length in lengths] == [not prompt[0]["content"] for prompt in trainer._logs["prompt"]]


def test_shorter_lists_leave_rows_empty(
    make_trainer: Callable[..., Any], renderer: PromptRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    reward = Recorder()
    mixed = episode_rows(make_lists([0, 1.0, 0.5, 0.6], [0.3, 1.0]), renderer)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(mixed, reward, per_device_train_batch_size=12, episodes_per_list=2)
    assert "2 to 4 candidates: 33% of a batch's rows stay empty" in caplog.text
    trainer.train()
    [asked] = reward.asked
    assert [ids for number, ids in zip(asked["id"], asked["candidate_ids"], strict=True) if number == "q1"] == [
        ["c0", "c1"]
    ] * 2
    assert {step for number, step in zip(asked["id"], asked["step"], strict=True) if number == "q0"} == {1, 2, 3}


def test_lists_can_be_streamed_the_longest_first(make_trainer: Callable[..., Any], renderer: PromptRenderer) -> None:
    options: dict[str, Any] = {"episodes_per_list": 2, "per_device_train_batch_size": 12, "shuffle_dataset": False}
    reward = Recorder()

    def stream(*gains: Sequence[float]) -> Any:
        return episode_rows(make_lists(*gains).to_iterable_dataset(), renderer)

    trainer = make_trainer(stream([0, 1.0, 0.5], [1.0, 0.3], [0, 1.0, 0.6]), reward, **options)
    trainer.train()
    assert set(reward.asked[0]["id"]) == {"q0", "q1", "q2"}
    trainer = make_trainer(stream([0, 1.0, 0.5], [1.0, 0.3, 0, 0], [0, 1.0, 0.6]), reward, **options)
    with pytest.raises(InputError, match="list 'q1' has 4 candidates, the first of the streamed data set has 3"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes_per_list": 1}, "episodes_per_list is 1"),
        ({"episode_gamma": 1.5}, "episode_gamma is 1.5"),
        ({"zero_variance": "replace"}, "Use 'drop'"),
        ({"adaptive_curriculum": True}, "adaptive_curriculum"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "sum_then_normalize"),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, "a batch is 4 rows.* multiple"),
        ({"per_device_train_batch_size": 12}, "a batch is 12 rows.* 9: 3 episodes of 3 steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    make_trainer: Callable[..., Any], rows: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_trainer(rows, **options)


def test_data_that_makes_no_episodes_is_refused(make_trainer: Callable[..., Any], rows: Any) -> None:
    with pytest.raises(InputError, match="no list of at least 2 candidates"):
        make_trainer(rows.select([]))
    with pytest.raises(InputError, match="held_out"):
        make_trainer(rows, eval_dataset=rows)


def test_rewards_of_other_strategies_alone_are_refused(make_trainer: Callable[..., Any], rows: Any) -> None:
    with pytest.raises(InputError, match="none of the rewards ranking_reward scores exclusions"):
        make_trainer(rows, ranking_reward, max_completion_length=2).train()
