"""What a data set is run on: its judged queries, their judgments, and the first stage's results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.long_runs import open_run
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.retrieval.first_stages import FirstStage, retrieve
from r1ranker_ir.runs.requests import RunRequests, requests_of_run
from r1ranker_ir.runs.reranking import RunSource

if TYPE_CHECKING:
    from ir_measures import Qrel

    from .tables import DataSet

_CORPUS_FILES = ("corpus.jsonl", "queries.jsonl", "qrels/{split}.tsv", "qrels.trec")
_TEXTS_AT_ONCE = 50_000


@dataclass(frozen=True)
class JudgedQueries:
    """The queries that a data set is measured on."""

    topics: Mapping[str, str]  # query id to text, in the corpus's order
    qrels: tuple[Qrel, ...]
    excluded: Mapping[str, frozenset[str]]  # query id to documents that are no results for it
    judged: int  # how many are judged; topics may hold the first ones only
    requests: tuple[JudgedRequest, ...] = ()  # where these are given and no corpus is searched


def read_judged_queries(corpus: Corpus, dataset: DataSet, queries: int | None = None) -> JudgedQueries:
    """Reads what a data set is measured on."""
    grade = dataset.excluded_grade
    everything = corpus.qrels()
    counted = [qrel for qrel in everything if grade is None or qrel.relevance != grade]
    judged = dict.fromkeys(qrel.query_id for qrel in counted)
    texts = corpus.queries()
    topics = dict(islice(((query_id, text) for query_id, text in texts.items() if query_id in judged), queries))
    if not topics:
        raise InputError(f"no query of corpus {corpus.name!r} is judged: nothing can be measured on it")
    excluded: dict[str, set[str]] = {query_id: {query_id} for query_id in topics if dataset.query_is_no_result}
    for qrel in everything:
        if grade is not None and qrel.relevance == grade and qrel.query_id in topics:
            excluded.setdefault(qrel.query_id, set()).add(qrel.doc_id)
    qrels = counted if queries is None else [qrel for qrel in counted if qrel.query_id in topics]
    frozen = {query_id: frozenset(doc_ids) for query_id, doc_ids in excluded.items()}
    return JudgedQueries(topics, tuple(qrels), frozen, len(judged))


def search_first_stage(
    first_stage: FirstStage, corpus: Corpus, judged: JudgedQueries, depth: int, *, progress: bool = False
) -> dict[str, tuple[RunEntry, ...]]:
    """Gets the first stage's results without the documents that are no results."""
    spare = max(map(len, judged.excluded.values()), default=0)
    found = retrieve(first_stage, corpus, depth + spare, judged.topics, progress=progress)
    run = {}
    for query_id in judged.topics:
        excluded = judged.excluded.get(query_id, frozenset())
        kept = (entry for entry in found.get(query_id, ()) if entry.doc_id not in excluded)
        if entries := tuple(islice(kept, depth)):
            run[query_id] = entries
    if not run:
        raise InputError(
            f"first stage {first_stage.kind} has no result for any of the {len(judged.topics)} judged queries of "
            f"corpus {corpus.name!r}: does it belong to this corpus?"
        )
    return run


class QueriesOfRun:
    """A corpus with the queries of a run only, so that nobody misses the others."""

    def __init__(self, corpus: Corpus, run: Run) -> None:
        self.name = corpus.name
        self._corpus, self._run = corpus, run
        self.qrels, self.documents, self.iterate_documents = corpus.qrels, corpus.documents, corpus.iterate_documents

    @property
    def collection(self) -> str:
        """The whole corpus's."""
        return self._corpus.collection

    def queries(self) -> dict[str, str]:
        """The text of each query that the run has, by id."""
        return {query_id: text for query_id, text in self._corpus.queries().items() if query_id in self._run}


@dataclass(frozen=True)
class JudgedRunSource(RunSource):
    """A run of some of a corpus's queries, which says nothing of the others."""

    def requests(self) -> RunRequests:
        """Opens the files and gives the requests; see `requests_of_run`."""
        run = open_run(self.run)
        corpus = QueriesOfRun(open_corpus(self.corpus), run)
        return requests_of_run(corpus, run, self.depth, missing=self.missing, shuffle=self.shuffle)


def checksums(corpus: Corpus, split: str, judged: JudgedQueries, run: Run) -> dict[str, Any]:
    """Digests the data that a result depends on, as they were read."""
    doc_ids = sorted({entry.doc_id for found in run.values() for entry in found})
    portions = (doc_ids[start : start + _TEXTS_AT_ONCE] for start in range(0, len(doc_ids), _TEXTS_AT_ONCE))
    digests: dict[str, Any] = {
        "queries": _digest(sorted(judged.topics.items())),
        "judgments": _digest(sorted((qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in judged.qrels)),
        "documents_in_run": _digest(pair for portion in portions for pair in corpus.documents(portion).items()),
    }
    folder = Path(corpus.name)
    if folder.is_dir():
        files = (name.format(split=split) for name in _CORPUS_FILES)
        digests["files"] = {name: file_digest(folder / name) for name in files if (folder / name).is_file()}
    return digests


def _digest(rows: Iterable[tuple[Any, ...]]) -> str:
    """SHA-256 of rows as JSON, a line each."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
