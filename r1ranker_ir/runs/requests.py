"""From a first-stage run to ranking requests, and from rankings back to a run."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from r1ranker_ir.data.corpora import Corpus
from r1ranker_ir.data.long_runs import RunFile
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.engine.outcomes import Outcome
from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import SHOWN_IDS, shown_ids
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, place_score

logger = logging.getLogger(__name__)

CHUNK_QUERIES = 256
"""How many queries' documents are looked up together."""


class Requests(Protocol):
    """Requests that have positions, the same ones in every process."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[RankingRequest]: ...

    def between(self, start: int, stop: int) -> Iterator[tuple[int, RankingRequest]]:
        """Position and request, from one position to the one before another."""
        ...


class RequestSource(Protocol):
    """Which requests to rank, named so that another process can find them too."""

    def requests(self) -> Requests:
        """Opens the files and gives the requests."""
        ...


@dataclass(frozen=True, eq=False)
class RunRequests:
    """The requests of a run, made chunk by chunk when they are asked for, so that few texts are in memory at once.

    A request's position is its query's place among the corpus's queries that the run has results for: it is the same
    in every process that opens the same files with the same arguments. See `requests_of_run`, which makes these.
    """

    corpus: Corpus
    run: Run
    query_ids: Sequence[str]  # to rank, in order
    queries: Sequence[str]  # their texts
    depth: int  # documents per query
    missing: Literal["skip", "error"]  # about documents that the corpus lacks
    shuffle: int | None  # a seed to shuffle each query's documents with

    def __len__(self) -> int:
        """How many queries there are, with those that will be left out because no document of theirs is there."""
        return len(self.query_ids)

    def __iter__(self) -> Iterator[RankingRequest]:
        """Yields the requests, as often as it is asked to."""
        return self.read(report=True)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, RankingRequest]]:
        """Yields the requests at some positions."""
        return self._between(start, stop, report=True)

    def read(self, *, report: bool) -> Iterator[RankingRequest]:
        """Yields the requests, and logs what is skipped if that is wanted."""
        found = False
        for _, request in self._between(0, len(self), report=report):
            found = True
            yield request
        if not found:
            raise InputError(f"corpus {self.corpus.name!r} holds none of the run's documents: is it a run of it?")

    def _between(self, start: int, stop: int, *, report: bool) -> Iterator[tuple[int, RankingRequest]]:
        for first in range(start, min(stop, len(self)), CHUNK_QUERIES):
            yield from self._chunk(first, min(first + CHUNK_QUERIES, stop, len(self)), report=report)

    def _chunk(self, start: int, stop: int, *, report: bool) -> Iterator[tuple[int, RankingRequest]]:
        query_ids = self.query_ids[start:stop]
        top = [self.run[query_id][: self.depth] for query_id in query_ids]
        wanted = list(dict.fromkeys(entry.doc_id for entries in top for entry in entries))
        texts = self.corpus.documents(wanted)
        missing = [doc_id for doc_id in wanted if doc_id not in texts]
        if missing and (report or self.missing == "error"):
            part = "the run" if len(self) <= CHUNK_QUERIES else f"the run's queries {start + 1} to {stop}"
            said = f"{len(missing)} documents of {part} are not in corpus {self.corpus.name!r}"
            if len(missing) > SHOWN_IDS:
                logger.info("%s: %s", said, ", ".join(missing))
            if self.missing == "error":
                raise InputError(
                    f"{said}: {shown_ids(missing)}. Check that the run belongs to it, or leave them out with "
                    f"--missing skip (missing='skip')"
                )
            logger.warning("%s and are skipped: %s", said, shown_ids(missing))
        for position, query_id, entries in zip(range(start, stop), query_ids, top, strict=True):
            kept = (entry for entry in entries if entry.doc_id in texts)
            candidates = [Candidate(entry.doc_id, texts[entry.doc_id], entry.score) for entry in kept]
            if not candidates:
                if report:
                    logger.warning("query %s is left out: the corpus holds none of its documents", query_id)
                continue
            if self.shuffle is not None:
                seeded_by(f"{self.shuffle}:{query_id}").shuffle(candidates)
            yield position, RankingRequest(self.queries[position], tuple(candidates), query_id=query_id)


def requests_of_run(
    corpus: Corpus,
    run: Run,
    depth: int,
    *,
    queries: int | None = None,
    missing: Literal["skip", "error"] = "error",
    shuffle: int | None = None,
) -> RunRequests:
    """Makes a request for each query that a first stage has results for.

    Queries of the run that the corpus lacks and queries of the corpus without results are logged by id now. Documents
    are looked up 256 queries at a time, while the requests are taken; those that the corpus lacks are found then
    (only the first queries are looked at now), and with `missing="skip"` logged by id.
    """
    for name, value in (("depth", depth), ("queries", queries)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: ask for at least 1")
    topics = corpus.queries()
    found, without = list[str](), list[str]()
    for query_id in topics:
        # A query that a file names has at least one line there; to look at the entries would mean to read them all.
        has_results = query_id in run if isinstance(run, RunFile) else bool(run.get(query_id))
        (found if has_results else without).append(query_id)
    if not found:
        raise InputError(f"none of the run's {len(run)} queries is in corpus {corpus.name!r}: is it a run of it?")
    for ids, what in (
        ([query_id for query_id in run if query_id not in topics], "of the run are not in corpus %s and are left out"),
        (without, "of corpus %s have no results in the run"),
    ):
        if ids:
            logger.warning(f"%d queries {what}: %s", len(ids), corpus.name, shown_ids(ids))
    query_ids = found[:queries]
    texts = [topics[query_id] for query_id in query_ids]
    requests = RunRequests(corpus, run, query_ids, texts, depth, missing, shuffle)
    next(requests.read(report=False), None)
    return requests


_Outcome = TypeVar("_Outcome", Ranking, Outcome)


def in_order(finished: Iterable[tuple[int, _Outcome]]) -> Generator[_Outcome]:
    """Puts rankings that finish in any order into the order of their requests; a failure loses no finished one."""
    waiting: dict[int, _Outcome] = {}
    turn = 0
    try:
        for position, ranking in finished:
            waiting[position] = ranking
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1
    except GeneratorExit:
        raise
    except BaseException:
        yield from (waiting[position] for position in sorted(waiting))
        raise
    yield from (waiting[position] for position in sorted(waiting))


def entries_of(ranking: Ranking) -> tuple[RunEntry, ...]:
    """Turns a ranking into entries of a run."""
    candidates = ranking.request.candidates
    return tuple(
        RunEntry(candidates[position].id, place_score(place, len(candidates)))
        for place, position in enumerate(ranking.order)
    )
