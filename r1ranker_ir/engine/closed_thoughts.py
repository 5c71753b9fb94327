"""Thoughts that a model did not close: how they are counted by where they ended, and in which words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from r1ranker_ir.types import CLOSED_AT, Answer, ClosedAt, Step

_WHERE: dict[ClosedAt | None, str] = {
    "limit": "at the limit",
    "end_of_turn": "ended by the model's end of turn",
    "answer": "ended by an answer",
    None: "for a reason that was not recorded",
}
_OF_ONE: dict[ClosedAt | None, str] = {
    "limit": "the thought was closed at its limit",
    "end_of_turn": "the model ended its turn within its thought",
    "answer": "the model began its answer without closing its thought",
    None: "the model did not close its thought (why was not recorded)",
}


def of_one(closed_at: ClosedAt | None) -> str:
    """Says where a thought ended that the model did not close."""
    return _OF_ONE[closed_at]


def count_closed(calls: Iterable[Answer | Step]) -> dict[ClosedAt, int]:
    """Counts thoughts that the models did not close by where they ended, where that is known."""
    found = Counter(call.closed_at for call in calls if call.thought_closed)
    return {where: found[where] for where in CLOSED_AT}


def of_many(total: int, known: Mapping[ClosedAt, int]) -> str:
    """Says how many thoughts the model did not close, and where they ended; empty if there are none."""
    if not total:
        return ""
    counts: list[tuple[ClosedAt | None, int]] = [*known.items(), (None, total - sum(known.values()))]
    ends = ", ".join(f"{count} {_WHERE[where]}" for where, count in counts if count)
    return f"{total} {'thought' if total == 1 else 'thoughts'} not closed by the model ({ends})"
