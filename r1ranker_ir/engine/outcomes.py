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

    def described(self, position: int) -> str:
        """Names the request and the reason in one line."""
        named = f"query {self.query_id!r}" if self.query_id else f"request {position + 1}"
        return f"{named}: {self.error}"


Outcome = Ranking | FailedRanking


def failed_rankings(failed: Mapping[int, FailedRanking], finished: int) -> FailedRankingsError:
    """The error that ends a run in which some requests failed: it names the first 20, and the log all."""
    lines = [failed[position].described(position) for position in sorted(failed)]
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
    for position in sorted(failed):
        logger.error("failed: %s", failed[position].described(position))


def ranked_in_order(outcomes: Iterable[tuple[int, Outcome]], count: int | None = None) -> list[Ranking]:
    """Gathers outcomes that arrive in any order; `count` says how many there will be, if that is known.

    Where some have failed, and where the outcomes end with an error, that error's `rankings` are those finished. A
    failure that is alone raises its own error.
    """
    rankings: dict[int, Ranking] = {}
    failed: dict[int, FailedRanking] = {}
    try:
        for index, outcome in outcomes:
            if isinstance(outcome, FailedRanking):
                failed[index] = outcome
            else:
                rankings[index] = outcome
    except R1RankerError as error:
        log_failed(failed)
        error.rankings = _by_index(rankings, failed, count)
        raise
    if not failed:
        return [rankings[index] for index in sorted(rankings)]
    if len(failed) == 1 and not rankings:
        [alone] = failed.values()
        raise alone.error
    raised = failed_rankings(failed, len(rankings))
    raised.rankings = _by_index(rankings, failed, count)
    raise raised


def _by_index(
    rankings: Mapping[int, Ranking], failed: Mapping[int, FailedRanking], count: int | None
) -> list[Ranking | None]:
    if not rankings:
        return []
    return [rankings.get(index) for index in range(max(*rankings, *failed, -1) + 1 if count is None else count)]


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
