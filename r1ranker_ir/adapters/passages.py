"""Ranking requests of a corpus with judgments: one relevant passage each, among others that a first stage found.

R1-Ranker's passage tasks have 5, 7 or 9 candidates of which one is relevant (arXiv 2506.21638). Here the others come
from a run, so that they are about the query as far as words go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.adapters.passage_protocol import PassageProtocol
from r1ranker_ir.adapters.problems import LeftOutError, Problems
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError
from r1ranker_ir.runs.requests import CHUNK_QUERIES
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Candidate, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus


def passage_requests(
    corpus: Corpus, run: Run, protocol: PassageProtocol, problems: Problems, counts: Counter[str] | None = None
) -> Iterator[JudgedRequest]:
    """Makes a request of each query that has a relevant passage and results in a run.

    A relevant passage drawn at random has gain 1. The others are of the run, not judged relevant, and of other texts;
    all are in random order. `counts` is told of queries that are passed over.
    """
    counts = Counter() if counts is None else counts
    topics = corpus.queries()
    if not any(query_id in run for query_id in topics):
        raise InputError(f"none of the run's {len(run)} queries is in corpus {corpus.name!r}: is it a run of it?")
    grades = gains_of(corpus.qrels())
    usable = []
    for query_id in topics:
        if not any(grade >= protocol.min_gain for grade in grades.get(query_id, {}).values()):
            counts["no passage judged relevant"] += 1
        elif not run.get(query_id):
            counts["no results in the run"] += 1
        else:
            usable.append(query_id)
    source = Path(corpus.collection).name if Path(corpus.collection).is_dir() else corpus.name
    made = 0
    for start in range(0, len(usable), CHUNK_QUERIES):
        chunk = usable[start : start + CHUNK_QUERIES]
        pools = {query_id: _pool(run, query_id, grades[query_id], protocol) for query_id in chunk}
        texts = corpus.documents(doc_id for pool in pools.values() for doc_ids in pool for doc_id in doc_ids)
        for query_id, (relevant, others) in pools.items():
            if made == protocol.queries:
                return
            with problems.leaving_out():
                chosen = _chosen(query_id, relevant, others, texts, protocol)
                made += 1
                scores = {entry.doc_id: entry.score for entry in run[query_id]}
                candidates = tuple(Candidate(doc_id, texts[doc_id], scores.get(doc_id)) for doc_id in chosen)
                gains = tuple(float(doc_id in relevant) for doc_id in chosen)
                yield JudgedRequest(RankingRequest(topics[query_id], candidates, "passage", query_id), gains, source)


def _pool(
    run: Run, query_id: str, grades: Mapping[str, float], protocol: PassageProtocol
) -> tuple[Sequence[str], Sequence[str]]:
    """A query's relevant passages, and those of the run's top that nobody has judged relevant."""
    # By id: the order of a file of judgments says nothing.
    relevant = sorted(doc_id for doc_id, grade in grades.items() if grade >= protocol.min_gain)
    top = [entry.doc_id for entry in run[query_id][: protocol.depth]]
    return relevant, [doc_id for doc_id in top if grades.get(doc_id, 0) <= 0]


def _chosen(
    query_id: str, relevant: Sequence[str], others: Sequence[str], texts: Mapping[str, str], protocol: PassageProtocol
) -> list[str]:
    rng, where = seeded_by(f"{protocol.seed}:{query_id}"), f"query {query_id}"
    readable = [doc_id for doc_id in relevant if texts.get(doc_id, "").strip()]
    if not readable:
        raise LeftOutError(where, "no relevant passage has a text", f"of {', '.join(relevant[:3])}")
    positive = rng.choice(readable)
    pool = others if protocol.negatives == "top" else rng.sample(others, len(others))
    # What reads like a relevant passage is one, whatever its id.
    relevant_texts = {_folded(texts[doc_id]) for doc_id in readable}
    by_text: dict[str, str] = {}
    for doc_id in pool:
        by_text.setdefault(_folded(texts.get(doc_id, "")), doc_id)
    negatives = [doc_id for text, doc_id in by_text.items() if text and text not in relevant_texts]
    needed = protocol.candidates - 1
    if len(negatives) < needed:
        few = f"{len(negatives)} of {needed}; use a deeper run, or fewer candidates"
        raise LeftOutError(where, "too few other passages in the run", few)
    chosen = [positive, *negatives[:needed]]
    rng.shuffle(chosen)
    return chosen


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
