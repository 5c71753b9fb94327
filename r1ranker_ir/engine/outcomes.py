"""What becomes of each of several requests: a ranking, or the reason why there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from r1ranker_ir.errors import FailedRankingsError, R1RankerError
from r1ranker_ir.types import Ranking

logger = logging.getLogger(__name__)

_SHOWN = 20


@dataclass(frozen=True)
class FailedRanking:
    """A request that could not be ranked, where others could.

    Args:
        error: why.
        query_id: of the request, as far as it is known and has one.
    """

    error: R1RankerError
    query_id: str = ""

    def described(self, position: int) -> str:
        """Names the request and the reason.

        Args:
            position: of the request.

        Returns:
            One line.
        """
        named = f"query {self.query_id!r}" if self.query_id else f"request {position + 1}"
        return f"{named}: {self.error}"


Outcome = Ranking | FailedRanking


def failed_rankings(failed: Mapping[int, FailedRanking], finished: int) -> FailedRankingsError:
    """Makes the error that ends a run in which some requests failed.

    Args:
        failed: by position; at least one.
        finished: how many were ranked.

    Returns:
        The error, which names the first 20 with their reasons; the log names all where there are more.
    """
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
    """Names the failed requests where a run ends with another error.

    Args:
        failed: by position; none is fine.
    """
    for position in sorted(failed):
        logger.error("failed: %s", failed[position].described(position))
