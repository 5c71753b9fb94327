"""The rerankers that frameworks have for Cohere and Jina, unchanged: LangChain's, LlamaIndex's and Haystack's."""

from __future__ import annotations

from typing import Any

import pytest
from loopback import Running

TEXTS = ["number 5", "number 1", "number 9", "number 3"]
BEST = [("number 1", 1.0), ("number 3", 0.75), ("number 5", 0.5)]


def of_framework(module: str, name: str) -> Any:
    return getattr(pytest.importorskip(module, exc_type=ImportError), name)


UNKNOWN = "model is 'nowhere': use one of numbers"


def compressed(compressor: Any) -> list[tuple[str, float]]:
    documents = of_framework("langchain_core.documents", "Document")
    found = compressor.compress_documents([documents(page_content=text) for text in TEXTS], "the smallest")
    return [(each.page_content, each.metadata["relevance_score"]) for each in found]


def test_langchains_compressor_of_cohere(numbers: Running) -> None:
    reranker = of_framework("langchain_cohere", "CohereRerank")
    assert compressed(reranker(model="numbers", cohere_api_key="none", base_url=numbers.url, top_n=3)) == BEST


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchains_compressor_of_jina(numbers: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "langchain_community.document_compressors.jina_rerank"
    reranker = of_framework(place, "JinaRerank")
    # It has no argument for its address.
    monkeypatch.setattr(f"{place}.JINA_API_URL", f"{numbers.url}/v1/rerank")
    assert compressed(reranker(model="numbers", jina_api_key="none", top_n=3)) == BEST
    with pytest.raises(RuntimeError, match=UNKNOWN):
        compressed(reranker(model="nowhere", jina_api_key="none"))


@pytest.mark.parametrize(
    ("module", "name", "path"),
    [
        ("llama_index.postprocessor.cohere_rerank", "CohereRerank", ""),
        ("llama_index.postprocessor.jinaai_rerank", "JinaRerank", "/v1"),
    ],
)
def test_llama_indexs_postprocessors(numbers: Running, module: str, name: str, path: str) -> None:
    schema = pytest.importorskip("llama_index.core.schema")
    kind, given = of_framework(module, name), {"api_key": "none", "base_url": numbers.url + path, "top_n": 3}
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.5) for text in TEXTS]
    found = kind(model="numbers", **given).postprocess_nodes(nodes, query_str="the smallest")
    assert [(each.node.text, each.score) for each in found] == BEST
    with pytest.raises(Exception, match=UNKNOWN):  # each of a kind of its own
        kind(model="nowhere", **given).postprocess_nodes(nodes, query_str="the smallest")


@pytest.mark.parametrize(
    ("module", "name", "address", "path"),
    [
        ("haystack_integrations.components.rankers.cohere", "CohereRanker", "api_base_url", ""),
        ("haystack_integrations.components.rankers.jina", "JinaRanker", "base_url", "/v1/rerank"),
    ],
)
def test_haystacks_rankers(numbers: Running, module: str, name: str, address: str, path: str) -> None:
    haystack = pytest.importorskip("haystack")
    kind, secret = of_framework(module, name), of_framework("haystack.utils", "Secret")
    key = secret.from_token("none")
    ranker = kind(model="numbers", api_key=key, top_k=3, **{address: numbers.url + path})
    documents = [haystack.Document(content=text) for text in TEXTS]
    found = ranker.run(query="the smallest", documents=documents)["documents"]
    assert [(each.content, each.score) for each in found] == BEST
