"""What the engine and the prompts ask of a backend."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

from r1ranker_ir.prompts.prompt import TextLimits
from r1ranker_ir.types import Answer, Call


@runtime_checkable
class Backend(TextLimits, Protocol):
    """A language model behind a uniform face.

    Attributes:
        name: the checkpoint or served model, for logs and manifests.
        batch_size: how many calls it likes to get at once.
        context_length: tokens that prompt and answer may take together; `None` where unknown.
        answer_reserve: tokens of the context that are kept free for thought and answer.
        control_tokens: strings that this model's tokenizer would read as structure.
    """

    name: str
    batch_size: int

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that decides an answer besides the call, as JSON data: the same for the same answers, on any machine.

        The checkpoint by its revision or content, the server, numerics, limits, sampling; nothing secret. Where the
        same call may be answered otherwise another time, the key `not_cacheable` says why, in a sentence's words.
        """
        ...

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers the calls, one answer each, in the same order; see `TakesCalls` for one by one."""
        ...


Turn = tuple[int, int]
"""Whose turn it is: how far a ranking has come, and its number."""


@runtime_checkable
class TakesCalls(Protocol):
    """A backend that takes calls at any time and from any thread, so that none has to wait for the slowest of a batch.

    `batch_size` is then how many rankings it likes to have under way.
    """

    def submit(self, call: Call, turn: Turn, stop: threading.Event) -> Future[Answer]:
        """Begins to answer a call; of those that have to wait, the one with the smallest `turn` is next.

        Once `stop` is set, what has not begun is cancelled, what has begun is finished, and nothing is tried again.
        The future fails with a `CallError` if this call alone can't be answered, and with a `BackendError` for what no
        further call would be spared. Cancelling it drops the call.
        """
        ...


@runtime_checkable
class KeepsStates(Protocol):
    """A backend that keeps something in memory between the calls of a ranking, told apart by `Call.ranking`."""

    @property
    def cache_memory_peak(self) -> int: ...

    def forget(self, ranking: int) -> None:
        """Lets go of what is kept for a ranking: it makes no more calls."""
        ...
