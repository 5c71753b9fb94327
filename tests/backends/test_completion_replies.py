"""Replies of the completions endpoint in forms of every kind: an answer, or an error of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from completion_servers import ModelServer, of_choice, of_grammar
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import Reply, Request, serving

from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.errors import BackendError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.loading import load_model
from r1ranker_ir.types import Answer, Call, Message

FORMS: dict[str, dict[str, Any]] = {
    "numbered": {"texts": of_choice("structured_outputs"), "scores": "numbered", "tells_tokens": "return_token_ids"},
    "named": {"texts": of_grammar, "scores": "content", "tells_tokens": "verbose"},
    "silent": {"texts": of_grammar},
    "unheld": {"scores": "openai"},
}
CALLS = [
    Call((Message("user", "Which of [1], [2] and [3]?"),), ("[1]", "[2]", "[3]"), form="one"),
    Call((Message("user", "Order [1], [2] and [3]."),), ("[1]", "[2]", "[3]"), form="order", thinks=False),
]

NUMBERS = st.sampled_from([0, -1, 5, 10**6, 2**31, 2**63, 10**30]) | st.integers(-10, 3000)
TEXTS = st.sampled_from(
    ["", " ", "[1]", "1", "]", "a thought", "</think>", "x</think><answer>[2]", "<answer>", "\ud83d"]
)
TOKENS = TEXTS | NUMBERS.map("token_id:{}".format) | NUMBERS
SCORES = st.sampled_from([0.0, -0.5, 1.0, -1e308, 1e308, 800.0, -800.0, 10**400, None, True, "-1"])
JUNK = st.none() | st.booleans() | NUMBERS | TEXTS | st.lists(TEXTS | NUMBERS, max_size=2)
AT_PLACE = st.fixed_dictionaries({}, optional={"id": NUMBERS | JUNK, "token": TOKENS | JUNK, "logprob": SCORES})
CHAT_SCORES = st.fixed_dictionaries(
    {"content": JUNK | st.lists(AT_PLACE.map(dict), max_size=2)},
) | st.builds(
    lambda place, top: {"content": [{**place, "top_logprobs": top}]},
    AT_PLACE,
    st.lists(AT_PLACE | JUNK, max_size=4) | JUNK,
)
PLAIN_SCORES = st.fixed_dictionaries(
    {},
    optional={
        "top_logprobs": st.lists(st.dictionaries(TOKENS.map(str), SCORES, max_size=4) | JUNK, max_size=2) | JUNK,
        "tokens": st.lists(TOKENS, max_size=2) | JUNK,
        "token_logprobs": st.lists(SCORES, max_size=2) | JUNK,
    },
)
IDS = st.lists(NUMBERS, max_size=4) | JUNK
CHOICE = st.fixed_dictionaries(
    {"text": TEXTS | JUNK},
    optional={
        "finish_reason": st.sampled_from(["stop", "length", "error"]) | JUNK,
        "logprobs": CHAT_SCORES | PLAIN_SCORES | JUNK,
        "token_ids": IDS,
        "tokens": IDS,
        "stop_reason": TEXTS | NUMBERS,
        "matched_stop": TEXTS | NUMBERS,
    },
)
COUNTS = st.fixed_dictionaries({}, optional={"prompt_tokens": NUMBERS, "completion_tokens": NUMBERS})
REPLIES = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, min_size=1, max_size=2)},
    optional={
        "usage": COUNTS | JUNK,
        "__verbose": JUNK | st.fixed_dictionaries({}, optional={"tokens": IDS, "stopping_word": JUNK}),
    },
)


@dataclass
class Misled:
    """Behaves like a server until it is given replies, which it then sends one after the other, over and over."""

    server: ModelServer
    replies: list[Any]
    sent: int = 0

    def __call__(self, request: Request) -> Reply:
        if not self.replies:
            return self.server(request)
        self.sent += 1
        return Reply(json.dumps(self.replies[(self.sent - 1) % len(self.replies)]))


@pytest.fixture(scope="module", params=FORMS)
def misled(request: pytest.FixtureRequest) -> Iterator[tuple[Misled, OpenAIBackend]]:
    model, tokenizer = load_model(
        str(TINY_CHECKPOINT), device="cpu", dtype="float32", device_map=None, trust_remote_code=False, revision=None
    )
    behaviour = Misled(ModelServer(model, tokenizer, **FORMS[request.param]), [])
    with serving(behaviour) as server:
        backend = OpenAIBackend(
            "m",
            base_url=server.base_url,
            api="completions",
            tokenizer=str(TINY_CHECKPOINT),
            max_retries=0,
            max_thought_tokens=8,
        )
        assert backend.find_abilities() is not None
        yield behaviour, backend


def one(**choice: Any) -> list[Any]:
    return [{"choices": [{"text": "[1]", **choice}]}]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@example(one(token_ids=[-1]))
@example(one(token_ids=[2**63]))
@example(one(tokens=[10**30]))
@example(one(logprobs={"tokens": ["["], "token_logprobs": [-1e308], "top_logprobs": [{"1": 1e308, "[": -1e308}]}))
@example(one(logprobs={"content": [{"id": -5, "token": "1", "logprob": 800.0, "top_logprobs": []}]}))
@given(st.lists(REPLIES, min_size=1, max_size=3))
def test_whatever_is_replied_is_an_answer_or_an_error_of_ours(
    misled: tuple[Misled, OpenAIBackend], replies: list[Any]
) -> None:
    behaviour, backend = misled
    behaviour.replies, behaviour.sent = replies, 0
    for call in CALLS:
        try:
            [answer] = backend.answer([call])
        except BackendError as error:
            assert len(str(error)) < 2000
        else:
            assert (
                isinstance(answer, Answer) and answer.usage.prompt_tokens >= 0 and answer.usage.completion_tokens >= 0
            )
            assert answer.choice is None or {*answer.choice} <= {*call.identifiers}
            for probability in (answer.probabilities or {}).values():
                assert 0 <= probability <= 1
    assert behaviour.sent < 60
