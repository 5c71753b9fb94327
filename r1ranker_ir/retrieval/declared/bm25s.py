"""The first stage `bm25s`: BM25 in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from r1ranker_ir.retrieval.first_stages import FirstStageKind

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus
    from r1ranker_ir.data.trec_runs import Run


def _search(corpus: Corpus, depth: int, queries: Mapping[str, str] | None, *, source: str, progress: bool) -> Run:
    from r1ranker_ir.retrieval import bm25

    return bm25.search(corpus, depth, queries, progress=progress)


BM25S = FirstStageKind("bm25s", _search, summary="which indexes the corpus in memory", tag="bm25", listed=1)
