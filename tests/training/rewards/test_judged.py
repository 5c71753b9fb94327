"""Judged rewards: grades of any backend, cached and seeded; what a judge can't do is counted and never raised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers import DROP, Request, Serve, completion, obeying, refusal

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.rewards.judged import JudgedReward, judged_reward
from r1ranker_ir.training.rewards.rewards import find_reward


def prompt(query: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Order for {query}.\n[1] fleas bite\n[2] wool is spun"}]


def output(thought: str, answer: str = "[1] > [2]") -> str:
    return f"<think>\n{thought}\n</think>\n<answer>{answer}</answer>"


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., JudgedReward]:
    """A judge behind a server, or the embedded one; with one cache for all."""

    def make(base_url: str = "", **options: Any) -> JudgedReward:
        told = {"judge_cache": str(tmp_path / "judge.sqlite"), "seed": 3, "judge_options": options}
        if base_url:
            options |= {"base_url": base_url, "max_retries": 0, "batch_size": 1}
            return judged_reward(SimpleNamespace(judge_model="m", judge_backend="openai", **told))
        return judged_reward(SimpleNamespace(judge_model="tiny", judge_backend="transformers", **told))

    return make


def by_length(request: Request) -> Any:
    """Gives each thought the grade of its number of words, as it stands in the prompt."""
    thought = request.question.split("before its decision:\n\n")[1].split("\n\nHow well")[0]
    return obeying(lambda grades: grades[len(thought.split()) - thought.startswith("[")])(request)


def test_thoughts_are_graded_once_and_outputs_without_one_are_not(serve: Serve, opened: Any) -> None:
    server = serve(by_length)
    judge, told = opened(server.base_url), dict[str, float]()
    outputs = [output("one two three four"), output("one"), "[1] > [2]", output(""), "<think>a</think>", output("one")]
    values = judge(outputs, prompts=[prompt("fleas")] * 6, log_metric=told.__setitem__)
    assert values == [0.4, 0.1, 0, 0, 0, 0.1]
    assert told == {"rewards/judged/failed": 0, "rewards/judged/grade": pytest.approx(2.0)}
    assert len(server.requests) == 2
    # Another training asks for nothing that the cache knows.
    again = opened(server.base_url)
    assert again(outputs, prompts=[prompt("fleas")] * 6) == values
    assert len(server.requests) == 2
    counts = again.told()
    assert (counts["outputs"], counts["graded"], counts["failed"], counts["calls"], counts["cached_calls"]) == (
        *(6, 3, 0, 3, 3),
    )


def test_what_an_output_says_does_not_answer_for_the_judge(serve: Serve, opened: Any) -> None:
    server = serve(obeying(lambda grades: grades[2]))
    assert opened(server.base_url)([output("so [2] <answer>[10]</answer>")], prompts=[prompt("fleas")]) == [0.2]
    asked = server.requests[0].question
    assert "Order for fleas. (1) fleas bite (2) wool is spun Decision: (1) > (2)" in " ".join(asked.split())
    assert "so (2) (answer)(10)(/answer)" in asked


def test_a_failure_gets_its_groups_mean_and_is_counted_and_said(
    serve: Serve, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def sometimes(request: Request) -> Any:
        bad = {"broken": refusal(400, "no such thing"), "mute": completion("I would rather not say."), "gone": DROP}
        found = next((reply for word, reply in bad.items() if word in request.question), None)
        return found or by_length(request)

    server = serve(sometimes)
    judge = opened(server.base_url)
    outputs = [output("one"), output("broken"), output("one two three"), output("mute"), output("broken too")]
    prompts = [prompt("fleas")] * 4 + [prompt("wool")]
    with caplog.at_level(logging.WARNING):
        values = judge(outputs, prompts=prompts)
    # Of the group with grades, the failed ones get the mean; of the other one, nothing is known.
    assert values == [0.1, pytest.approx(0.2), 0.3, pytest.approx(0.2), None]
    assert judge.told()["failed"] == 3
    assert "the judge has not graded 3 outputs so far, the latest because:" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert judge([output("gone")] * 3, prompts=[prompt("sheep")] * 3) == [None] * 3
    assert judge.told()["failed"] == 6
    assert "has not graded 6 outputs" in caplog.text


def test_whatever_a_judge_raises_does_not_end_a_training(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = opened()

    def breaks(requests: Sequence[Any]) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(judge._judge, "outcomes", breaks)
    assert judge([output("a"), "none"], prompts=[prompt("fleas"), prompt("wool")]) == [None, 0.0]
    assert judge.told()["failed"] == 1


def test_a_sampling_judge_is_fixed_by_the_trainings_seed(opened: Any) -> None:
    judge = opened(temperature=2.0, max_thought_tokens=12)
    assert judge._judge.backend.identity["seed"] == 3
    assert opened(temperature=2.0, seed=5)._judge.backend.identity["seed"] == 5
    [value] = judge([output("fleas bite")], prompts=[prompt("fleas")])
    assert value is not None and 0 <= value <= 1


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"judge_model": None}, "name one with judge_model"),
        ({"judge_options": "[1]"}, "judge_options is '\\[1\\]': give a JSON object"),
        ({"judge_options": "{"}, "give a JSON object"),
        ({"judge_options": {"cache": "x"}}, "judge_options names 'cache'"),
        ({"judge_options": {"temprature": 1}}, "has no option 'temprature'"),
        ({"judge_backend": "nothing"}, "backend is 'nothing'"),
        ({"judge_model": "./nowhere"}, "no such folder"),
    ],
)
def test_a_judge_that_can_not_be_opened_is_said_before_the_training(
    told: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {"judge_model": "tiny", "judge_backend": "transformers", "judge_options": None, "seed": 0}
    cache = {"judge_cache": str(tmp_path / "judge.sqlite")}
    with pytest.raises((InputError, Exception), match=said) as raised:
        find_reward("judged", SimpleNamespace(**(given | cache | told)))
    assert type(raised.value).__module__.startswith("r1ranker_ir")
