"""A ranking as it happens: server-sent events, one for each answer of the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.types import Answer, Call, Program, Ranking

Told = tuple[str, dict[str, Any]]
"""The name of an event, and its data."""


Step = tuple[Call, Answer, Call | Ranking]
"""A call, its answer, and what came of it: the next call, or the ranking."""


def watched(program: Program, tell: Callable[[Step], None]) -> Program:
    """The same program, which tells of each answer and what came of it."""
    asked: tuple[Call, Answer] | None = None
    try:
        call = next(program)
        while True:
            if asked is not None:
                tell((*asked, call))
                asked = None
            try:
                answer = yield call
            except Exception as error:
                call = program.throw(error)
            else:
                asked = call, answer
                call = program.send(answer)
    except StopIteration as stop:
        ranking: Ranking = stop.value
        if asked is not None:
            tell((*asked, ranking))
        return ranking
    finally:
        program.close()


def step_data(call: Call, answer: Answer, after: Call | Ranking) -> dict[str, Any]:
    """What an answer says, with positions in the request; `outcome` is empty where it can't be told yet."""
    question = call.question
    return {
        "asks": "" if question is None else question.decided.asks,
        "shown": [] if question is None else list(question.decided.answerable),
        "outcome": list(_outcome(call, answer, after)),
        "thought": answer.thought,
    }


def _outcome(call: Call, answer: Answer, after: Call | Ranking) -> Sequence[int]:
    if call.question is None or call.question.judged is not None:
        return ()
    shown = call.question.answerable
    if answer.choice is not None:
        places = dict(zip(call.identifiers, shown, strict=False))
        return [places[each] for each in answer.choice[: call.top or None] if each in places]
    if isinstance(after, Ranking):
        return after.steps[-1].outcome if after.steps else ()
    # A text that the strategy alone can read: whoever it no longer shows has left.
    left = () if after.question is None else after.question.decided.answerable
    return [place for place in shown if place not in left] if set(left) < set(shown) else ()


async def events(
    ranked: Callable[[Callable[[Program], Program]], Awaitable[dict[str, Any]]],
) -> AsyncIterator[bytes]:
    """Ranks with what watches the program, and yields a `step` for each answer, and a `result` or an `error`."""
    told = asyncio.Queue[Told]()

    async def work() -> None:
        try:
            result = await ranked(
                lambda program: watched(program, lambda step: told.put_nowait(("step", step_data(*step))))
            )
            told.put_nowait(("result", result))
        except R1RankerError as error:
            told.put_nowait(("error", {"message": str(error)}))
        except Exception:
            told.put_nowait(("error", {"message": "the service failed"}))

    working = asyncio.ensure_future(work())
    try:
        kind = ""
        while kind not in ("result", "error"):
            kind, data = await told.get()
            yield f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode("ascii")
    finally:
        working.cancel()
