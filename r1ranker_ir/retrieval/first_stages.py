"""First stages as data: a line of text that says where a run comes from, and the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from r1ranker_ir.errors import InputError
from r1ranker_ir.retrieval import bm25
from r1ranker_ir.runs import Run, read_run

if TYPE_CHECKING:
    from r1ranker_ir.corpora import Corpus

logger = logging.getLogger(__name__)

Kind = Literal["bm25s", "pyserini", "run"]
FORMS = "bm25s, pyserini:INDEX (an index folder or a prebuilt index's name) or run:FILE (a TREC run)"
SHOWN_IDS = 20
_SOURCES = {"pyserini": "the folder of a Lucene index or a prebuilt index's name", "run": "the path of a TREC run"}


@dataclass(frozen=True)
class FirstStage:
    """Where a run comes from; `str()` gives the text that `parse_first_stage` reads.

    Args:
        kind: `bm25s` (in memory), `pyserini` (a Lucene index) or `run` (a file).
        source: the index or the file; empty for `bm25s`.

    Raises:
        InputError: if the kind is unknown, or the source is missing or not wanted.
    """

    kind: Kind
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"first stage {str(self)!r} is unknown: use {FORMS}")
        wanted = _SOURCES.get(self.kind)
        if wanted is None and self.source:
            raise InputError(f"first stage {str(self)!r}: {self.kind} takes nothing after it; write {self.kind}")
        if wanted is not None and not self.source.strip():
            raise InputError(f"first stage {str(self)!r} names no source: write {self.kind}: and {wanted}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.source}" if self.source or self.kind in _SOURCES else self.kind


def parse_first_stage(text: str) -> FirstStage:
    """Reads a first stage: `bm25s`, `pyserini:INDEX` or `run:FILE`.

    Args:
        text: what stands before the first colon is the kind, the rest is the source.

    Returns:
        The first stage.

    Raises:
        InputError: if it is none of these forms.
    """
    kind, colon, source = text.partition(":")
    if kind not in get_args(Kind) or (colon and not source and kind not in _SOURCES):
        raise InputError(f"first stage {text!r} is unknown: use {FORMS}")
    return FirstStage(kind, source)  # type: ignore[arg-type]  # checked right above


def retrieve(
    first_stage: FirstStage,
    corpus: Corpus,
    depth: int,
    queries: Mapping[str, str] | None = None,
    *,
    progress: bool = False,
) -> Run:
    """Gets the run of a first stage for a corpus.

    Args:
        first_stage: where it comes from.
        corpus: what is searched; of a run file, only its queries count.
        depth: how many documents a query gets at most.
        queries: query text by id; the corpus's own if `None`.
        progress: shows progress bars on standard error.

    Returns:
        A run with an entry for every query, in the order of `queries`; empty where nothing was found.

    Raises:
        InputError: if `depth` is below 1, or the source can't be read or does not belong to the corpus.
        MissingExtraError: if the first stage needs Pyserini or Java, and one of them is missing.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}: ask for at least 1 document")
    if first_stage.kind == "bm25s":
        return bm25.search(corpus, depth, queries, progress=progress)
    if first_stage.kind == "run":
        return _cut(read_run(first_stage.source), corpus, depth, queries, first_stage.source)
    from r1ranker_ir.retrieval.lucene import PyseriniSearcher

    searcher = PyseriniSearcher(first_stage.source)
    topics = corpus.queries() if queries is None else queries
    return searcher.run(topics, depth, threads=os.cpu_count() or 1, progress=progress)


def _cut(run: Run, corpus: Corpus, depth: int, queries: Mapping[str, str] | None, path: str) -> Run:
    topics = corpus.queries() if queries is None else queries
    unknown = [query_id for query_id in run if query_id not in topics]
    if topics and len(unknown) == len(run):
        raise InputError(
            f"none of the {len(run)} queries of run {path!r} is in corpus {corpus.name!r}: is it a run of it?"
        )
    if unknown and queries is None:
        rest = " …" if len(unknown) > SHOWN_IDS else ""
        logger.warning(
            "%d queries of run %s are not in corpus %s and are left out: %s",
            len(unknown),
            path,
            corpus.name,
            ", ".join(unknown[:SHOWN_IDS]) + rest,
        )
    return {query_id: tuple(run.get(query_id, ())[:depth]) for query_id in topics}
