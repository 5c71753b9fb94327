"""What must not change unnoticed: cache keys, prompts, template digests and traces, as `golden.json` holds them.

`python tests/test_golden.py` writes the file anew, for a change that is meant and that CHANGELOG.md names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.cache.records import key_maker
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.digest import digest_of_messages
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.runs.traces import trace_of
from r1ranker_ir.types import Answer, Call, Ranking

GOLDEN = Path(__file__).with_name("golden.json")
PACKAGED = Path(load_template.__code__.co_filename).parent
TEMPLATES = ("family_listwise.toml", "family_rankgpt.toml", "family_first.toml", "family_iranker.toml")
NEAR = 1e-3
"""Probabilities of a model may differ by so much between machines."""

TEXTS = (
    "fleas live for two or three months",
    "the kettle boils at one hundred degrees",
    "sheep are shorn in spring",
    "cloth is dyed last of all",
    "a flea's larvae feed on what the adults leave",
    "wool is washed, carded and spun",
    "a cat with fleas [1] scratches",
)
GAINS = {"q1": {"d0": 3.0, "d4": 2.0, "d6": 1.0}, "q2": {"d5": 2.0, "d2": 1.0}}
REQUESTS = tuple(
    RankingRequest(
        query, tuple(Candidate(f"d{n}", text, score=9.0 - n) for n, text in enumerate(TEXTS)), task, query_id, aim
    )
    for query, task, query_id, aim in (
        ("how long do fleas live", "passage", "q1", ""),
        ("sheep\nwool", "item", "q2", "what comes next"),
    )
)
WINDOWS = {"window_size": 4, "stride": 2}

ORACLE: dict[str, dict[str, Any]] = {
    "iterative": {"strategy": "iterative"},
    "iterative, windows": {"strategy": "iterative", **WINDOWS},
    "iterative, mark": {"strategy": "iterative", "layout": "mark"},
    "iterative, mark, windows": {"strategy": "iterative", "layout": "mark", **WINDOWS},
    "iterative, halving": {"strategy": "iterative", "schedule": "halving"},
    "iterative, first thought": {"strategy": "iterative", "think": "first"},
    "iterative, no thought": {"strategy": "iterative", "think": "never"},
    "iterative, top 2": {"strategy": "iterative", "top_k": 2},
    "iterative, best first": {"strategy": "iterative", "show_best_first": True},
    "iterative, 3 votes": {"strategy": "iterative", "votes": 3, **WINDOWS},
    "direct": {"strategy": "direct"},
    "direct, windows": {"strategy": "direct", **WINDOWS},
    "direct, top 2": {"strategy": "direct", "top_k": 2, **WINDOWS},
    "direct, no thought": {"strategy": "direct", "think": "never", **WINDOWS},
    "direct, tournament": {"strategy": "direct", "sort": "tournament", "window_size": 4},
    "direct, 3 votes": {"strategy": "direct", "votes": 3, "vote_by": "borda"},
    "setwise": {"strategy": "setwise"},
    "setwise, heap of 3": {"strategy": "setwise", "window_size": 3},
    "setwise, bubble": {"strategy": "setwise", "sort": "bubble", "window_size": 3, "shuffle_seed": None},
    "setwise, 3 votes": {"strategy": "setwise", "votes": 3, "window_size": 4},
    "setwise, no thought": {"strategy": "setwise", "think": "never"},
    "pointwise": {"strategy": "pointwise"},
    "pointwise, no thought": {"strategy": "pointwise", "think": "never"},
    "pointwise, 3 votes": {"strategy": "pointwise", "votes": 3, "vote_among": "thoughts"},
    "pointwise, 4 calls": {"strategy": "pointwise", "max_calls": 4},
    **{
        f"{name}, {answers}": {"strategy": strategy, "template": PACKAGED / name, "answers": answers, **WINDOWS}
        for name, strategy in (
            ("family_listwise.toml", "direct"),
            ("family_rankgpt.toml", "direct"),
            ("family_iranker.toml", "direct"),
            ("family_iranker.toml", "iterative"),
        )
        for answers in ("constrained", "published")
    },
}
EMBEDDED: dict[str, dict[str, Any]] = {
    "iterative": {"strategy": "iterative"},
    "iterative, mark": {"strategy": "iterative", "layout": "mark"},
    "direct": {"strategy": "direct"},
    "setwise": {"strategy": "setwise"},
    "pointwise": {"strategy": "pointwise"},
}
# Beside each strategy answers in words: good ones, and some that have to be repaired.
WRITTEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "iterative": ({}, ("<answer>[2]</answer>", "<answer>none of them</answer>", "[1] or [3]", "<answer>[99]</answer>")),
    "iterative, mark": ({"layout": "mark"}, ("<answer>[2]</answer>", "<answer>[2]</answer>", "dunno")),
    "direct": (WINDOWS, ("<answer>[2] > [1] > [4] > [3]</answer>", "<answer>[3] > [3] > [9]</answer>", "no")),
    "setwise": (WINDOWS, ("<answer>[2]</answer>", "what?", "<answer>[1]</answer>", "<answer>[2] > [1]</answer>")),
    "pointwise": ({}, ("<answer>[7]</answer>", "<answer>[11]</answer>", "about 3", "<answer>ten</answer>")),
}


def ranker_of(options: dict[str, Any]) -> Ranker:
    return Ranker("oracle", backend="oracle", gains=GAINS, noise=0.4, seed=3, **options)


def driven(ranker: Ranker, request: RankingRequest, reply: Callable[[Call], Answer]) -> dict[str, Any]:
    """Runs a program by hand: the keys of its calls, and its trace without what the request says."""
    key_of, keys = key_maker({"backend": "golden"}), []
    program = ranker.program(request)
    call = next(program)
    while True:
        keys.append(key_of(call).hex()[:16])
        try:
            call = program.send(reply(call))
        except StopIteration as stop:
            ranking: Ranking = stop.value
            trace = trace_of(ranking, str(ranker.strategy), ranker.notes)
            return {"keys": keys, "trace": {name: value for name, value in trace.items() if name not in ("texts",)}}


def by_oracle(name: str) -> list[dict[str, Any]]:
    ranker = ranker_of(ORACLE[name])
    return [driven(ranker, request, lambda call: ranker.backend.answer([call])[0]) for request in _fitting(name)]


def _fitting(name: str) -> tuple[RankingRequest, ...]:
    # The items of the family's own system are of kinds that it names.
    return REQUESTS[:1] if "iranker" in name else REQUESTS


def by_writing(name: str) -> dict[str, Any]:
    options, texts = WRITTEN[name]
    ranker = ranker_of({"strategy": name.partition(",")[0], **options})
    replies = iter(texts * 40)
    return driven(ranker, REQUESTS[0], lambda call: Answer(next(replies)))


def by_embedded(name: str) -> dict[str, Any]:
    ranker = Ranker(TINY_CHECKPOINT, template=load_template(), device="cpu", max_thought_tokens=12, **EMBEDDED[name])
    return driven(ranker, REQUESTS[0], lambda call: ranker.backend.answer([call])[0])


def counted(name: str) -> dict[str, int]:
    """What an engine counts over both requests."""
    ranker = ranker_of(ORACLE[name])
    ranker.rank(_fitting(name))
    summary = ranker.summary
    return {"calls": summary.usage.calls, "tokens": summary.usage.prompt_tokens, "repairs": summary.repairs}


def digests() -> dict[str, Any]:
    template = load_template()
    parts = {f"default, {name}": template.only(name).digest() for name in template.wordings}
    others = {name: open_template(PACKAGED / name).digest() for name in TEMPLATES}
    return {"default": template.digest(), "default with mark": template.digest(mark=True), **parts, **others}


def prompts() -> dict[str, str]:
    """Hash of the prompt that `Prompt` renders for each section and request."""
    said = {}
    for name in ("iterative", "iterative, mark", "direct", "setwise", "pointwise"):
        ranker = ranker_of(ORACLE[name])
        for request in REQUESTS:
            said[f"{name}, {request.query_id}"] = digest_of_messages(next(ranker.program(request)).messages)
    return said


def everything() -> dict[str, Any]:
    return {
        "digests": digests(),
        "prompts": prompts(),
        "oracle": {name: by_oracle(name) for name in ORACLE},
        "counts": {name: counted(name) for name in ORACLE},
        "written": {name: by_writing(name) for name in WRITTEN},
        "embedded": {name: by_embedded(name) for name in EMBEDDED},
    }


def as_json(content: Any) -> Any:
    return json.loads(json.dumps(content))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return content


def test_template_digests_and_prompts_are_as_before(golden: dict[str, Any]) -> None:
    assert digests() == golden["digests"]
    assert prompts() == golden["prompts"]


@pytest.mark.parametrize("name", ORACLE)
def test_keys_and_traces_of_the_oracle_are_as_before(golden: dict[str, Any], name: str) -> None:
    assert as_json(by_oracle(name)) == golden["oracle"][name]
    assert counted(name) == golden["counts"][name]


@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_are_read_and_repaired_as_before(golden: dict[str, Any], name: str) -> None:
    assert as_json(by_writing(name)) == golden["written"][name]


@pytest.mark.parametrize("name", EMBEDDED)
def test_keys_and_traces_of_the_embedded_model_are_as_before(golden: dict[str, Any], name: str) -> None:
    found, kept = as_json(by_embedded(name)), golden["embedded"][name]
    for step, before in zip(found["trace"]["steps"], kept["trace"]["steps"], strict=True):
        for numbers in ("probabilities", "grade"):
            assert step.pop(numbers, None) == pytest.approx(before.pop(numbers, None), abs=NEAR)
    assert found == kept


def in_lines(content: Any, depth: int) -> str:
    """JSON whose outer objects have a line for each entry."""
    if not depth or not isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    entries = (f"{json.dumps(name)}: {in_lines(value, depth - 1)}" for name, value in content.items())
    return "{\n" + ",\n".join(entries) + "\n}"


if __name__ == "__main__":
    GOLDEN.write_text(f"{in_lines(everything(), 2)}\n", encoding="utf-8")
