"""Records from a corpus with judgments and a first-stage run: what it found gives the hard negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from r1ranker_ir.data.corpora import Corpus, FolderCorpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Candidate

from .leakage import digest_of
from .records import judged

_QUERIES_AT_ONCE = 5_000
"""For how many queries a folder's texts are looked up in one pass over its file."""


@dataclass(frozen=True)
class Retrieval:
    """How judgments and a run become records."""

    depth: int = 100
    add_positives: bool = True
    judged_only: bool = False
    queries: int | None = None
    source: str | None = None


def retrieved_records(
    corpus: Corpus, run: Run, retrieval: Retrieval, dropped: Counter[str], left_out: Counter[str]
) -> Iterator[JudgedRequest]:
    """Builds a record for each query of the corpus that the run has results for and that has a positive.

    Candidates come in the run's order; positives that the run lacks follow, best first. Gains are the judgments'
    grades, those below 0 taken for 0. Of documents with the same text (but for case, punctuation and spaces) only
    the one with the greatest gain is kept, since no answer could tell them apart.
    """
    topics = corpus.queries()
    found = list(islice((query_id for query_id in topics if run.get(query_id)), retrieval.queries))
    if not found:
        raise InputError(f"none of the run's {len(run)} queries is in corpus {corpus.name!r}: is it a run of it?")
    if retrieval.queries is None and len(found) < len(topics):
        dropped["not in the run"] += len(topics) - len(found)
    all_grades = gains_of(corpus.qrels())
    grades = {query_id: all_grades.get(query_id, {}) for query_id in found}
    source = source_of(corpus) if retrieval.source is None else retrieval.source
    for start in range(0, len(found), _QUERIES_AT_ONCE):
        asked = found[start : start + _QUERIES_AT_ONCE]
        answered = [query_id for query_id in asked if any(grades[query_id].values())]
        dropped.update(["no document judged relevant"] * (len(asked) - len(answered)))
        chosen = {query_id: _chosen(run, query_id, grades[query_id], retrieval) for query_id in answered}
        texts = corpus.documents(dict.fromkeys(doc_id for doc_ids in chosen.values() for doc_id in doc_ids))
        for query_id, doc_ids in chosen.items():
            kept = _readable(doc_ids, texts, grades[query_id], left_out)
            candidates = [Candidate(doc_id, texts[doc_id]) for doc_id in kept]
            gains = [grades[query_id].get(doc_id, 0.0) for doc_id in kept]
            yield judged(topics[query_id], candidates, gains, id=query_id, source=source)


def source_of(corpus: Corpus) -> str:
    """Names a corpus as a source: its id, or its folder's own name, wherever that lies."""
    return Path(corpus.collection).name if isinstance(corpus, FolderCorpus) else corpus.name


def _chosen(run: Run, query_id: str, grades: Mapping[str, float], retrieval: Retrieval) -> list[str]:
    doc_ids = [entry.doc_id for entry in run[query_id][: retrieval.depth]]
    if retrieval.judged_only:
        doc_ids = [doc_id for doc_id in doc_ids if doc_id in grades]
    if retrieval.add_positives:
        there = set(doc_ids)
        lacking = [doc_id for doc_id, gain in grades.items() if gain > 0 and doc_id not in there]
        # By id where gains are equal: the order of a judgments file says nothing.
        doc_ids += sorted(lacking, key=lambda doc_id: (-grades[doc_id], doc_id))
    return doc_ids


def _readable(
    doc_ids: list[str], texts: Mapping[str, str], grades: Mapping[str, float], left_out: Counter[str]
) -> list[str]:
    """The documents that have a text of their own."""
    best: dict[bytes, str] = {}
    for doc_id in doc_ids:
        if not texts.get(doc_id, "").strip():
            left_out["blank" if doc_id in texts else "not in the corpus"] += 1
            continue
        other = best.setdefault(digest := digest_of(texts[doc_id]), doc_id)
        left_out.update(["the same text as another"] * (other != doc_id))
        if grades.get(doc_id, 0.0) > grades.get(other, 0.0):
            best[digest] = doc_id
    kept = set(best.values())
    return [doc_id for doc_id in doc_ids if doc_id in kept]
