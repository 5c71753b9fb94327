"""From a first-stage run to ranking requests, and from rankings back to a run and a trace."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.runs import Run, RunEntry
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.corpora import Corpus

logger = logging.getLogger(__name__)

SHOWN_IDS = 20


def requests_of_run(
    corpus: Corpus,
    run: Run,
    depth: int,
    *,
    queries: int | None = None,
    missing: Literal["skip", "error"] = "error",
    shuffle: int | None = None,
) -> list[RankingRequest]:
    """Builds a request for each query that a first stage has results for.

    Queries of the run that the corpus lacks, queries of the corpus without results, and (with `missing="skip"`)
    documents that the corpus lacks are logged by id.

    Args:
        corpus: gives the texts.
        run: the first stage's results.
        depth: how many documents a query keeps, from the top; the rest of its results is left out.
        queries: only the first so many queries, in the corpus's order; all if `None`.
        missing: what to do about documents that the corpus lacks: `error`, or `skip` to leave them out.
        shuffle: a seed to shuffle each query's documents with, after the cut at `depth`; the same seed gives a
            query the same order whatever other queries there are. `None` keeps the first stage's order.

    Returns:
        The requests, in the order of the corpus's queries.

    Raises:
        InputError: if a count is below 1, nothing is left to rank, or documents are missing under `error`.
    """
    for name, value in (("depth", depth), ("queries", queries)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: ask for at least 1")
    topics = corpus.queries()
    found = [query_id for query_id in topics if run.get(query_id)]
    if not found:
        raise InputError(f"none of the run's {len(run)} queries is in corpus {corpus.name!r}: is it a run of it?")
    _report_queries(corpus, run, topics)
    top = {query_id: [entry.doc_id for entry in run[query_id][:depth]] for query_id in islice(found, queries)}
    wanted = list(dict.fromkeys(doc_id for doc_ids in top.values() for doc_id in doc_ids))
    texts = corpus.documents(wanted)
    _handle_missing(corpus, [doc_id for doc_id in wanted if doc_id not in texts], missing)
    requests = []
    for query_id, doc_ids in top.items():
        candidates = [Candidate(doc_id, texts[doc_id]) for doc_id in doc_ids if doc_id in texts]
        if not candidates:
            logger.warning("query %s is left out: the corpus holds none of its documents", query_id)
            continue
        if shuffle is not None:
            random.Random(f"{shuffle}:{query_id}").shuffle(candidates)
        requests.append(RankingRequest(topics[query_id], tuple(candidates), query_id=query_id))
    if not requests:
        raise InputError(f"corpus {corpus.name!r} holds none of the run's documents: is it a run of it?")
    return requests


def in_order(finished: Iterable[tuple[int, Ranking]]) -> Iterator[Ranking]:
    """Puts rankings that finish in any order into the order of their requests, so that a run's lines do not depend
    on the batch size.

    Args:
        finished: pairs of the request's position (from 0) and its ranking.

    Yields:
        Each ranking as soon as all before it are there. If the source fails, the ones that waited come before the
        error, so that nothing finished is lost.
    """
    waiting: dict[int, Ranking] = {}
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


def trace_of(ranking: Ranking, strategy: str) -> list[dict[str, Any]]:
    """Turns a ranking's steps into plain data for JSON Lines, with document ids in place of positions.

    Args:
        ranking: the outcome for one query.
        strategy: what made it, `iterative` or `direct`.

    Returns:
        One object a model call: `query_id`, `query`, `task`, `strategy`, `step` (from 1), `shown` (document ids in the
        prompt's order), `texts` (id to whole text, of the documents that no step before has shown), `outcome`
        (document ids), `thought`, `text`, `probabilities` (a list beside `shown`, or null), `repaired`,
        `thought_closed`, `cut_passages` and `usage`.
    """
    request = ranking.request
    told: dict[str, str] = {}

    def ids(places: Sequence[int]) -> list[str]:
        return [request.candidates[place].id for place in places]

    def new_texts(places: Sequence[int]) -> dict[str, str]:
        shown = [request.candidates[place] for place in places]
        new = {candidate.id: candidate.text for candidate in shown if told.get(candidate.id) != candidate.text}
        told.update(new)
        return new

    return [
        {
            "query_id": request.query_id,
            "query": request.query,
            "task": request.task,
            "strategy": strategy,
            "step": number,
            "shown": ids(step.shown),
            "texts": new_texts(step.shown),
            "outcome": ids(step.outcome),
            "thought": step.thought,
            "text": step.text,
            "probabilities": None
            if step.probabilities is None
            else [step.probabilities.get(place) for place in step.shown],
            "repaired": step.repaired,
            "thought_closed": step.thought_closed,
            "cut_passages": step.cut_passages,
            "usage": asdict(step.usage),
        }
        for number, step in enumerate(ranking.steps, start=1)
    ]


def _report_queries(corpus: Corpus, run: Run, topics: Mapping[str, str]) -> None:
    unknown = [query_id for query_id in run if query_id not in topics]
    without = [query_id for query_id in topics if not run.get(query_id)]
    if unknown:
        logger.warning(
            "%d queries of the run are not in corpus %s and are left out: %s", len(unknown), corpus.name, _ids(unknown)
        )
    if without:
        logger.warning(
            "%d queries of corpus %s have no results in the run: %s", len(without), corpus.name, _ids(without)
        )


def _handle_missing(corpus: Corpus, ids: Sequence[str], missing: Literal["skip", "error"]) -> None:
    if not ids:
        return
    if len(ids) > SHOWN_IDS:
        logger.info("documents that are not in corpus %s: %s", corpus.name, ", ".join(ids))
    if missing == "error":
        raise InputError(
            f"{len(ids)} documents of the run are not in corpus {corpus.name!r}: {_ids(ids)}. Check that the run "
            f"belongs to it, or leave them out with --missing skip (missing='skip')"
        )
    logger.warning("%d documents of the run are not in corpus %s and are skipped: %s", len(ids), corpus.name, _ids(ids))


def _ids(ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return ", ".join(ids[:SHOWN_IDS]) + rest
