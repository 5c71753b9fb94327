"""What a ranker of requests is compared with: BM25, the orders that the requests bring along, and a random order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.chance import expected_measure
from r1ranker_ir.retrieval.bm25 import BM25Index

if TYPE_CHECKING:
    from ir_measures import Measure, Qrel

BM25 = "BM25"
FILE_ORDER = "order of the file"
_NOT_IN_FILES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Baseline:
    """An order of all requests' candidates that is there without any model."""

    name: str  # in tables
    file: str  # of its run, without folder and ending
    run: Run | None
    lacking: str = ""  # why there is no run


def baselines_of(requests: Sequence[JudgedRequest]) -> list[Baseline]:
    """Orders the candidates by BM25 over all distinct texts, by each score that all requests have, and as given."""
    made = [_bm25(requests)]
    for name in dict.fromkeys(name for judged in requests for name in judged.scores):
        shown = f"{name} (given)" if name.casefold() in (BM25.casefold(), FILE_ORDER) else name
        lacking = sum(name not in judged.scores for judged in requests if judged.request.candidates)
        if lacking:
            made.append(Baseline(shown, "", None, f"{lacking} of {len(requests)} requests have no such score"))
        else:
            made.append(Baseline(shown, "", _run(requests, partial(_scores, name))))
    made.append(Baseline(FILE_ORDER, "", _run(requests, lambda judged: [0.0] * len(judged.gains))))
    return _with_files(made)


def expected_by_chance(qrels: Sequence[Qrel], measures: Sequence[Measure]) -> dict[str, dict[Measure, float | None]]:
    """Computes what random orders of each request's candidates reach on average."""
    grades: dict[str, list[int]] = {}
    for qrel in qrels:
        grades.setdefault(qrel.query_id, []).append(qrel.relevance)
    return {
        query_id: {measure: expected_measure(measure, own) for measure in measures} for query_id, own in grades.items()
    }


def value_names(requests: Sequence[JudgedRequest]) -> tuple[str, ...]:
    """Names the quantities that every request with candidates tells for each of them."""
    with_candidates = [judged for judged in requests if judged.request.candidates]
    named = dict.fromkeys(name for judged in with_candidates for name in judged.values)
    return tuple(name for name in named if all(name in judged.values for judged in with_candidates))


def first_choices(requests: Sequence[JudgedRequest], run: Run) -> dict[str, float]:
    """Averages what a run's first candidates bring."""

    def first(judged: JudgedRequest, column: Sequence[float]) -> float:
        ids = [candidate.id for candidate in judged.request.candidates]
        return column[ids.index(run[judged.request.query_id][0].doc_id)]

    return _means(requests, first)


def random_choices(requests: Sequence[JudgedRequest]) -> dict[str, float]:
    """Averages what a random candidate of each request brings."""
    return _means(requests, lambda judged, column: sum(column) / len(column))


def _means(
    requests: Sequence[JudgedRequest], chosen: Callable[[JudgedRequest, Sequence[float]], float]
) -> dict[str, float]:
    with_candidates = [judged for judged in requests if judged.request.candidates]
    return {
        name: sum(chosen(judged, judged.values[name]) for judged in with_candidates) / len(with_candidates)
        for name in value_names(requests)
    }


def _scores(name: str, judged: JudgedRequest) -> Sequence[float]:
    return judged.scores.get(name, ())


class _Texts:
    """The distinct texts of all candidates; each is its own id."""

    def __init__(self, requests: Sequence[JudgedRequest]) -> None:
        self.name = "of the candidates' texts"
        self._texts = dict.fromkeys(each.text for judged in requests for each in judged.request.candidates)

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        return ((text, text) for text in self._texts)


def _bm25(requests: Sequence[JudgedRequest]) -> Baseline:
    try:
        index = BM25Index(_Texts(requests))
    except InputError as error:
        return Baseline(BM25, "", None, str(error))

    def scores(judged: JudgedRequest) -> list[float]:
        return index.score(judged.request.query, [candidate.text for candidate in judged.request.candidates])

    return Baseline(BM25, "", _run(requests, scores))


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


def _with_files(made: Sequence[Baseline]) -> list[Baseline]:
    """Gives each its file's name; no two differ by upper and lower case alone."""
    named: dict[str, Baseline] = {}
    for each in made:
        stem = _NOT_IN_FILES.sub("-", each.name).strip("-.").lower() or "scores"
        numbered = (f"{stem}-{number}" if number > 1 else stem for number in itertools.count(1))
        file = next(name for name in numbered if name not in named)
        named[file] = replace(each, file=file)
    return list(named.values())
