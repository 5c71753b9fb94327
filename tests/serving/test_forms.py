"""Every client's form, and what the service tells of itself."""

from __future__ import annotations

import json

import pytest

from r1ranker_ir.runs.traces import read_trace

TEXTS = ["number 5", "number 1", "number 9", "number 3"]
BEST_FIRST = [1, 3, 0, 2]
ASKED = {"query": "the smallest", "documents": TEXTS}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("model", [None, "numbers", "other"])
def test_documents_come_best_first_with_scores_of_their_places(numbers, path, model):
    answer = numbers.post(path, {**ASKED, "model": model, "unknown_field": 1}).raise_for_status()
    body = answer.json()
    assert [each["index"] for each in body["results"]] == BEST_FIRST
    assert [each["relevance_score"] for each in body["results"]] == [1.0, 0.75, 0.5, 0.25]
    assert body["model"] == (model or "numbers") and body["order"] == "complete" == answer.headers["x-r1ranker-order"]
    assert body["usage"] == {"total_tokens": 33, "prompt_tokens": 30, "completion_tokens": 3, "calls": 3}
    assert body["meta"]["api_version"]["version"] == path[2] and "warnings" not in body["meta"]


def test_the_form_of_text_embeddings_inference(numbers):
    body = {"query": "q", "texts": TEXTS, "raw_scores": False, "return_text": True, "truncate": True}
    answer = numbers.post("/rerank", body).raise_for_status()
    scores = zip(BEST_FIRST, (1.0, 0.75, 0.5, 0.25), strict=True)
    assert answer.json() == [{"index": place, "score": score, "text": TEXTS[place]} for place, score in scores]


def test_objects_are_read_by_their_fields(numbers, backend):
    documents = [{"text": "number 7", "title": "a"}, "number 2", {"text": "number 4", "title": None}]
    body = {"query": "q", "documents": documents, "return_documents": True, "top_n": 2}
    found = numbers.post("/v1/rerank", body).raise_for_status().json()["results"]
    assert [(each["index"], each["document"]) for each in found] == [(1, {"text": "number 2"}), (2, documents[2])]
    numbers.post("/v1/rerank", {**body, "rank_fields": ["text", "title"]}).raise_for_status()
    assert "text: number 7 title: a" in " ".join(backend.prompts[-1].split()) + " ".join(backend.prompts[-2].split())
    refused = numbers.post("/v1/rerank", {**body, "rank_fields": ["body"]})
    assert refused.status_code == 422 and "documents[0] has no field body" in refused.json()["message"]


def test_documents_are_cut_to_tokens(numbers, backend):
    texts = [f"{text} and many more words" for text in TEXTS]
    numbers.post("/v2/rerank", {"query": "q", "documents": texts, "max_tokens_per_doc": 3}).raise_for_status()
    assert "number 5 and" in backend.prompts[0] and "many" not in "".join(backend.prompts)


@pytest.mark.parametrize("documents", [[], ["number 1"]])
def test_what_needs_no_call_is_answered_without_one(numbers, backend, documents):
    found = numbers.post("/v1/rerank", {"query": "q", "documents": documents}).raise_for_status().json()
    assert len(found["results"]) == len(documents) and not backend.batches


def test_a_trace_is_one_of_ours(numbers, tmp_path):
    body = numbers.post("/v1/rerank", {**ASKED, "explain": True}).raise_for_status().json()
    (tmp_path / "trace.jsonl").write_text(json.dumps(body["trace"]) + "\n")
    [traced] = read_trace(tmp_path / "trace.jsonl")
    assert list(traced.ranking.order) == BEST_FIRST and traced.ranking.request.query == "the smallest"
    assert [step.thought for step in traced.ranking.steps] == ["3", "1", "2"]
    assert traced.conditions == numbers.service.rankers["numbers"].conditions


def test_half_a_surrogate_pair_comes_back_as_it_was(numbers):
    body = json.dumps({"query": "\ud800", "documents": ["number 2 \udc00", "number 1"], "return_documents": True})
    headers = {"content-type": "application/json"}
    with numbers.client() as client:
        answer = client.post("/v1/rerank", content=body, headers=headers).raise_for_status()
    assert json.loads(answer.content)["results"][1]["document"]["text"] == "number 2 \udc00"


def test_the_service_tells_what_it_is_and_does(numbers):
    numbers.post("/v1/rerank", ASKED)
    assert [each["id"] for each in numbers.get("/v1/models").json()["data"]] == ["numbers", "other"]
    assert numbers.get("/health").status_code == numbers.get("/ready").status_code == 200
    counts = numbers.get("/metrics").text
    for line in (
        'r1ranker_requests_total{path="/v1/rerank",status="200"} 1.0',
        'r1ranker_rankings_total{model="numbers",order="complete"} 1.0',
        'r1ranker_calls_total{model="numbers"} 3.0',
        'r1ranker_documents_total{model="numbers"} 4.0',
    ):
        assert line in counts
    described = numbers.get("/openapi.json").json()
    assert {"/v1/rerank", "/v2/rerank", "/rerank", "/v1/models", "/health", "/ready"} <= set(described["paths"])
    page = numbers.get("/docs")
    assert "<script" not in page.text and "style-src 'sha256-" in page.headers["content-security-policy"]
    for told in (
        "openapi.json",
        "POST /v2/rerank",
        "max_tokens_per_doc</code>",
        "whole number from 1",
        "query</code> *",
    ):
        assert told in page.text


def test_a_ranking_is_told_as_it_happens(numbers):
    text = numbers.post("/v1/rerank/events", ASKED).raise_for_status().text
    told = [[line.partition(": ")[2] for line in event.splitlines()] for event in text.strip().split("\n\n")]
    assert [name for name, _ in told] == ["step"] * 3 + ["result"]
    steps = [json.loads(data) for name, data in told if name == "step"]
    assert [step["outcome"] for step in steps] == [[2], [0], [3]]
    assert [(step["shown"], step["thought"]) for step in steps] == [
        ([0, 1, 2, 3], "3"),
        ([0, 1, 3], "1"),
        ([1, 3], "2"),
    ]
    assert [each["index"] for each in json.loads(told[-1][1])["results"]] == BEST_FIRST
    assert 'path="/v1/rerank/events",status="200"' in numbers.get("/metrics").text
    assert numbers.post("/v1/rerank/events", {**ASKED, "model": "nowhere"}).status_code == 404


def test_what_leaves_is_told(embedded):
    body = {"query": "how far do fleas jump", "documents": ["the moon", "fleas jump far", "a boat"]}
    text = embedded.post("/v1/rerank/events", body).raise_for_status().text
    *steps, result = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    gone = [place for step in steps for place in step["outcome"]]
    assert [each["index"] for each in result["results"]][:0:-1] == gone and len(gone) == 2


def test_the_page_takes_nothing_from_elsewhere(numbers):
    page = numbers.get("/")
    assert (
        "<form" in page.text and "innerHTML" not in page.text and "http" not in page.text.lower().replace("http-", "")
    )
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("'sha256-") == 2
