"""Measuring with held-out lists: the measures by hand, and rankings that are those of `Ranker`."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r1ranker_ir import Candidate, Ranker, Ranking
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import ContextLengthError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import judged
from r1ranker_ir.training.jobs.held_out import HeldOutResult, accuracy_by_length, measure_rankings, rank_held_out
from r1ranker_ir.types import Step, Usage

WORDS = "flea wool kettle water spring cloth sheep boils degrees larvae".split()


def record(*gains: float) -> JudgedRequest:
    return judged("q", tuple(Candidate("d", f"text {place}") for place in range(len(gains))), gains)


def ranking(one: JudgedRequest, order: Sequence[int], *steps: Step) -> Ranking:
    return Ranking(one.request, tuple(order), steps)


def step(shown: Sequence[int], *outcome: int, repaired: bool = False, thought_closed: bool = False) -> Step:
    return Step(tuple(shown), outcome, "", "", None, repaired, thought_closed, 0, Usage())


# --- measures -------------------------------------------------------------------------------------------------------


def brute_force(gains: Sequence[float], order: Sequence[int]) -> tuple[float, float]:
    """The reciprocal rank and nDCG@10 of one list, as their formulas say."""
    ranked = [gains[place] for place in order]
    reciprocal = next((1 / rank for rank, gain in enumerate(ranked, 1) if gain > 0), 0.0)
    found, ideal = (
        sum(gain / max(*gains, 1e-300) / math.log2(rank + 1) for rank, gain in enumerate(told[:10], 1))
        for told in (ranked, sorted(ranked, reverse=True))
    )
    return reciprocal, found / ideal if ideal else 0.0


# Of any size, worst first: what has any gain at all is relevant.
EXTREME = [
    ([3e9, 0, 1e9], [1, 2, 0]),
    ([1e-9, 0, 0], [1, 2, 0]),
    ([1e300, 1e-300, 0], [2, 1, 0]),
    ([0.4, 1e-4], [1, 0]),
]
binary, graded = st.sampled_from([0.0, 1.0]), st.integers(0, 4).map(float)
fractional = st.floats(0, 1).map(lambda gain: round(gain, 4))
gain_lists = st.sampled_from([binary, graded, fractional]).flatmap(lambda one: st.lists(one, min_size=1, max_size=15))
judged_orders = gain_lists.flatmap(lambda gains: st.tuples(st.just(gains), st.permutations(range(len(gains)))))


@settings(deadline=None, max_examples=50)
@given(st.lists(judged_orders, min_size=1, max_size=4))
@example(EXTREME)
def test_measures_are_those_of_the_formulas(lists: list[tuple[list[float], list[int]]]) -> None:
    records = [record(*gains) for gains, _ in lists]
    result = measure_rankings([ranking(one, order) for one, (_, order) in zip(records, lists, strict=True)], records)
    reciprocal, normalised = zip(*(brute_force(*each) for each in lists), strict=True)
    assert result.reciprocal_ranks == pytest.approx(reciprocal)
    assert result.measures["RR"] == pytest.approx(fmean(reciprocal), abs=1e-6)
    assert result.measures["nDCG@10"] == pytest.approx(fmean(normalised), abs=1e-4)
    assert (result.repairs, result.thoughts_closed, result.accuracy_by_length) == (0, 0, {})


def test_accuracy_by_length_by_hand() -> None:
    first, second = record(0, 1, 0, 2), record(1, 1, 0)
    # All right: where it excludes a relevant one, there is a better one.
    eliminated = ranking(first, (3, 0, 1, 2), step((0, 1, 2, 3), 2), step((0, 1, 3), 1), step((0, 3), 0))
    other = ranking(second, (2, 0, 1), step((0, 1, 2), 1), step((0, 2), 0))  # both wrong
    equal = ranking(second, (0, 1, 2), step((2, 1, 0), 2), step((0, 1), 1))  # right, and nothing to choose among
    assert accuracy_by_length([eliminated, other, equal], [first, second, second]) == {2: 1 / 2, 3: 2 / 3, 4: 1.0}
    assert list(accuracy_by_length([eliminated], [first])) == [2, 3, 4]
    assert accuracy_by_length([ranking(first, (3, 1, 0, 2), step((0, 1, 2, 3), 3, 1, 0, 2))], [first]) == {}


def test_repairs_and_closed_thoughts_are_summed() -> None:
    one = record(0, 1, 0)
    repaired = replace(step((0, 1, 2), 2, repaired=True, thought_closed=True), closed_at="end_of_turn")
    closed = step((0, 1), 0, thought_closed=True)
    result = measure_rankings([ranking(one, (1, 0, 2), repaired, closed), ranking(one, (0, 1, 2), closed)], [one, one])
    assert (result.repairs, result.thoughts_closed, result.closed_at) == (1, 3, {"end_of_turn": 1})
    assert [one.order for one in result.rankings] == [(1, 0, 2), (0, 1, 2)]
    assert {"repairs": 1, "thoughts_closed": 3, "closed_at_end_of_turn": 1}.items() <= result.values().items()


# --- with a model in memory -----------------------------------------------------------------------------------------

Loaded = tuple[Any, Any]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The embedded model and its tokenizer, as a trainer holds them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(TINY_CHECKPOINT)


def lists(*lengths: int) -> list[JudgedRequest]:
    """Lists whose gains are all different, so that every exclusion is right or wrong."""
    chosen, found = random.Random(0), []
    for number, length in enumerate(lengths):
        candidates = [Candidate(f"{number}-{place}", " ".join(chosen.choices(WORDS, k=4))) for place in range(length)]
        found.append(judged("flea larvae", candidates, tuple(map(float, range(length))), id=f"q{number}"))
    return found


def measured(loaded: Loaded, records: list[JudgedRequest], strategy: str, folder: Path, thought: int) -> HeldOutResult:
    """What a training measures with the settings of a model's folder, but for the length of thoughts."""
    own = replace(read_settings(folder), max_thought_tokens=thought)
    assert own.template is not None
    renderer = PromptRenderer(loaded[1], own.template, max_passage_tokens=own.max_passage_tokens)
    return rank_held_out(*loaded, renderer, records, strategy, own)


def outline(found: Ranking) -> list[Any]:
    return [found.order, *((step.shown, step.outcome, step.text) for step in found.steps)]


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_rankings_are_those_of_the_ranker(strategy: str, loaded: Loaded) -> None:
    records = lists(5, 2, 3, 1)
    ranker = Ranker(TINY_CHECKPOINT, strategy=strategy, max_thought_tokens=40, device="cpu")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    result = measured(loaded, records, strategy, TINY_CHECKPOINT, 40)
    # Otherwise how often one measures would change what is trained.
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in loaded[0].parameters())
    expected = ranker.rank([one.request for one in records])
    assert [outline(found) for found in result.rankings] == [outline(found) for found in expected]
    assert result == measure_rankings(expected, records)
    assert set(result.accuracy_by_length) == ({2, 3, 4, 5} if strategy == "iterative" else set())


@pytest.mark.parametrize(("window_size", "stride"), [(4, 2), (3, 10)])
def test_windows_are_those_of_the_ranker(window_size: int, stride: int, loaded: Loaded, tmp_path: Path) -> None:
    # What a folder says of windows counts even where its stride is longer than its window.
    folder = Path(shutil.copytree(TINY_CHECKPOINT, tmp_path / "model"))
    said = json.loads((folder / "r1ranker.json").read_text(encoding="utf-8"))
    said |= {"window_size": window_size, "stride": stride}
    (folder / "r1ranker.json").write_text(json.dumps(said), encoding="utf-8")
    records = lists(6)
    result = measured(loaded, records, "direct", folder, 4)
    [expected] = Ranker(folder, strategy="direct", max_thought_tokens=4, device="cpu").rank([records[0].request])
    assert outline(result.rankings[0]) == outline(expected)
    assert max(len(step.shown) for step in expected.steps) == window_size


@pytest.mark.parametrize("training", [True, False])
def test_the_model_goes_back_to_what_it_was_in(training: bool, loaded: Loaded) -> None:
    model, modes = loaded[0], list[bool]()
    hook = model.register_forward_pre_hook(lambda *_: modes.append(model.training))
    model.train(training)
    too_long = judged("flea " * 3000, record(0, 1).request.candidates, (0.0, 1.0))
    try:
        measured(loaded, lists(2), "iterative", TINY_CHECKPOINT, 2)
        assert model.training is training
        assert modes and not any(modes)
        for records, strategy, error in (([too_long], "iterative", ContextLengthError), (lists(2), "heap", KeyError)):
            with pytest.raises(error):
                measured(loaded, records, strategy, TINY_CHECKPOINT, 1024)
            assert model.training is training
    finally:
        hook.remove()
        model.eval()
