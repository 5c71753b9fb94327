"""What becomes of each of several requests: a ranking, or why it failed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from r1ranker_ir.errors import FailedRankingsError, R1RankerError
from r1ranker_ir.types import Ranking

logger = logging.getLogger(__name__)

_SHOWN = 20


@dataclass(frozen=True)
class FailedRanking:
    """Why a request could not be ranked, where others could, and its query id if it is known."""

    error: R1RankerError
    query_id: str = ""


Outcome = Ranking | FailedRanking


def _described(failed: Mapping[int, FailedRanking]) -> list[str]:
    """Names each request and the reason in one line."""
    return [
        f"query {each.query_id!r}: {each.error}" if each.query_id else f"request {place + 1}: {each.error}"
        for place, each in sorted(failed.items())
    ]


def failed_rankings(failed: Mapping[int, FailedRanking], finished: int) -> FailedRankingsError:
    """The error that ends a run in which some requests failed: it names the first 20, and the log all."""
    lines = _described(failed)
    if len(lines) > _SHOWN:
        for line in lines:
            logger.info("failed: %s", line)
    shown = "\n".join(f"  {line}" for line in lines[:_SHOWN])
    more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    rest = ", and the others are finished" if finished else ""
    error = FailedRankingsError(f"{len(failed)} of {len(failed) + finished} rankings failed{rest}:\n{shown}{more}")
    error.failed = {position: each.error for position, each in failed.items()}
    return error


def log_failed(failed: Mapping[int, FailedRanking]) -> None:
    """Names the failed requests where a run ends with another error."""
    for line in _described(failed):
        logger.error("failed: %s", line)


def ranked_or_failed(outcomes: Iterable[tuple[int, Outcome]]) -> Iterator[tuple[int, Ranking]]:
    """Yields index and ranking as they arrive; raises a FailedRankingsError at the end if some have failed."""
    finished, failed = 0, dict[int, FailedRanking]()
    try:
        for index, outcome in outcomes:
            if isinstance(outcome, FailedRanking):
                failed[index] = outcome
            else:
                finished += 1
                yield index, outcome
    except R1RankerError:
        log_failed(failed)
        raise
    if failed:
        raise failed_rankings(failed, finished)


def ranked_in_order(outcomes: Iterable[tuple[int, Outcome]], count: int | None = None) -> list[Ranking]:
    """Gathers outcomes that arrive in any order; `count` says how many there will be, if that is known.

    Where some have failed, and where the outcomes end with an error, that error's `rankings` are those finished. A
    failure that is alone raises its own error.
    """
    rankings: dict[int, Ranking] = {}
    try:
        rankings.update(ranked_or_failed(outcomes))
    except R1RankerError as error:
        failed = error.failed if isinstance(error, FailedRankingsError) else {}
        if len(failed) == 1 and not rankings:
            raise next(iter(failed.values())) from None
        if rankings:
            length = max(*rankings, *failed, -1) + 1 if count is None else count
            error.rankings = [rankings.get(index) for index in range(length)]
        raise
    return [rankings[index] for index in sorted(rankings)]
