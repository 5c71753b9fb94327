"""The real clients, unchanged: Cohere's, LiteLLM's and LangChain's."""

from __future__ import annotations

import pytest

TEXTS = ["number 5", "number 1", "number 9", "number 3"]
BEST = [(1, 1.0), (3, 0.75), (0, 0.5)]


def found(results):
    return [(each.index, each.relevance_score) for each in results]


@pytest.mark.parametrize(("version", "number"), [("Client", "1"), ("ClientV2", "2")])
def test_coheres_client(numbers, version, number):
    cohere = pytest.importorskip("cohere")
    client = getattr(cohere, version)(api_key="none", base_url=numbers.url)
    answer = client.rerank(model="numbers", query="the smallest", documents=TEXTS, top_n=3)
    assert found(answer.results) == BEST and answer.meta.api_version.version == number
    with pytest.raises(cohere.core.ApiError) as refused:
        client.rerank(model="nowhere", query="the smallest", documents=TEXTS)
    assert refused.value.status_code == 404 and "use one of numbers" in refused.value.body["message"]


def test_coheres_first_client_returns_documents(numbers):
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(api_key="none", base_url=numbers.url)
    documents = [{"title": "a", "text": text} for text in TEXTS]
    given = {"query": "q", "documents": documents, "rank_fields": ["text"], "return_documents": True, "top_n": 1}
    [best] = client.rerank(model="numbers", **given).results
    assert best.document.text == "number 1" and best.document.title == "a"


@pytest.mark.parametrize(
    ("provider", "path"),
    [("cohere", "/v1/rerank"), ("cohere", "/v2/rerank"), ("jina_ai", "/v1/rerank"), ("hosted_vllm", "/rerank")]
    + [("huggingface", "/rerank")],
)
def test_litellms_rerank(numbers, provider, path):
    litellm = pytest.importorskip("litellm")
    given = {"query": "the smallest", "documents": TEXTS, "top_n": 3, "api_key": "none", "return_documents": True}
    answer = litellm.rerank(model=f"{provider}/numbers", api_base=numbers.url + path, **given)
    assert [(each["index"], each["relevance_score"]) for each in answer.results][:3] == BEST
    assert answer.results[0]["document"] == {"text": "number 1"}
