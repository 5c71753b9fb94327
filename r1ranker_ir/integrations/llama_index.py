"""The rankers as a LlamaIndex node postprocessor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from r1ranker_ir.errors import InputError, missing_extra

try:
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
    from pydantic import ConfigDict, Field, InstanceOf
except ImportError as error:
    raise missing_extra("the LlamaIndex postprocessor", "llama-index", error) from error

from r1ranker_ir.integrations.results import RanksTexts, TracedResults

_DISPATCHER = get_dispatcher(__name__)


class R1RankerPostprocessor(BaseNodePostprocessor):  # type: ignore[misc]  # not checked with LlamaIndex's types
    """Reorders retrieved nodes and keeps the best `top_n` (`None` for all).

    Nodes stay as they are, with a new score: 1 for the best, in equal steps down to 1/n. `metadata_mode` says which of
    a node's metadata the model reads with its text: as a rule those that were embedded with it.
    """

    model_config = ConfigDict(extra="forbid")

    reranker: InstanceOf[RanksTexts] = Field(exclude=True)
    top_n: int | None = Field(default=10, ge=1)
    metadata_mode: MetadataMode = MetadataMode.EMBED

    @classmethod
    def class_name(cls) -> str:
        return cls.__name__

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._reported(nodes, query_bundle) as (query, texts, kept):
            kept += self._keep_best(nodes, self.reranker.rank(query, texts))
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._reported(nodes, query_bundle) as (query, texts, kept):
            kept += self._keep_best(nodes, await self.reranker.rank_async(query, texts))
        return kept

    def _keep_best(self, nodes: Sequence[NodeWithScore], results: TracedResults) -> list[NodeWithScore]:
        best = results.results[: self.top_n]
        return [NodeWithScore(node=nodes[result.doc_id].node, score=result.score) for result in best]

    @contextmanager
    def _reported(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[tuple[str, list[str], list[NodeWithScore]]]:
        """What to rank, and where to put the nodes that are kept; LlamaIndex's observers are told before and after."""
        if query_bundle is None:
            raise InputError("the query is missing: give query_str or query_bundle")
        query, name = query_bundle.query_str, repr(self.reranker)
        kept: list[NodeWithScore] = []
        most = len(nodes) if self.top_n is None else self.top_n
        _DISPATCHER.event(ReRankStartEvent(query=query, nodes=nodes, top_n=most, model_name=name))
        asked: dict[Any, Any] = {EventPayload.NODES: nodes, EventPayload.MODEL_NAME: name}
        asked |= {EventPayload.QUERY_STR: query, EventPayload.TOP_K: most}
        with self.callback_manager.event(CBEventType.RERANKING, payload=asked) as event:
            yield query, [node.get_content(metadata_mode=self.metadata_mode) for node in nodes], kept
            event.on_end(payload={EventPayload.NODES: kept})
        _DISPATCHER.event(ReRankEndEvent(nodes=kept))
