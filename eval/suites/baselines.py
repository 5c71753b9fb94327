"""What a ranker of requests is compared with: BM25, the orders that the requests bring along, and a random order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.chance import expected_measure
from r1ranker_ir.retrieval.bm25 import BM25Index

if TYPE_CHECKING:
    from ir_measures import Measure, Qrel

BM25 = "BM25"
FILE_ORDER = "order of the file"
FOLDER = "baselines"
"""Of the baselines' runs, in the folder of a data set."""
_NOT_IN_FILES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Baseline:
    """An order of all requests' candidates that is there without any model."""

    name: str  # in tables
    file: str  # of its run, in the folder of a data set
    run: Run | None
    lacking: str = ""  # why there is no run


def baselines_of(requests: Sequence[JudgedRequest]) -> list[Baseline]:
    """Orders the candidates by BM25 over all distinct texts, by each score that all requests have, and as given."""
    made: dict[str, Run | str] = {BM25: _bm25(requests)}
    for name in dict.fromkeys(name for judged in requests for name in judged.scores):
        shown = f"{name} (given)" if name.casefold() in (BM25.casefold(), FILE_ORDER) else name
        lacking = sum(name not in judged.scores for judged in requests if judged.request.candidates)
        made[shown] = f"{lacking} of {len(requests)} requests have no such score"
        if not lacking:
            made[shown] = _run(requests, partial(_scores, name))
    made[FILE_ORDER] = _run(requests, lambda judged: [0.0] * len(judged.gains))
    found: dict[str, Baseline] = {}
    for name, run in made.items():
        # No two files differ by upper and lower case alone.
        stem = _NOT_IN_FILES.sub("-", name).strip("-.").lower() or "scores"
        numbered = (f"{FOLDER}/{stem}{f'-{number}' if number > 1 else ''}.trec" for number in itertools.count(1))
        file = next(each for each in numbered if each not in found)
        found[file] = Baseline(name, file, None, run) if isinstance(run, str) else Baseline(name, file, run)
    return list(found.values())


def expected_by_chance(qrels: Sequence[Qrel], measures: Sequence[Measure]) -> dict[str, Any]:
    """What random orders of each request's candidates reach on average, as JSON data: means, and of each query."""
    grades: dict[str, list[int]] = {}
    for qrel in qrels:
        grades.setdefault(qrel.query_id, []).append(qrel.relevance)
    per_query = {
        query_id: {str(measure): expected_measure(measure, own) for measure in measures}
        for query_id, own in grades.items()
    }
    columns = {str(measure): [values[str(measure)] for values in per_query.values()] for measure in measures}
    known = {name: [value for value in column if value is not None] for name, column in columns.items()}
    means = {name: sum(column) / len(column) for name, column in known.items() if column}
    return {"mean": means, "per_query": per_query}


def first_choices(requests: Sequence[JudgedRequest], run: Run | None = None) -> dict[str, float]:
    """Averages what a run's first candidates bring, or random ones, by each quantity that all requests tell."""
    with_candidates = [judged for judged in requests if judged.request.candidates]
    found = {}
    for name in dict.fromkeys(name for judged in with_candidates for name in judged.values):
        if all(name in judged.values for judged in with_candidates):
            brought = [value_of_first(judged, judged.values[name], run) for judged in with_candidates]
            found[name] = sum(brought) / len(brought)
    return found


def value_of_first(judged: JudgedRequest, column: Sequence[float], run: Run | None) -> float:
    """What a run's first candidate of a request brings, or a random one."""
    if run is None:
        return sum(column) / len(column)
    ids = [candidate.id for candidate in judged.request.candidates]
    return column[ids.index(run[judged.request.query_id][0].doc_id)]


def _scores(name: str, judged: JudgedRequest) -> Sequence[float]:
    return judged.scores.get(name, ())


class _Texts:
    """The distinct texts of all candidates; each is its own id."""

    name = "of the candidates' texts"

    def __init__(self, requests: Sequence[JudgedRequest]) -> None:
        self._texts = dict.fromkeys(each.text for judged in requests for each in judged.request.candidates)

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        return ((text, text) for text in self._texts)


def _bm25(requests: Sequence[JudgedRequest]) -> Run | str:
    """Its run, or why there is none."""
    try:
        index = BM25Index(_Texts(requests))
    except InputError as error:
        return str(error)

    def scores(judged: JudgedRequest) -> list[float]:
        return index.score(judged.request.query, [candidate.text for candidate in judged.request.candidates])

    return _run(requests, scores)


def _run(requests: Sequence[JudgedRequest], scores_of: Callable[[JudgedRequest], Sequence[float]]) -> Run:
    """Orders by falling score, equal ones as given; the run's own scores say the rank again, without ties."""
    run = {}
    for judged in requests:
        ids = [candidate.id for candidate in judged.request.candidates]
        scores = scores_of(judged)
        ordered = sorted(range(len(ids)), key=scores.__getitem__, reverse=True)
        run[judged.request.query_id] = tuple(
            RunEntry(ids[place], 1 - rank / len(ids)) for rank, place in enumerate(ordered)
        )
    return run
