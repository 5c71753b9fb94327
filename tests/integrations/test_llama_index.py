"""The LlamaIndex node postprocessor, on the embedded model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed (extra llama-index)")

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pydantic import ValidationError
from rerankers import Reranker

from r1ranker_ir.errors import InputError
from r1ranker_ir.integrations.llama_index import R1RankerPostprocessor

pytestmark = pytest.mark.latest

QUERY = "flea life cycle"
TEXTS = ["Bicycles have wheels.", "The life cycle of a flea lasts weeks.", "Cats sleep.", "Fleas bite cats."]


@pytest.fixture(scope="module")
def ranker() -> Any:
    return Reranker("r1ranker-iterative-tiny", verbose=0)


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, metadata={"page": n}), score=0.1) for n, text in enumerate(TEXTS)]


def test_nodes_are_reordered_sync_and_async(ranker: Any, nodes: list[NodeWithScore]) -> None:
    order = ranker.rank(QUERY, [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]).ranking.order
    for top_n, length in ((1, 1), (3, 3), (9, 4), (None, 4)):
        post = R1RankerPostprocessor(reranker=ranker, top_n=top_n)
        kept = post.postprocess_nodes(nodes, query_str=QUERY)
        assert [node.node for node in kept] == [nodes[place].node for place in order[:length]]
        assert [node.score for node in kept] == [1 - rank / 4 for rank in range(length)]
        assert asyncio.run(post.apostprocess_nodes(nodes, query_str=QUERY)) == kept
    assert [node.score for node in nodes] == [0.1] * 4
    assert R1RankerPostprocessor(reranker=ranker).postprocess_nodes([], query_str=QUERY) == []
    assert post.to_dict()["class_name"] == "R1RankerPostprocessor" and "reranker" not in post.to_dict()


@pytest.mark.parametrize(("mode", "read"), [(MetadataMode.NONE, "Cats sleep."), (MetadataMode.EMBED, "page: 2")])
def test_the_model_reads_what_the_mode_says(ranker: Any, nodes: list[NodeWithScore], mode: Any, read: str) -> None:
    seen = []

    class Watching:
        def rank(self, query: str, docs: Any) -> Any:
            seen.extend(docs)
            return ranker.rank(query, docs)

        async def rank_async(self, query: str, docs: Any) -> Any: ...

    R1RankerPostprocessor(reranker=Watching(), metadata_mode=mode).postprocess_nodes(nodes, query_str=QUERY)
    assert read in seen[2] and ("page" in seen[2]) == (mode == MetadataMode.EMBED)


def test_in_a_query_engine(ranker: Any, nodes: list[NodeWithScore]) -> None:
    class Fixed(BaseRetriever):
        def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
            return nodes

    told: list[str] = []

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            told.append(event.class_name())

    dispatcher, handler = get_dispatcher(), Handler()
    dispatcher.add_event_handler(handler)
    post = R1RankerPostprocessor(reranker=ranker, top_n=2)
    engine = RetrieverQueryEngine(Fixed(), get_response_synthesizer(llm=MockLLM()), node_postprocessors=[post])
    try:
        answers = [engine.query(QUERY), asyncio.run(engine.aquery(QUERY))]
    finally:
        dispatcher.event_handlers.remove(handler)
    expected = [node.node_id for node in post.postprocess_nodes(nodes, query_str=QUERY)]
    assert [[node.node_id for node in answer.source_nodes] for answer in answers] == [expected] * 2
    assert told.count("ReRankStartEvent") == told.count("ReRankEndEvent") == 2


def test_what_makes_no_sense_is_refused(ranker: Any, nodes: list[NodeWithScore]) -> None:
    with pytest.raises(ValidationError, match="top_n"):
        R1RankerPostprocessor(reranker=ranker, top_n=0)
    with pytest.raises(ValidationError, match="RanksTexts"):
        R1RankerPostprocessor(reranker="r1ranker-iterative-tiny")
    post = R1RankerPostprocessor(reranker=ranker)
    with pytest.raises(InputError, match="the query is missing: give query_str or query_bundle"):
        post.postprocess_nodes(nodes)
    with pytest.raises(InputError, match="query is blank"):
        post.postprocess_nodes(nodes, query_str=" ")
