"""`r1ranker doctor`: the embedded model, random weights, other chat templates, and servers that rank or do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from commands import r1ranker
from servers import Request, completion, serving

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.doctor.doctor import StrategyCheck
from r1ranker_ir.eval.doctor.lists import clear_lists
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.random_weights import open_configuration, random_model
from r1ranker_ir.runs.trace_summary import summarise


def doctor(*arguments: object, code: int = 0) -> Any:
    return r1ranker("doctor", *arguments, code=code)


def asked_for(content: str) -> str:
    """What the project's own prompts ask for."""
    lowered = content.lower()
    if "this passage is to be graded" in lowered:
        return "pointwise"
    if "passages are to be graded" in lowered:
        return "groupwise"
    return "direct" if "order all" in lowered else "iterative" if "worst" in lowered else "setwise"


BEST = {
    each.request.query: next(c.text for c in each.request.candidates if c.id == each.best) for each in clear_lists(8, 4)
}


STRATEGIES_TRIED = ("iterative", "direct", "setwise", "pointwise", "groupwise")


def knowing(asked: Request) -> str:
    """Answers by the judgments of the packaged collection."""
    content, shown = asked.question, asked.shown
    wanted = next(text for query, text in BEST.items() if query in content)
    kind = asked_for(content)
    if kind == "pointwise":
        return f"[{9 if wanted in content else 1}]"
    best = next((name for name, text in shown.items() if text == wanted), "")
    others = [name for name in shown if name != best]
    if kind == "groupwise":
        return json.dumps({name: 9 if name == best else 1 for name in shown})
    return {"iterative": others[-1], "setwise": best, "direct": " > ".join([best, *others])}[kind]


def constant(asked: Request) -> str:
    """Names the first one whatever stands there."""
    return " > ".join(asked.shown) if asked_for(asked.question) == "direct" else "[1]"


def served(
    reply: Callable[[Request], str], *options: object, form: str = "<think>hm</think><answer>{}</answer>"
) -> str:
    with serving(lambda request: completion(form.format(reply(request)))) as server:
        return str(doctor("stub", "--backend", "openai", "--base-url", server.base_url, *options).stdout)


def examined(*arguments: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(served(*arguments, "--format", "json", **options))
    return found


# --- models -----------------------------------------------------------------------------------------------------------


def test_the_embedded_model_can_rank() -> None:
    found = json.loads(doctor("r1ranker-iterative-tiny", "--quick", "--format", "json").stdout)
    assert found["template"]["chat_template"] and found["template"]["system"] == "kept"
    assert found["template"]["thought"] == "opened" and found["template"]["end_tokens"] == ["<|end|>"]
    assert found["format"]["outputs"] == found["format"]["readable"] == 3
    assert set(found["strategies"]) == {"iterative", "direct"}
    for each in found["strategies"].values():
        assert (each["verdict"], each["right"], each["same"], each["rankings"]) == ("fit", 6, 3, 6)
    assert found["speed"]["reading"] > 0 and found["speed"]["writing"] > 0
    assert found["verdict"].startswith("Fit for iterative, direct.")


def test_random_weights_can_not_rank(tmp_path: Path) -> None:
    config, tokenizer = open_configuration(str(TINY_CHECKPOINT))
    random_model(config, device="cpu", dtype="float32", seed=0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = doctor(tmp_path, "--quick", "--max-thought-tokens", 24)
    assert re.findall(r"^  (\w+): (.*)$", result.stdout, re.MULTILINE)[-5:] == [
        (name, "unfit") for name in STRATEGIES_TRIED
    ]
    assert "This model can't rank with any strategy that was tried" in result.stdout
    assert "of 3 outputs 0 close a thought, 0 hold an <answer>, 0 could be used" in result.stdout


@pytest.mark.parametrize(
    ("recipe", "system", "thought"),
    [
        *(("chatml", "kept", "open"), ("gemma", "refused", "open"), ("inst", "dropped", "open")),
        *(("thinking", "kept", "opened"), ("plain", "kept", "open")),
    ],
)
def test_chat_templates_are_told_apart(
    recipe: str, system: str, thought: str, make_checkpoint: Callable[[str], Path]
) -> None:
    options = ("--queries", 1, "--candidates", 2, "--max-thought-tokens", 2, "--format", "json")
    facts = json.loads(doctor(make_checkpoint(recipe), *options).stdout)["template"]
    assert (facts["system"], facts["thought"], facts["chat_template"]) == (system, thought, recipe != "plain")
    assert facts["end_tokens"]


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_server_that_ranks_is_fit() -> None:
    found = examined(knowing)
    assert found["template"] is None
    assert {name: each["verdict"] for name, each in found["strategies"].items()} == dict.fromkeys(
        STRATEGIES_TRIED, "fit"
    )
    assert found["format"]["readable"] == found["format"]["thoughts"] == found["format"]["outputs"]


def test_a_server_that_answers_by_place_is_unfit() -> None:
    found = examined(constant)
    for name, each in found["strategies"].items():
        assert each["verdict"] == "unfit", name
        assert each["same"] == 0
        assert any("its answers go by place" in reason for reason in each["reasons"])
    text = served(constant)
    assert "place [1] is named in 36 of 36 answers that could" in text
    assert "grades given: 1: 48" in text


def test_a_server_that_does_not_keep_to_the_form_is_unfit() -> None:
    found = examined(lambda asked: "I would rather not say", "--quick", form="{}")
    assert found["format"]["readable"] == found["format"]["answers"] == 0
    assert found["format"]["example"] == "I would rather not say"
    for each in found["strategies"].values():
        assert each["verdict"] == "unfit"
        assert any("can't be used as they stand" in reason for reason in each["reasons"])


def test_a_server_that_is_not_there_is_an_error() -> None:
    served = ("--backend", "openai", "--base-url", "http://127.0.0.1:9/v1", "--max-retries", 0)
    result = doctor("stub", *served, "--quick", code=1)
    assert "Error:" in result.stderr


# --- lists and verdicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [2, 3, 6])
def test_lists_hold_one_right_passage_in_changing_places(candidates: int) -> None:
    lists = clear_lists(8, candidates)
    places = []
    for each in lists:
        ids = [candidate.id for candidate in each.request.candidates]
        assert len(set(ids)) == candidates
        places.append(ids.index(each.best))
        assert [candidate.id for candidate in each.backwards().candidates] == ids[::-1]
    assert set(places) == set(range(candidates))
    assert clear_lists(8, candidates) == lists


def test_too_many_lists_are_refused() -> None:
    with pytest.raises(InputError, match="99 lists of 4 candidates: give 1 to 32 queries"):
        clear_lists(99, 4)
    assert "--queries" in doctor("tiny", "--queries", 0, code=2).output


def check_of(right: int, same: int) -> StrategyCheck:
    return StrategyCheck("direct", 6, 4, right, same, summarise([]))


@pytest.mark.parametrize(
    ("right", "same", "level"),
    [
        (12, 6, "fit"),
        (10, 5, "fit"),
        (8, 5, "fit with reservations"),
        (10, 3, "fit with reservations"),
        (4, 6, "unfit"),
    ],
)
def test_verdicts_go_by_chance_and_steadiness(right: int, same: int, level: str) -> None:
    verdict = check_of(right, same).verdict
    assert verdict.level == level and bool(verdict.reasons) is (level != "fit")


@pytest.mark.parametrize("right", range(13))
def test_chance_is_the_binomial_tail(right: int) -> None:
    assert check_of(right, 6).chance == pytest.approx(scipy.stats.binom.sf(right - 1, 12, 0.25))
