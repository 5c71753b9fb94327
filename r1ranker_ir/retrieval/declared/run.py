"""The first stage `run`: a TREC run that is there already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import shown_ids
from r1ranker_ir.retrieval.first_stages import FirstStageKind

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus
    from r1ranker_ir.data.trec_runs import Run

logger = logging.getLogger(__name__)


def _search(corpus: Corpus, depth: int, queries: Mapping[str, str] | None, *, source: str, progress: bool) -> Run:
    from r1ranker_ir.data.trec_runs import read_run

    run = read_run(source)
    topics = corpus.queries() if queries is None else queries
    unknown = [query_id for query_id in run if query_id not in topics]
    if topics and len(unknown) == len(run):
        raise InputError(
            f"none of the {len(run)} queries of run {source!r} is in corpus {corpus.name!r}: is it a run of it?"
        )
    if unknown and queries is None:
        logger.warning(
            "%d queries of run %s are not in corpus %s and are left out: %s",
            *(len(unknown), source, corpus.name, shown_ids(unknown)),
        )
    return {query_id: tuple(run.get(query_id, ())[:depth]) for query_id in topics}


RUN = FirstStageKind(
    "run",
    _search,
    summary="a TREC run to cut at --depth",
    source="FILE",
    reads_file=True,
    listed=3,
)
