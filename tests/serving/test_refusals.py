"""What the service does not rank, and what it does when time, places or the model are wanting."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import NumbersBackend, numbers_source, running, wait_until

from r1ranker_ir.errors import InputError
from r1ranker_ir.serving.limits import ServiceLimits
from r1ranker_ir.serving.service import Service

TEXTS = ["number 5", "number 1", "number 9", "number 3"]
ASKED = {"query": "the smallest", "documents": TEXTS}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/rerank", {"documents": TEXTS}, 422, "query"),
        ("/v1/rerank", {"query": " ", "documents": TEXTS}, 422, "query: give at least one word"),
        ("/v1/rerank", {"query": "q", "documents": "number 1"}, 422, "documents"),
        ("/v1/rerank", {"query": "q", "documents": [3]}, 422, "documents.0"),
        ("/v1/rerank", {**ASKED, "top_n": 0}, 422, "top_n"),
        ("/v1/rerank", {**ASKED, "deadline": -1}, 422, "deadline"),
        ("/v1/rerank", {**ASKED, "model": "mine"}, 404, "model is 'mine': use one of numbers"),
        ("/v2/rerank", {**ASKED, "max_tokens_per_doc": 0}, 422, "max_tokens_per_doc"),
        ("/rerank", {"query": "q", "texts": [{}]}, 422, "texts.texts.0"),
        ("/rerank", ["q"], 422, "texts"),
        ("/rank", ASKED, 404, "Not Found"),
        ("/health", ASKED, 405, "Method Not Allowed"),
        ("/rerank", {"query": "q", "texts": ["x"] * 11}, 413, "11 documents: give at most 10"),
        ("/rerank", {"query": "q", "texts": ["x" * 1000]}, 413, "1001 characters"),
        ("/rerank", {"query": "q", "texts": ["x" * 5000]}, 413, "at most 4000 bytes"),
    ],
)
def test_what_is_wrong_is_said(backend, path, body, status, said):
    limits = ServiceLimits(max_documents=10, max_characters=1000, max_bytes=4000)
    with running(Service({"numbers": numbers_source(backend)}, limits)) as small:
        answer = small.post(path, body)
    assert answer.status_code == status and said in answer.json()["message"]
    assert answer.json()["message"] == answer.json()["error"] == answer.json()["detail"]
    assert answer.json()["id"] == answer.headers["x-request-id"]


def test_a_body_of_unknown_length_is_cut_off(backend):
    with running(Service({"numbers": numbers_source(backend)}, ServiceLimits(max_bytes=4000))) as small:
        with small.client() as client:
            answer = client.post("/rerank", content=iter([b"[" * 1000] * 10))
        assert answer.status_code == 413
        for wrong in (b"[" * 3000, b"\xff", b"{", b"", b'{"query": "q", "texts": [' + b"9" * 3000 + b"]}"):
            answer = small.post("/rerank", None, content=wrong, headers={"content-type": "application/json"})
            assert answer.status_code == (400 if wrong and not wrong.endswith(b"}") else 422)
            assert wrong != b"{" or answer.json()["message"].startswith("the body is not JSON: Expecting")
        answer = small.post("/v1/rerank", None, content=json.dumps(ASKED).encode())
        assert "send it with Content-Type: application/json" in answer.json()["message"]


def test_keys_are_asked_for(backend):
    with running(Service({"numbers": numbers_source(backend)}, keys=("one", "zwei ü"))) as closed:
        for headers in (
            {},
            {"authorization": "Bearer three"},
            {"authorization": "one"},
            {"authorization": b"Bearer \xff"},
        ):
            answer = closed.post("/v1/rerank", ASKED, headers=headers)
            assert answer.status_code == 401 and "Bearer" in answer.json()["message"]
        assert closed.get("/v1/models").status_code == 401 and closed.get("/ready").status_code == 200
        for key in (b"one", "zwei ü".encode()):
            assert closed.post("/v1/rerank", ASKED, headers={"authorization": b"Bearer " + key}).status_code == 200


def test_who_finds_the_queue_full_is_told_when_to_come_back(backend):
    backend.may_go_on.clear()
    limits = ServiceLimits(max_active=2, max_waiting=1)
    with running(Service({"numbers": numbers_source(backend)}, limits)) as small, ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(small.post, "/v1/rerank", ASKED) for _ in range(3)]
        wait_until(lambda: (small.service.admission.active, small.service.admission.waiting) == (2, 1))
        refused = small.post("/v1/rerank", ASKED)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert small.get("/health").status_code == 200
        assert "r1ranker_waiting 1.0" in small.get("/metrics").text
        backend.may_go_on.set()
        assert [each.result().status_code for each in accepted] == [200] * 3
        assert (small.service.admission.active, small.service.admission.waiting) == (0, 0)


@pytest.mark.parametrize("places", [1, 2])
def test_at_its_deadline_a_request_gets_the_best_order_so_far(backend, places):
    """The second one is still waiting for a place, or for the model."""
    backend.may_go_on.clear()
    with (
        running(Service({"numbers": numbers_source(backend)}, ServiceLimits(max_active=places))) as slow,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(slow.post, "/v1/rerank", ASKED)
        wait_until(lambda: len(backend.batches) == 1)
        late = slow.post("/v1/rerank", {**ASKED, "deadline": 0.2}).raise_for_status()
        assert late.json()["order"] == "partial" == late.headers["x-r1ranker-order"]
        assert [each["index"] for each in late.json()["results"]] == [0, 1, 2, 3]
        assert "deadline" in late.json()["meta"]["warnings"][0]
        backend.may_go_on.set()
        assert first.result().json()["order"] == "complete"


def test_what_was_excluded_before_the_deadline_is_last(backend):
    class Halting(NumbersBackend):
        def answer(self, calls):
            if self.batches:
                self.may_go_on.clear()
            return super().answer(calls)

    halting = Halting()
    with running(Service({"numbers": numbers_source(halting)}, ServiceLimits(deadline=1.0))) as slow:
        body = slow.post("/v1/rerank", ASKED).raise_for_status().json()
        halting.may_go_on.set()
    assert body["order"] == "partial" and [each["index"] for each in body["results"]] == [0, 1, 3, 2]
    assert body["usage"]["calls"] == 1


@pytest.mark.parametrize("fallback", [False, True])
def test_a_model_that_fails(backend, fallback, caplog):
    backend.fails = True
    with (
        caplog.at_level(logging.INFO, "r1ranker_ir"),
        running(Service({"numbers": numbers_source(backend)}, fallback=fallback)) as failing,
    ):
        answer = failing.post("/v1/rerank", ASKED)
        counts = failing.get("/metrics").text
    assert "smallest" not in caplog.text and "number 5" not in caplog.text and "BackendError" in caplog.text
    if fallback:
        assert answer.json()["order"] == "input"
        assert [each["index"] for each in answer.json()["results"]] == [0, 1, 2, 3]
        assert 'r1ranker_rankings_total{model="numbers",order="input"} 1.0' in counts
    else:
        assert answer.status_code == 500 and answer.json()["message"].startswith("the model failed")
        assert 'r1ranker_requests_total{path="/v1/rerank",status="500"} 1.0' in counts


def test_who_hangs_up_is_not_ranked_on(numbers, backend):
    backend.may_go_on.clear()
    with numbers.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/rerank", json=ASKED, timeout=0.3)
    wait_until(lambda: numbers.service.admission.active == 0)
    backend.may_go_on.set()
    numbers.post("/v1/rerank", {**ASKED, "model": "numbers"}).raise_for_status()
    assert len(backend.batches) == 1 + 3


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["query", "documents", "texts", "model", "top_n", "rank_fields", "return_documents", "max_tokens_per_doc"]
FIELDS += ["explain", "deadline", "return_text"]
NEARLY = st.fixed_dictionaries(
    {"query": st.text(max_size=5) | VALUES, "documents": st.lists(st.text(max_size=9) | VALUES, max_size=4) | VALUES},
    optional={
        "texts": st.lists(st.text(max_size=9), max_size=4) | VALUES,
        "top_n": st.integers(-1, 5),
        "rank_fields": st.lists(st.text(max_size=4), max_size=2),
        "deadline": st.floats(),
        "max_tokens_per_doc": st.integers(0, 3),
        "explain": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def steady():
    with running(Service({"numbers": numbers_source(NumbersBackend())})) as found, found.client() as client:
        yield client


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["/v1/rerank", "/v2/rerank", "/rerank"]),
    NEARLY | VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES) | st.binary(max_size=30),
)
def test_no_request_is_the_services_fault(steady, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = steady.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    answer.json()


def test_an_error_of_the_service_itself_is_told_without_texts(numbers, monkeypatch, caplog):
    async def rank(*_, **__):
        raise RuntimeError("number 5 of a text")

    monkeypatch.setattr(numbers.service, "rank", rank)
    answer = numbers.post("/v1/rerank", ASKED)
    assert answer.status_code == 500 and answer.json()["message"] == "the service failed"
    wait_until(lambda: "RuntimeError" in caplog.text)  # the log is written behind the answer
    assert "number 5" not in caplog.text
    assert "error" in numbers.post("/v1/rerank/events", ASKED).text


@pytest.mark.parametrize("given", [{"max_documents": 0}, {"deadline": 0}, {"deadline": float("nan")}, {"max_bytes": 0}])
def test_limits_that_make_no_sense(given):
    with pytest.raises(InputError, match=next(iter(given))):
        ServiceLimits(**given)
