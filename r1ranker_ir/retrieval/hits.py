"""Searches in Pyserini's form: the arguments, the hits (objects with `docid` and `score`), their texts, and runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from r1ranker_ir.data.corpora import document_text
from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import InputError

# Where Pyserini's collections keep a document's body: JsonCollection, BEIR, MS MARCO v2 (passages), v2.1 and v2.
BODY_FIELDS = ("contents", "text", "passage", "segment", "body")


def run_of_hits(hits: Mapping[str, Sequence[Any]]) -> dict[str, tuple[RunEntry, ...]]:
    """Turns what `batch_search` returns into a run, to be written with `r1ranker_ir.data.trec_runs.write_run`."""
    return {query_id: entries_of_hits(found) for query_id, found in hits.items()}


def entries_of_hits(hits: Sequence[Any]) -> tuple[RunEntry, ...]:
    """Turns hits into entries of a run; a document that is found several times, by segments, has its best place."""
    scores: dict[str, float] = {}
    for hit in hits:
        scores.setdefault(str(hit.docid), float(hit.score))
    return tuple(RunEntry(doc_id, score) for doc_id, score in scores.items())


def text_of_stored(raw: str, docid: str) -> str:
    """Title and body of a document as a Lucene index has stored it: a JSON object, or the text itself."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):  # also of a text that only begins as JSON does
        return raw
    if not isinstance(record, dict):
        return raw
    body = next((record[field] for field in BODY_FIELDS if isinstance(record.get(field), str)), None)
    if body is None:
        raise InputError(
            f"the index stores document {docid!r} with the fields {', '.join(record)}, none of which is its text "
            f"({', '.join(BODY_FIELDS)}): give the texts with texts="
        )
    title = record.get("title")
    return document_text(title if isinstance(title, str) else "", body)


def check_batch(queries: Sequence[str], qids: Sequence[str]) -> None:
    """Checks that there is one id per query, and none twice."""
    if len(queries) != len(qids):
        raise InputError(f"queries has length {len(queries)}, but qids has length {len(qids)}: give one id per query")
    if len(set(qids)) != len(qids):
        [repeated, *_] = [qid for position, qid in enumerate(qids) if qid in qids[:position]]
        raise InputError(f"query id {repeated!r} occurs twice in qids: ids must be unique")
