"""`api="completions"`: through servers in three forms and one that can do nothing, rankings are the local backend's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from completion_servers import ModelServer, of_choice, of_grammar, of_regex
from servers import Serve, completion, refusal
from typer.testing import CliRunner

from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.cli.app import app
from r1ranker_ir.errors import BackendError, InputError
from r1ranker_ir.eval.output.manifest import counts
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.loading import load_model
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.types import Answer, Call, Candidate, Message, Ranking, RankingRequest

FORMS: dict[str, dict[str, Any]] = {
    "vllm": {
        "texts": of_choice("structured_outputs"),
        "scores": "numbered",
        "most_scores": 20,
        "stop_field": "stop_reason",
        "tells_tokens": True,
    },
    "vllm before": {"texts": of_choice("guided_choice"), "scores": "numbered", "most_scores": 5},
    "sglang": {"texts": of_regex, "scores": "masked", "stop_field": "matched_stop"},
    "llama.cpp": {"texts": of_grammar, "scores": "content"},
    "unheld": {"scores": "openai", "most_scores": 100},
    "held, silent": {"texts": of_grammar, "takes_tokens": False},
    "nothing": {"takes_tokens": False},
}
SCORED = ["vllm", "vllm before", "sglang", "llama.cpp", "unheld"]
TEXTS = [
    "A flea lives for two or three months and bites cats.",
    "Sheep are shorn in spring, and the wool is spun.",
    "The kettle boils at one hundred degrees at sea level.",
    "Fleas are small insects without wings.",
    "Wool is washed and carded before it is dyed.",
]


def request(query: str, count: int = 5) -> RankingRequest:
    texts = [TEXTS[place % 5] + (f" ({place})" if place > 4 else "") for place in range(count)]
    return RankingRequest(query, tuple(Candidate(f"d{place}", text) for place, text in enumerate(texts)))


REQUESTS = [request("how long do fleas live"), request("when does water boil")]


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_model(
        str(TINY_CHECKPOINT),
        device="cpu",
        dtype="float32",
        device_map=None,
        trust_remote_code=False,
        revision=None,
    )


@pytest.fixture
def start(serve: Serve, tiny: tuple[Any, Any]) -> Callable[..., tuple[dict[str, Any], ModelServer]]:
    """Starts a server in one of the forms; gives a ranker's options for it, and its behaviour."""

    def started(form: str, **changes: Any) -> tuple[dict[str, Any], ModelServer]:
        server = ModelServer(*tiny, **{**FORMS[form], **changes})
        options = {"backend": "openai", "base_url": serve(server).base_url, "api": "completions"}
        return {**options, "settings_from": TINY_CHECKPOINT, "max_retries": 0}, server

    return started


def rank(model: str | Path, requests: list[RankingRequest], **options: Any) -> list[Ranking]:
    return Ranker(model, **{"max_thought_tokens": 24, "max_repair_rate": 1.0, **options}).rank(requests)


def assert_same(served: list[Ranking], local: list[Ranking], *, probabilities: bool = True) -> None:
    assert [each.order for each in served] == [each.order for each in local]
    for one, other in zip(served, local, strict=True):
        for step, wanted in zip(one.steps, other.steps, strict=True):
            assert (step.thought, step.text, step.closed_at) == (wanted.thought, wanted.text, wanted.closed_at)
            assert (step.thought_closed, step.usage) == (wanted.thought_closed, wanted.usage)
            if probabilities and wanted.probabilities is not None:
                assert step.probabilities == pytest.approx(wanted.probabilities, abs=0.02)


@pytest.mark.parametrize(
    "ranked",
    [
        {"strategy": "iterative"},
        {"strategy": "iterative", "think": "never"},
        {"strategy": "direct", "max_thought_tokens": 4},
    ],
    ids=["thinking", "straight", "order"],
)
@pytest.mark.parametrize("form", ["vllm", "vllm before", "sglang", "llama.cpp", "held, silent"])
def test_rankings_are_those_of_the_local_backend(
    start: Callable[..., Any], form: str, ranked: dict[str, Any]
) -> None:
    options, server = start(form)
    served = rank("m", REQUESTS, **options, **ranked)
    assert_same(served, rank(TINY_CHECKPOINT, REQUESTS, device="cpu", dtype="float32", **ranked), probabilities=form in SCORED)
    assert {step.chosen_by for each in served for step in each.steps} == {"constraint"}
    assert all(isinstance(body["prompt"], str) != server.takes_tokens for body in server.bodies[2:])
