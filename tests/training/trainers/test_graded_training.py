"""GRPO on grades: whole lists in a batch, and answers of groups without variance exchanged."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import RepeatSampler

from r1ranker_ir import Candidate
from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.training.data.prompting import PromptRenderer, training_rows
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.jobs.recipe_files import find_template
from r1ranker_ir.training.rewards.grades import grade_close_reward, grade_rank_reward
from r1ranker_ir.training.trainers.mutation import Mutation
from r1ranker_ir.training.trainers.variance import mutate_groups
from r1ranker_ir.training.trainers.whole_lists import WholeLists, warn_of_parted_lists

GRADED_WRITING = "[1] wool+ =2</think>\n<answer>[{}]</answer>"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.integers(1, 3), st.integers(0, 5))
def test_lists_stay_whole_and_come_in_another_order_each_time(lengths: list[int], repeats: int, seed: int) -> None:
    numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
    sampler = WholeLists(RepeatSampler(numbers, repeats, batch_size=1, seed=seed), numbers)
    for _ in range(2):
        rows = list(sampler)
        assert len(sampler) == len(rows) == len(numbers) * repeats
        once = rows[::repeats]
        assert sorted(once) == list(range(len(numbers)))
        assert [number for number, _ in groupby(numbers[row] for row in once)] == list(
            dict.fromkeys(numbers[row] for row in once)
        )
        # A list of another length moves no list of the most frequent one.
        counts = [lengths.count(lengths[number]) for number in dict.fromkeys(numbers[row] for row in once)]
        assert counts == sorted(counts, reverse=True)


def test_lists_that_do_not_fill_a_batch_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_parted_lists({"list": [0, 0, 1, 1, 2]}, 4)
    assert not caplog.records
    warn_of_parted_lists({"list": [0, 0, 1, 1, 2]}, 5)
    assert "2 lists have 2 candidates, and a device's batch takes 5 questions" in caplog.text


def rows_of(bench: Any, count: int = 4, strategy: str = "pointwise") -> Any:
    candidates = tuple(Candidate(str(place), text) for place, text in enumerate(("flea wool", "kettle water")))
    samples = [Sample(strategy, judged(f"wool {n}", candidates, (10.0, 2.0), id=str(n))) for n in range(count)]
    from datasets import Dataset

    return training_rows(Dataset.from_list([row_of(sample) for sample in samples]), bench.renderer)


@pytest.fixture
def graded_bench(make_bench: Callable[..., Any]) -> Any:
    bench = make_bench()
    template = load_template(find_template("tiny-graded"))
    bench.renderer = PromptRenderer(bench.tokenizer, template, context_length=1024, completion_tokens=40)
    return bench


@pytest.mark.parametrize(
    ("writing", "answer", "expected"),
    [
        (GRADED_WRITING, "5", "[10]"),
        ("a thought</think><answer>{}</answer> ", "5", "10"),  # without brackets, as the model wrote it
        ("<answer>[1]</answer></think><answer>[{}]</answer>", "5", "[10]"),  # not the one in the thought
        (GRADED_WRITING, "10", None),
        ("a thought without an end [{}]", "5", None),
        ("a thought</think><answer>[{}]", "5", None),
    ],
)
def test_an_answer_is_exchanged_behind_its_own_thought(
    graded_bench: Any, writing: str, answer: str, expected: str | None
) -> None:
    tokenizer = graded_bench.tokenizer
    ids = [*tokenizer.encode(writing.format(answer), add_special_tokens=False), tokenizer.eos_token_id]
    new = Mutation(tokenizer, noise=0.0)(rows_of(graded_bench)[0], ids, random.Random(0))
    if expected is None:
        assert new is None
        return
    assert new is not None and new[-1] == tokenizer.eos_token_id
    before, after = ("".join(tokenizer.decode(each, skip_special_tokens=True).split()) for each in (ids, new))
    thought = before.rpartition("<answer>")[0]
    assert after == f"{thought}<answer>{expected}</answer>"
    kept = len(tokenizer.encode(writing.partition("</think>")[0], add_special_tokens=False))
    assert new[:kept] == ids[:kept]  # the thought is the model's, token by token


def test_noise_gives_other_grades_near_the_true_one_and_comparisons_get_the_right_answer(graded_bench: Any) -> None:
    tokenizer, rng = graded_bench.tokenizer, random.Random(0)
    ids = tokenizer.encode(GRADED_WRITING.format(5), add_special_tokens=False)
    row = rows_of(graded_bench)[1]  # worth 2
    found = [Mutation(tokenizer, 1.0)(row, ids, rng) for _ in range(40)]
    assert len({tokenizer.decode(each) for each in found if each is not None}) > 2
    compared = rows_of(graded_bench, strategy="iterative")[0]
    changed = Mutation(tokenizer)(compared, tokenizer.encode("x</think><answer>[1]</answer>"), rng)
    assert "[2]" in tokenizer.decode(changed)
    with pytest.raises(InputError, match="mutation_noise is -1"):
        Mutation(tokenizer, -1.0)


def test_one_completion_of_each_group_without_variance_is_exchanged() -> None:
    asked: list[int] = []

    def mutate(row: int, ids: Any, rng: random.Random) -> list[int] | None:
        asked.append(row)
        return None if row in (2, 3) else [99]

    flags = torch.tensor([True, True, False, True])
    changed, count = mutate_groups([[0], [1], [2], [3], [4], [5], [6], [7]], flags, 2, mutate)
    assert count == 2
    assert [ids == [99] for ids in changed].count(True) == 2 and changed[2:6] == [[2], [3], [4], [5]]
    assert {2, 3} <= set(asked) and not {4, 5} & set(asked)


@pytest.mark.parametrize("mode", ["drop", "mutate"])
def test_a_training_step_on_grades(graded_bench: Any, mode: str, weights_of: Any, monkeypatch: Any) -> None:
    tokenizer = graded_bench.tokenizer
    same = [*tokenizer.encode(GRADED_WRITING.format(5), add_special_tokens=False), tokenizer.eos_token_id]
    trainer = graded_bench.trainer(
        *(grade_rank_reward, grade_close_reward),
        rows=rows_of(graded_bench),
        zero_variance=mode,
        mutation_noise=0.0,
        max_completion_length=40,
        per_device_train_batch_size=16,
    )
    # A model that always writes the same: nothing to learn from but what is exchanged.
    monkeypatch.setattr(
        "trl.GRPOTrainer._generate_single_turn", lambda self, prompts, *rest: ([list(same) for _ in prompts], None)
    )
    before = weights_of(trainer)
    trainer.train()
    [logged] = [entry for entry in trainer.state.log_history if "groups/zero_variance" in entry]
    moved = any(not torch.equal(before[name], after) for name, after in weights_of(trainer).items())
    assert moved is (mode == "mutate")
    if mode == "drop":
        assert (logged["groups/dropped"], "groups/mutated" in logged) == (4, False)
    else:
        assert logged["groups/mutated"] == 4 and logged["groups/dropped"] == logged["groups/zero_variance"] == 0
    # What a preview logs is not counted.
    assert -2 <= logged["rewards/grade_rank/misplaced"] <= 0


def test_mutation_needs_the_trainers_own_generation(graded_bench: Any) -> None:
    with pytest.raises(InputError, match="zero_variance is 'mutate' with use_vllm"):
        graded_bench.arguments(zero_variance="mutate", use_vllm=True)
