"""The first stage `pyserini`: BM25 over a Lucene index."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from r1ranker_ir.retrieval.first_stages import FirstStageKind

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus
    from r1ranker_ir.data.trec_runs import Run


def _search(corpus: Corpus, depth: int, queries: Mapping[str, str] | None, *, source: str, progress: bool) -> Run:
    from r1ranker_ir.retrieval.lucene import PyseriniSearcher

    searcher = PyseriniSearcher(source)
    topics = corpus.queries() if queries is None else queries
    return searcher.run(topics, depth, threads=os.cpu_count() or 1, progress=progress)


PYSERINI = FirstStageKind(
    "pyserini",
    _search,
    summary="the folder of a Lucene index of the corpus or the name of one of Pyserini's prebuilt indexes",
    source="INDEX",
    tag="pyserini-bm25",
    listed=2,
)
