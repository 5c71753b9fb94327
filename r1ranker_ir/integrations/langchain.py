"""The rankers as a LangChain document compressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1ranker_ir.errors import missing_extra

try:
    from langchain_core.documents import BaseDocumentCompressor, Document
    from pydantic import ConfigDict, Field, InstanceOf
except ImportError as error:
    raise missing_extra("the LangChain compressor", "langchain", error) from error

from r1ranker_ir.integrations.results import RanksTexts, TracedResults

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks


class R1RankerCompressor(BaseDocumentCompressor):
    """Reorders retrieved documents and keeps the best `k` (`None` for all), as a `ContextualCompressionRetriever` asks.

    They are copies, with `relevance_score` and `rank` added to their metadata.
    """

    model_config = ConfigDict(extra="forbid")

    reranker: InstanceOf[RanksTexts]
    k: int | None = Field(default=10, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        return self._keep_best(documents, self.reranker.rank(query, [document.page_content for document in documents]))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        texts = [document.page_content for document in documents]
        return self._keep_best(documents, await self.reranker.rank_async(query, texts))

    def _keep_best(self, documents: Sequence[Document], results: TracedResults) -> list[Document]:
        kept = []
        for result in results.results[: self.k]:
            document = documents[result.doc_id]
            metadata = {**document.metadata, "relevance_score": result.score, "rank": result.rank}
            kept.append(document.model_copy(update={"metadata": metadata}))
        return kept
