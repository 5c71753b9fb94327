"""The ranker: settings of a checkpoint, options of the caller, and rankings of real models."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.errors import CheckpointError, ContextLengthError, InputError
from r1ranker_ir.prompts.template import build_template, load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

TEMPLATE = {
    "name": "short",
    "iterative": {"user": "drop one: {query}\n{candidates}"},
    "direct": {"user": "order: {query}\n{candidates}"},
}


@pytest.fixture
def with_settings(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A checkpoint whose `r1ranker.json` says this."""

    def write(content: dict[str, Any]) -> Path:
        folder = Path(shutil.copytree(make_checkpoint("chatml"), tmp_path / "model", dirs_exist_ok=True))
        (folder / "r1ranker.json").write_text(json.dumps(content))
        return folder

    return write


def request(count: int, seed: int = 0, **options: Any) -> RankingRequest:
    words = "flea wool kettle water spring cloth sheep boils degrees larvae".split()
    chosen = random.Random(seed)
    candidates = (Candidate(f"d{n}", " ".join(chosen.choices(words, k=4 + n % 5))) for n in range(count))
    return RankingRequest("flea larvae", tuple(candidates), **options)


# --- settings and options ------------------------------------------------------------------------------------------


def test_the_checkpoints_settings_are_honoured(with_settings):
    settings = {"window_size": 4, "stride": 3, "max_passage_tokens": 2, "max_thought_tokens": 0, "batch_size": 3}
    folder = with_settings({**settings, "template": TEMPLATE, "strategies": ["direct", "iterative"]})
    ranker = Ranker(str(folder), strategy="iterative", device="cpu")
    assert (ranker.window_size, ranker.stride, ranker.backend.batch_size) == (4, 3, 3)
    assert ranker.template == build_template(TEMPLATE, "short")
    [ranking] = ranker.rank([request(9)])
    assert max(len(step.shown) for step in ranking.steps) == 4
    assert all(step.cut_passages == len(step.shown) for step in ranking.steps)
    assert all(step.thought == "" and step.thought_closed for step in ranking.steps)


def test_what_the_caller_says_goes_before_the_checkpoint(with_settings, tmp_path):
    folder = with_settings(
        {"window_size": 4, "stride": 3, "max_passage_tokens": 2, "max_thought_tokens": 0, "template": TEMPLATE}
    )
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\n[direct]\nuser = "mine {query}\\n{candidates}"\n')
    told = {"window_size": 7, "stride": 2, "max_passage_tokens": 50, "max_thought_tokens": 5, "batch_size": 1}
    ranker = Ranker(folder, strategy="direct", template=own, **told, max_repair_rate=0.5, device="cpu")
    assert (ranker.window_size, ranker.stride, ranker.template.name) == (7, 2, "own")
    assert (ranker.prompt.max_passage_tokens, ranker.backend.batch_size) == (50, 1)
    assert ranker.engine.max_repair_rate == 0.5
    [ranking] = ranker.rank([request(10)])
    assert [len(step.shown) for step in ranking.steps] == [7, 7, 6]
    assert {step.cut_passages for step in ranking.steps} == {0}
    given = Ranker(folder, strategy="direct", template=build_template(TEMPLATE, "given"), device="cpu")
    assert given.template.name == "short"


@pytest.mark.parametrize(
    ("settings", "window_size", "stride", "expected"),
    [
        ({}, None, None, (20, 10)),
        ({}, 40, None, (40, 10)),
        ({}, 12, None, (12, 6)),
        ({}, 2, None, (2, 1)),
        ({}, None, 19, (20, 19)),
        ({"window_size": 10, "stride": 8}, 20, None, (20, 8)),
        ({"window_size": 10, "stride": 8}, 6, None, (6, 3)),
        ({"window_size": 8}, None, None, (8, 4)),
    ],
)
def test_a_window_of_the_callers_still_overlaps(settings, window_size, stride, expected, with_settings):
    ranker = Ranker(with_settings(settings), strategy="direct", window_size=window_size, stride=stride, device="cpu")
    assert (ranker.window_size, ranker.stride) == expected


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategy": "heap"}, InputError, "strategy is 'heap': use one of iterative, direct"),
        ({"strategy": "direct"}, CheckpointError, r"the strategy 'direct': its r1ranker\.json names iter"),
        ({"window_size": 1}, InputError, "window_size is 1: a prompt needs at least 2"),
        ({"stride": 20}, InputError, "stride is 20: give 1 to 19"),
        ({"template": "missing.toml"}, InputError, r"template 'missing\.toml' can't be read"),
        ({"max_passage_tokens": 0}, InputError, "max_passage_tokens is 0"),
        ({"max_thought_tokens": -1}, InputError, "max_thought_tokens is -1"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"max_repair_rate": 2}, InputError, "max_repair_rate is 2"),
        ({"answers": "free"}, InputError, "answers is 'free': use constrained or published"),
        ({"backend": "jax"}, InputError, "backend is 'jax': use one of transformers, openai"),
        ({"temprature": 1}, InputError, r"'transformers' has no option 'temprature': did you mean 'temperature'. It t"),
    ],
)
def test_what_makes_no_sense_is_said(options, error, message, with_settings):
    folder = with_settings({"strategies": ["iterative"]})
    with pytest.raises(error, match=message):
        Ranker(folder, **({"strategy": "iterative", "device": "cpu"} | options))


def test_a_template_of_ones_own_opens_a_strategy_and_must_serve_it(with_settings):
    folder = with_settings({"strategies": ["iterative"]})
    assert Ranker(folder, strategy="direct", template=load_template(), device="cpu").strategy == "direct"
    iterative = build_template({key: value for key, value in TEMPLATE.items() if key != "direct"}, "own")
    with pytest.raises(InputError, match=r"'short' has no section \[direct\]: add one, or use the strategy iterative"):
        Ranker(folder, strategy="direct", template=iterative, device="cpu")


OTHER_DIRECT = build_template({**TEMPLATE, "direct": {"user": "else {query} {candidates}"}}, "here")


@pytest.mark.parametrize(
    ("trained", "own", "other", "named"),
    [
        (True, TEMPLATE, load_template(), ("short", "default")),
        (True, None, build_template(TEMPLATE, "here"), ("default", "short")),
        (True, TEMPLATE, None, None),
        (True, TEMPLATE, build_template({**TEMPLATE, "name": "the same by another name"}, "here"), None),
        (True, TEMPLATE, OTHER_DIRECT, None),  # a section of another strategy is not asked for
        (False, TEMPLATE, load_template(), None),
    ],
)
def test_a_trained_checkpoint_asked_in_other_words_warns_once(trained, own, other, named, with_settings, caplog):
    folder = with_settings(({"training": {"method": "grpo"}} if trained else {}) | ({"template": own} if own else {}))
    trained_on = build_template(own, "here") if own else load_template()
    ranker = Ranker(folder, strategy="iterative", template=other, max_thought_tokens=1, device="cpu")
    ranker.rank([request(3)])
    warnings = [record.getMessage() for record in caplog.records if record.name == "r1ranker_ir.rankers.ranker"]
    assert len(warnings) == bool(named)
    if named:
        assert (
            f"checkpoint '{folder}' was trained with the template '{named[0]}' ({trained_on.digest()})" in warnings[0]
        )
        assert f"is asked with '{named[1]}' ({other.digest()})" in warnings[0]
        assert "Leave template out to use its own, or train it again with this one (--template)" in warnings[0]
        assert ranker.template == other


def test_settings_that_do_not_fit_are_found_before_the_weights_are_loaded(with_settings):
    folder = with_settings({"template": TEMPLATE, "template_hash": "0" * 16})
    (folder / "model.safetensors").write_bytes(b"not loaded")
    with pytest.raises(CheckpointError, match="template_hash"):
        Ranker(folder, strategy="iterative")


# --- ranking -------------------------------------------------------------------------------------------------------


def outline(ranking: Ranking) -> list[Any]:
    return [ranking.order, *((step.shown, step.outcome, step.thought, step.text) for step in ranking.steps)]


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_rankings_depend_neither_on_batch_size_nor_on_other_queries(strategy, make_checkpoint):
    options = {"strategy": strategy, "window_size": 5, "stride": 2, "max_thought_tokens": 4, "device": "cpu"}
    requests = [request(count, seed=count) for count in (7, 1, 3, 0, 6, 5)]
    alone = Ranker(make_checkpoint("llama3"), batch_size=1, **options)
    expected = [alone.rank([each])[0] for each in requests]
    for batch_size in (3, 16):
        together = Ranker(make_checkpoint("llama3"), batch_size=batch_size, **options).rank(requests)
        assert [outline(ranking) for ranking in together] == [outline(ranking) for ranking in expected]
    for ranking, asked in zip(expected, requests, strict=True):
        assert ranking.request is asked
        assert sorted(ranking.order) == list(range(len(asked.candidates)))
        assert ranking.repairs == 0
    assert alone.summary.queries == len(requests)
    assert alone.summary.usage.calls == sum(len(ranking.steps) for ranking in expected)


def test_streaming_a_list_and_a_generator_gives_what_rank_gives(make_checkpoint):
    ranker = Ranker(make_checkpoint("chatml"), strategy="iterative", max_thought_tokens=2, batch_size=2, device="cpu")
    requests = [request(count, seed=count) for count in (4, 2, 3)]
    expected = [outline(ranking) for ranking in ranker.rank(requests)]
    for given in (requests, iter(requests)):
        found = dict(ranker.stream(given))
        assert [outline(found[index]) for index in range(3)] == expected
    assert ranker.rank([]) == []
    assert ranker.summary.queries == 9


def test_long_passages_are_cut_to_the_models_context(make_checkpoint):
    options = {"max_thought_tokens": 3, "context_length": 700, "device": "cpu"}
    ranker = Ranker(make_checkpoint("chatml"), strategy="iterative", **options)
    long = RankingRequest("flea", tuple(Candidate(str(n), "the wool of sheep " * (40 * n)) for n in range(1, 5)))
    [ranking] = ranker.rank([long])
    assert ranking.steps[0].cut_passages >= 2
    assert all(step.usage.prompt_tokens + step.usage.completion_tokens <= 700 for step in ranking.steps)
    with pytest.raises(ContextLengthError, match="query 'q1' does not fit"):
        ranker.rank([RankingRequest("flea " * 700, long.candidates, query_id="q1")])


# --- the embedded model --------------------------------------------------------------------------------------------


QUESTIONS = {
    "how long is the life cycle of a flea": "The life cycle of a flea is long: it takes weeks or months.",
    "temperature at which water boils in a kettle": "Water boils in a kettle at a temperature of one hundred degrees.",
    "when are sheep shorn for wool": "Sheep are shorn for their wool in spring.",
}


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_the_embedded_model_finds_passages_by_the_words_of_the_query(strategy, embedded_checkpoint):
    requests, places = [], []
    for query, place in itertools.product(QUESTIONS, (0, 2, 5)):
        others = [text for other, text in QUESTIONS.items() if other != query]
        others += ["Bread is baked from flour.", "The train leaves at noon.", "Stars shine at night."]
        others.insert(place, QUESTIONS[query])
        places.append(place)
        requests.append(RankingRequest(query, tuple(Candidate(text, text) for text in others)))
    rankings = Ranker(embedded_checkpoint, strategy=strategy, device="cpu").rank(requests)
    ranks = [1 + ranking.order.index(place) for place, ranking in zip(places, rankings, strict=True)]
    steps = [step for ranking in rankings for step in ranking.steps]
    assert all(sorted(ranking.order) == list(range(6)) for ranking in rankings)
    # By chance it would be 3.5.
    assert sum(ranks) / len(ranks) < 1.3, ranks
    assert all(step.probabilities and sum(step.probabilities.values()) == pytest.approx(1) for step in steps)
    assert not any(step.repaired or step.thought_closed for step in steps)
