"""Whole-episode training: eliminations by the policy's own answers, and their steps as rows with advantages."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.training.data.prompting import OPENING, PromptRenderer
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.rewards.rewards import exclusion_reward, ranking_reward
from r1ranker_ir.training.trainers.advantages import step_advantages
from r1ranker_ir.training.trainers.episodes import EpisodeGRPOConfig, EpisodeGRPOTrainer, episode_rows
from r1ranker_ir.training.trainers.rollouts import Completion, roll_out
from r1ranker_ir.types import Answer, Call, Candidate

Make = Callable[..., Any]
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


def dataset_of(*records: JudgedRequest) -> Any:
    return Dataset.from_list([row_of(Sample("direct", record)) for record in records])


def make_lists(*gains: Sequence[float]) -> Any:
    return dataset_of(*(make_record(list_gains, number) for number, list_gains in enumerate(gains)))


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    template = read_settings(TINY_CHECKPOINT).template
    assert template is not None
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT)
    return PromptRenderer(tokenizer, template, max_passage_tokens=16, context_length=512, completion_tokens=80)


class Answering:
    """Answers calls from a list of texts, in their order, and counts the calls of every round."""

    def __init__(self, *texts: str) -> None:
        self._texts = iter(texts)
        self.rounds: list[int] = []

    def __call__(self, calls: Sequence[Call]) -> list[Completion]:
        self.rounds.append(len(calls))
        return [Completion((1,), OPENING + next(self._texts)) for _ in calls]


def excluding(number: int) -> str:
    return f"</think>\n<answer>[{number}]</answer>"


def test_lists_advance_together_and_end_when_decided(renderer: PromptRenderer) -> None:
    records = [make_record(gains, number) for number, gains in enumerate(([0, 1, 0, 0], [0, 0, 1], [1, 1]))]
    # Round 1: the first list loses its third, the second its positive. Round 2: the first its first; round 3 its last.
    answers = Answering(*map(excluding, (3, 3, 1, 2)))
    first, second, third = roll_out(records, renderer, answers, rounds=4)
    assert answers.rounds == [2, 1, 1, 0]
    assert [step.shown for step in first.steps] == [(0, 1, 2, 3), (0, 1, 3), (1, 3)]
    assert [step.excluded for step in first.steps] == [2, 0, 3]
    assert (first.order, first.best_won, first.reciprocal_rank) == ((1, 3, 0, 2), True, 1.0)
    # What is left of the second list can't be told apart any more, and never could in the third.
    assert [step.excluded for step in second.steps] == [2]
    assert (second.order, second.best_won, second.reciprocal_rank) == ((0, 1, 2), False, 1 / 3)
    assert (third.steps, third.order, third.best_won) == ((), (0, 1), True)


def test_graded_lists_go_on_while_gains_differ(renderer: PromptRenderer) -> None:
    [episode] = roll_out([make_record([0.5, 1, 0.5, 0])], renderer, Answering(*map(excluding, (2, 3))), rounds=3)
    assert [step.excluded for step in episode.steps] == [1, 3]
    assert (episode.order, episode.best_won, episode.reciprocal_rank) == ((0, 2, 3, 1), False, 1.0)


UNUSABLE = ("", "no idea", "[1] is bad", "</think>")
ODD = ("", "none", "2", "[1] [2]", "[9] [2]")
ANSWERS = st.one_of(
    st.integers(0, 6).map(excluding),
    st.sampled_from([*UNUSABLE, *(f"</think><answer>{odd}</answer>" for odd in ODD), "</think><answer>[2"]),
)


@settings(deadline=None, max_examples=40)
@given(
    places=st.integers(2, 5).flatmap(lambda count: st.permutations(range(count))), texts=st.lists(ANSWERS, min_size=4)
)
def test_rollouts_are_what_inference_makes_of_the_same_answers(
    renderer: PromptRenderer, conversation: Any, places: list[int], texts: list[str]
) -> None:
    # All gains differ, so that the episode goes on to the end.
    record, answers = make_record([place / 10 for place in places]), iter(texts)
    [episode] = roll_out([record], renderer, Answering(*texts), rounds=len(places) - 1)
    prompt = Prompt(renderer.template, renderer, max_passage_tokens=renderer.max_passage_tokens)
    ranking, calls = conversation.drive(eliminate(record.request, prompt), lambda _: Answer(OPENING + next(answers)))
    assert episode.order == ranking.order
    assert [step.call.messages for step in episode.steps] == [call.messages for call in calls]
    played = [(step.shown, (step.excluded,), step.repaired) for step in episode.steps]
    assert played == [(step.shown, step.outcome, step.repaired) for step in ranking.steps]


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
    with pytest.raises(InputError, match="none of the 2 lists has candidates of different gains"):
        episode_rows(make_lists([0, 0], [1, 1]), renderer)


class Recorder:
    """The exclusion reward, which keeps what it is asked."""

    __name__ = "exclusion"

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def __call__(self, **columns: Any) -> list[float | None]:
        rewards = exclusion_reward(**columns)
        self.asked = {**columns, "rewards": rewards}
        return rewards

    def steps(self, *names: str) -> list[tuple[Any, ...]]:
        """Some columns of what was asked, a tuple per step."""
        return list(zip(*(self.asked[name] for name in names), strict=True))


SETTINGS: dict[str, Any] = {
    **{"per_device_train_batch_size": 9, "episodes_per_list": 3, "max_completion_length": 80, "seed": 3},
    # The embedded model is too sure of itself for rewards to differ.
    **{"temperature": 1.5, "learning_rate": 1e-3},
}


@pytest.fixture
def make_trainer(make_bench: Make, renderer: PromptRenderer) -> Make:
    """Makes a trainer on rows of the embedded model: `make_trainer(rows, max_steps=2)`."""

    def make(rows: Any, reward: Any = exclusion_reward, **options: Any) -> Any:
        bench = make_bench(kind=EpisodeGRPOTrainer, config=EpisodeGRPOConfig, settings=SETTINGS)
        bench.renderer = renderer
        return bench.trainer(reward, rows=rows, **options)

    return make


@pytest.fixture(scope="module")
def rows(renderer: PromptRenderer) -> Any:
    """Gains for which the model, which counts words, is often unsure."""
    lists = make_lists([0.3, 0, 0.3, 1.0], [1.0, 0.6, 0, 0.3], [0, 0.6, 0.6, 1.0], [0.6, 1.0, 0, 0])
    return episode_rows(lists, renderer)


def test_rows_are_steps_of_eliminations(make_trainer: Make, renderer: PromptRenderer) -> None:
    # Two or three steps decide the first list, one decides the second, whatever the model excludes. The words of the
    # second mislead, so that what is right for one is wrong for the other.
    first, second = make_record([0.3, 0, 0.3, 1.0]), replace(make_record([0.6, 1.0], 1), gains=(1.0, 0.6))
    reward = Recorder()
    trainer = make_trainer(episode_rows(dataset_of(first, second), renderer), reward, per_device_train_batch_size=18)
    trainer.model.train()
    inputs = [trainer.train_dataset[number] for number in (0, 1) for _ in range(9)]
    batch = trainer._generate_and_score_completions(inputs)
    asked = reward.asked
    records = {"q0": first, "q1": second}
    episodes: dict[tuple[str, int], list[int]] = {}
    for place, (name, episode, step, ids) in enumerate(reward.steps("id", "episode", "step", "candidate_ids")):
        steps = episodes.setdefault((name, episode), [])
        steps.append(place)
        assert step == len(steps)
        # The gains and the prompt are those of the candidates shown, in the list's order.
        shown = [int(identity[1:]) for identity in ids]
        assert shown == sorted(shown)
        assert asked["gains"][place] == [records[name].gains[position] for position in shown]
        # The last step played is the first after which all that is left is worth the same.
        assert len(set(asked["gains"][place])) > 1
        prompt = asked["prompts"][place][-1]["content"]
        assert [int(number) for number in re.findall(r"^\[\d+\] place(\d+)", prompt, re.MULTILINE)] == shown
        if step == 1:
            assert len(ids) == len(records[name].gains)
        else:
            # One candidate less than at the step before: the one that the answer named.
            before = asked["candidate_ids"][steps[-2]]
            [gone] = set(before) - set(ids)
            named = re.search(r"<answer>\[(\d)\]</answer>", asked["completions"][steps[-2]][0]["content"])
            assert gone == (before[int(named[1]) - 1] if named and int(named[1]) <= len(before) else before[-1])
    assert set(asked["strategy"]) == {"iterative"}
    assert sorted(episodes) == [(name, turn) for name in ("q0", "q1") for turn in (1, 2, 3)]
    assert all(len(places) in ((2, 3) if name == "q0" else (1,)) for (name, _), places in episodes.items())
    # TRL gets all rows; those that were not played are not in the loss, and the others hold what the reward was asked.
    played = [3 * list(episodes).index(key) + step for key, places in episodes.items() for step in range(len(places))]
    assert len(set(asked["rewards"])) > 1
    assert batch["tool_mask"].any(dim=1).nonzero().flatten().tolist() == played
    for row, prompt, ids in zip(played, asked["prompts"], asked["completion_ids"], strict=True):
        assert batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist() == renderer.prompt_ids(prompt)
        assert batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist() == ids
    lengths = [len(ids) for ids in asked["completion_ids"]]
    assert batch["num_items_in_batch"] == trainer.generated.count == sum(lengths)
    rewards = torch.full((18,), float("nan"))
    rewards[played] = torch.tensor(asked["rewards"], dtype=torch.float32)
    expected, _ = step_advantages(rewards.view(2, 3, 3))
    torch.testing.assert_close(batch["advantages"], expected.flatten())
    assert list(trainer._logs["advantages"]) == pytest.approx(expected.flatten().tolist())
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    for name, value in {
        **{"generated_tokens": sum(lengths), "completions/mean_length": sum(lengths) / len(played)},
        **{"completions/min_length": min(lengths), "completions/max_length": max(lengths)},
        **{"episodes/masked_steps": 1 - len(played) / 18, "reward": rewards.nanmean().item()},
        "episodes/reward_step_2": rewards.view(-1, 3)[:, 1].nanmean().item(),
    }.items():
        assert metrics[name] == pytest.approx(value), name


def test_unusable_answers_are_repaired_and_rewarded_as_they_are(
    make_bench: Make, make_checkpoint: Make, caplog: pytest.LogCaptureFixture
) -> None:
    # A model of random weights never closes its thought, so the last candidate goes, at every step.
    folder, reward = make_checkpoint("chatml"), Recorder()
    bench = make_bench(folder, kind=EpisodeGRPOTrainer, config=EpisodeGRPOConfig, completion_tokens=24)
    trainer = bench.trainer(
        reward,
        rows=episode_rows(make_lists([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]), bench.renderer),
        **{"per_device_train_batch_size": 12, "episodes_per_list": 2, "max_completion_length": 24},
        **{"num_train_epochs": 1, "max_steps": -1, "temperature": 1.0},
    )
    trainer.train()
    steps = reward.steps("id", "step", "candidate_ids")
    assert len(steps) == 10
    assert {(name, step): len(ids) for name, step, ids in steps} == {
        **{("q0", 1): 3, ("q0", 2): 2, ("q1", 1): 3, ("q1", 2): 2},
        ("q2", 1): 3,  # its positive goes, and with it what there was to learn
    }
    assert all(ids == ["c0", "c1", "c2"][: len(ids)] for _, _, ids in steps)
    assert "All reward functions returned None" not in caplog.text
    assert max(reward.asked["rewards"]) < -1
    [logged] = [entry for entry in trainer.state.log_history if "episodes/repaired" in entry]
    assert (logged["episodes/repaired"], logged["episodes/best_won"]) == (1, pytest.approx(1 / 3))
    assert logged["episodes/reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert logged["episodes/masked_steps"] == pytest.approx(2 / 12)
    # The text of random tokens varies, but it has no tags, and so all rewards are the same.
    assert logged["frac_reward_zero_std"] == 1


def test_training_learns_and_goes_on_exactly(make_trainer: Make, weights_of: Make, rows: Any) -> None:
    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "max_steps": 2}
    settings |= {"save_strategy": "steps", "save_steps": 1}
    straight, resumed = make_trainer(rows, **settings), make_trainer(rows, **settings)
    before = weights_of(straight)
    straight.train()
    resumed.train(resume_from_checkpoint=f"{straight.args.output_dir}/checkpoint-1")
    after, again = weights_of(straight), weights_of(resumed)
    assert all(entry["grad_norm"] > 0 for entry in straight.state.log_history[:-1])
    assert any(not torch.equal(after[name], before[name]) for name in after)
    assert all(torch.equal(after[name], again[name]) for name in after)
    assert resumed.generated.count == straight.generated.count


def test_groups_without_variance_can_be_dropped(make_trainer: Make, rows: Any) -> None:
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
    make_trainer: Make, renderer: PromptRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    reward = Recorder()
    mixed = episode_rows(make_lists([0, 1.0, 0.5, 0.6], [0.3, 1.0]), renderer)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(mixed, reward, per_device_train_batch_size=12, episodes_per_list=2)
    assert "2 to 4 candidates: 33% of a batch's rows stay empty" in caplog.text
    trainer.train()
    steps = reward.steps("id", "step", "candidate_ids")
    assert [ids for name, _, ids in steps if name == "q1"] == [["c0", "c1"]] * 2
    assert {step for name, step, _ in steps if name == "q0"} == {1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes_per_list": 1}, "episodes_per_list is 1"),
        ({"episode_gamma": 1.5}, "episode_gamma is 1.5"),
        ({"zero_variance": "replace"}, "zero_variance is 'replace': give keep or drop"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "sum_then_normalize"),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, "a batch is 4 rows.* multiple"),
        ({"per_device_train_batch_size": 12}, "a batch is 12 rows.* 9: 3 episodes of 3 steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    make_trainer: Make, rows: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_trainer(rows, **settings)


def test_data_that_makes_no_episodes_is_refused(make_trainer: Make, rows: Any) -> None:
    with pytest.raises(InputError, match="no list of at least 2 candidates"):
        make_trainer(rows.select([]))
    with pytest.raises(InputError, match="held_out"):
        make_trainer(rows, options={"eval_dataset": rows})
    with pytest.raises(InputError, match="none of the rewards ranking_reward scores exclusions"):
        make_trainer(rows, ranking_reward, max_completion_length=2).train()
