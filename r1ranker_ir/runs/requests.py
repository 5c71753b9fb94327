"""From a first-stage run to ranking requests, and from rankings back to a run."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from r1ranker_ir.data.long_runs import RunFile
from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.engine.outcomes import Outcome
from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import SHOWN_IDS, shown_ids
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus

logger = logging.getLogger(__name__)

CHUNK_QUERIES = 256
"""How many queries' documents are looked up together."""


@dataclass(frozen=True, eq=False)
class RunRequests:
    """The requests of a run, made chunk by chunk when they are asked for, so that few texts are in memory at once.

    A request's position is its query's place among the corpus's queries that the run has results for: it is the same
    in every process that opens the same files with the same arguments. See `requests_of_run`, which makes these.

    Args:
        corpus: gives the texts.
        run: the first stage's results.
        query_ids: the queries to rank, in order.
        queries: their texts.
        depth: how many documents a query keeps.
        missing: what to do about documents that the corpus lacks.
        shuffle: a seed to shuffle each query's documents with.
    """

    corpus: Corpus
    run: Run
    query_ids: Sequence[str]
    queries: Sequence[str]
    depth: int
    missing: Literal["skip", "error"]
    shuffle: int | None

    def __len__(self) -> int:
        """How many queries there are, with those that will be left out because no document of theirs is there."""
        return len(self.query_ids)

    def __iter__(self) -> Iterator[RankingRequest]:
        """Yields the requests, as often as it is asked to.

        Raises:
            InputError: if documents are missing under `error`, when their chunk's turn has come, or if no request is
                left of all.
        """
        return self._requests(report=True)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, RankingRequest]]:
        """Yields the requests at some positions.

        Args:
            start: the first position.
            stop: the one behind the last; what lies beyond the end is left out.

        Yields:
            Position and request; a query that is left out has none.

        Raises:
            InputError: if documents are missing under `error`, when their chunk's turn has come.
        """
        for first in range(start, min(stop, len(self)), CHUNK_QUERIES):
            yield from self._chunk(first, min(first + CHUNK_QUERIES, stop, len(self)), report=True)

    def check_first(self) -> None:
        """Looks for the documents of the first request, without a word in the log.

        Raises:
            InputError: as iterating would, as far as the first chunk that holds a request.
        """
        next(self._requests(report=False), None)

    def _requests(self, *, report: bool) -> Iterator[RankingRequest]:
        found = False
        for first in range(0, len(self), CHUNK_QUERIES):
            for _, request in self._chunk(first, min(first + CHUNK_QUERIES, len(self)), report=report):
                found = True
                yield request
        if not found:
            raise InputError(f"corpus {self.corpus.name!r} holds none of the run's documents: is it a run of it?")

    def _chunk(self, start: int, stop: int, *, report: bool) -> Iterator[tuple[int, RankingRequest]]:
        query_ids = self.query_ids[start:stop]
        top = [self.run[query_id][: self.depth] for query_id in query_ids]
        wanted = list(dict.fromkeys(entry.doc_id for entries in top for entry in entries))
        texts = self.corpus.documents(wanted)
        missing = [doc_id for doc_id in wanted if doc_id not in texts]
        if missing and (report or self.missing == "error"):
            part = "the run" if len(self) <= CHUNK_QUERIES else f"the run's queries {start + 1} to {stop}"
            _handle_missing(self.corpus, part, missing, self.missing)
        for position, query_id, entries in zip(range(start, stop), query_ids, top, strict=True):
            candidates = [
                Candidate(entry.doc_id, texts[entry.doc_id], entry.score) for entry in entries if entry.doc_id in texts
            ]
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

    Args:
        corpus: gives the texts.
        run: the first stage's results, from `open_run` where it is too long for memory.
        depth: how many documents a query keeps, from the top; the rest of its results is left out.
        queries: only the first so many queries, in the corpus's order; all if `None`.
        missing: what to do about documents that the corpus lacks: `error`, or `skip` to leave them out.
        shuffle: a seed to shuffle each query's documents with, after the cut at `depth`; the same seed gives a
            query the same order whatever other queries there are. `None` keeps the first stage's order.

    Returns:
        The requests, in the order of the corpus's queries; `list` makes a list of them.

    Raises:
        InputError: if a count is below 1, nothing is left to rank, or documents are missing under `error` among those
            of the first queries.
    """
    for name, value in (("depth", depth), ("queries", queries)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: ask for at least 1")
    topics = corpus.queries()
    found, without = list[str](), list[str]()
    for query_id in topics:
        (found if _has_results(run, query_id) else without).append(query_id)
    if not found:
        raise InputError(f"none of the run's {len(run)} queries is in corpus {corpus.name!r}: is it a run of it?")
    _report_queries(corpus, run, topics, without)
    query_ids = found[:queries]
    texts = [topics[query_id] for query_id in query_ids]
    requests = RunRequests(corpus, run, query_ids, texts, depth, missing, shuffle)
    requests.check_first()
    return requests


_Outcome = TypeVar("_Outcome", Ranking, Outcome)


def in_order(finished: Iterable[tuple[int, _Outcome]]) -> Generator[_Outcome]:
    """Puts rankings that finish in any order into the order of their requests, so that a run's lines do not depend
    on the batch size.

    Args:
        finished: pairs of the request's position (from 0) and its ranking, or why it has none.

    Yields:
        Each ranking as soon as all before it are there; those that wait are held, about a batch where rankings take
        equally many calls. If the source fails, the ones that waited come before the error, so that nothing finished
        is lost.
    """
    waiting: dict[int, _Outcome] = {}
    turn = 0
    source = iter(finished)
    failure: BaseException | None = None
    while True:
        try:
            position, ranking = next(source)
        except StopIteration:
            break
        except BaseException as error:
            failure = error
            break
        waiting[position] = ranking
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
    for position in sorted(waiting):
        yield waiting[position]
    if failure is not None:
        raise failure


def entries_of(ranking: Ranking) -> tuple[RunEntry, ...]:
    """Turns a ranking into entries of a run.

    Args:
        ranking: the outcome for one query.

    Returns:
        Best first, with scores 1 − (rank − 1) / n, which only say the rank again.
    """
    candidates = ranking.request.candidates
    return tuple(
        RunEntry(candidates[place].id, 1 - position / len(candidates)) for position, place in enumerate(ranking.order)
    )


def _has_results(run: Run, query_id: str) -> bool:
    # A query that a file names has at least one line there; to look at the entries would mean to read them all.
    return query_id in run if isinstance(run, RunFile) else bool(run.get(query_id))


def _report_queries(corpus: Corpus, run: Run, topics: Mapping[str, str], without: Sequence[str]) -> None:
    unknown = [query_id for query_id in run if query_id not in topics]
    if unknown:
        logger.warning(
            "%d queries of the run are not in corpus %s and are left out: %s",
            len(unknown),
            corpus.name,
            shown_ids(unknown),
        )
    if without:
        logger.warning(
            "%d queries of corpus %s have no results in the run: %s", len(without), corpus.name, shown_ids(without)
        )


def _handle_missing(corpus: Corpus, part: str, ids: Sequence[str], missing: Literal["skip", "error"]) -> None:
    if len(ids) > SHOWN_IDS:
        logger.info("documents that are not in corpus %s: %s", corpus.name, ", ".join(ids))
    if missing == "error":
        raise InputError(
            f"{len(ids)} documents of {part} are not in corpus {corpus.name!r}: {shown_ids(ids)}. Check that the run "
            f"belongs to it, or leave them out with --missing skip (missing='skip')"
        )
    logger.warning(
        "%d documents of %s are not in corpus %s and are skipped: %s", len(ids), part, corpus.name, shown_ids(ids)
    )
