"""The project's exceptions: every error that a user can cause is an `R1RankerError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from r1ranker_ir.quoting import shorten_message

if TYPE_CHECKING:
    from r1ranker_ir.types import Ranking


class R1RankerError(Exception):
    """Base of every error raised on purpose; its message says what was wrong and what to do.

    A message quotes what users gave, which may be megabytes: of such a message the middle is left out.

    Attributes:
        rankings: of an error that ended the ranking of several requests, the finished rankings in the requests' order,
            `None` for each request that has none; else empty.
        results: the same in the form of the `rerankers` classes, where they raised it.
    """

    rankings: Sequence[Ranking | None] = ()
    results: Sequence[Any] = ()

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(shorten_message(each) if isinstance(each, str) else each for each in arguments))


class InputError(R1RankerError, ValueError):
    """An argument, a document, a query or a file does not have the form that is needed."""


class DataFileError(InputError):
    """A file of a corpus, a run or judgments is malformed; the message names file and line."""


class CheckpointError(R1RankerError):
    """A model checkpoint can't be loaded or does not fit what was asked of it."""


class MissingExtraError(R1RankerError, ImportError):
    """A feature needs an optional dependency; the message holds the `pip install` line."""


class ContextLengthError(InputError):
    """A prompt does not fit the model's context, however short its passages are cut."""


class BackendError(R1RankerError):
    """An inference backend failed: unreachable, refused, or out of retries."""


class CallError(BackendError):
    """One call to a model failed, or was refused; calls that ask something else are not concerned.

    Attributes:
        refused: the server understood the call and refused it, rather than failed at it.
    """

    refused: bool = False


class FailedRankingsError(BackendError):
    """Some of several requests could not be ranked; all others were, and are in `rankings`.

    Attributes:
        failed: position of the request to its own error.
    """

    failed: Mapping[int, R1RankerError] = MappingProxyType({})


class CancelledRankingError(R1RankerError):
    """Whoever asked for a ranking no longer waits for it, so it makes no further calls."""


class StorageError(R1RankerError):
    """A disk or a file of this machine fails: no room, no permission to write, a damaged cache."""


class RepairRateError(R1RankerError):
    """Too many answers had to be repaired for the ranking to mean anything."""


class PairScoreError(R1RankerError, NotImplementedError):
    """A list ranker was asked for the score of one query and document pair."""


def missing_extra(feature: str, extra: str, cause: ImportError) -> MissingExtraError:
    """The error for a `feature`, as the subject of a sentence, whose `extra` is not installed.

    The import error's text is kept, so that a broken install is not taken for a missing one.
    """
    return MissingExtraError(
        f'{feature} needs an optional dependency ({cause}). Install it with: pip install "r1ranker-ir[{extra}]"'
    )
