"""What rankings are made under, and that a calibration is used under nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.models.calibration import Calibration, FittedOn, Reliability, calibration_data
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts import template as template_module
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import ranker_source

OTHER_TEMPLATE = Path(template_module.__file__).with_name("family_iranker.toml")
SERVER: dict[str, Any] = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}
UNTHINKING = {"think": "never", "api": "completions", "tokenizer": str(TINY_CHECKPOINT)}
FITTED = FittedOn(corpus="c", queries=9, candidates=9, relevant=3, relevant_from=1, unjudged="skip", seed=0)
FIGURES = dict.fromkeys(("brier", "error", "places_brier", "places_error", "constant_brier"), 0.1)
HELD_OUT = Reliability(queries=1, candidates=1, relevant=0, bins=[], **FIGURES)


def fitted(**given: Any) -> dict[str, Any]:
    conditions = ranker_source("m/served", "iterative", {**SERVER, **given}).conditions()
    told: dict[str, Any] = {"fitted_on": FITTED, "held_out": HELD_OUT, "conditions": conditions}
    return calibration_data(Calibration(by="places", signals=[-1.0, 0.0], relevance=[0.0, 1.0], **told))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r1ranker.json").write_text(json.dumps({"calibration": {"iterative": fitted()}}))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        ("served", {}, ""),
        ("served", {"max_calls": 3, "batch_size": 4, "window_size": 20, "max_retries": 1}, ""),
        ("other", {}, "model is 'other', and was 'served'"),
        ("served", UNTHINKING, "think is 'never', and was left at its default"),
        ("served", {"votes": 3}, "votes is 3, and was left at its default"),
        ("served", {"template": OTHER_TEMPLATE}, "template is '"),
        ("served", {"max_thought_tokens": 7}, "max_thought_tokens is 7, and was 1024"),
        ("served", {"max_passage_tokens": 70}, "max_passage_tokens is 70, and was left"),
        ("served", {"answers": "published"}, "answers is 'published'"),
        ("served", {"temperature": 0.7}, "temperature is 0.7"),
        ("served", {"extra_body": {"secret": 1}}, "extra_body is '"),
    ],
)
def test_a_map_is_used_under_its_own_conditions_alone(
    folder: Path, model: str, changes: dict[str, Any], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    ranker = Ranker(model, strategy="iterative", settings_from=folder, **{**SERVER, **changes})
    assert (ranker.calibration is None) == bool(expected)
    warned = [each for each in caplog.messages if "was fitted under other conditions and is not used" in each]
    assert len(warned) == bool(expected) and expected in "".join(warned) and "secret" not in caplog.text


def test_a_ranker_with_other_options_gives_its_map_up_and_takes_it_again(folder: Path) -> None:
    ranker = Ranker("served", strategy="iterative", settings_from=folder, **SERVER)
    other = ranker.having(votes=3)
    assert ranker.calibration is not None and other.calibration is None
    assert other.having(votes=1).calibration == ranker.calibration
    assert other.conditions == {**ranker.conditions, "votes": 3}


def test_what_is_not_opened_says_the_same_conditions() -> None:
    for given in ({}, {"votes": 3, "max_thought_tokens": 9}, {"window_size": 5}):
        source = ranker_source("served", "iterative", {**SERVER, **given})
        assert source.conditions() == source.open().conditions
