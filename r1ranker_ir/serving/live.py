"""A ranking as it happens: server-sent events, one for each answer of the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.types import Answer, Call, Program

Told = tuple[str, dict[str, Any]]
"""The name of an event, and its data."""


def watched(program: Program, tell: Callable[[Call, Answer], None]) -> Program:
    """The same program, which tells of each answer before it goes on."""
    try:
        call = next(program)
        while True:
            try:
                answer = yield call
            except Exception as error:
                call = program.throw(error)
            else:
                tell(call, answer)
                call = program.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        program.close()


def step_data(call: Call, answer: Answer) -> dict[str, Any]:
    """What an answer says, with positions in the request; `outcome` is empty where only the strategy can read it."""
    question = call.question
    chosen = (answer.choice or ())[: call.top or None]
    places = {} if question is None else dict(zip(call.identifiers, question.answerable, strict=False))
    return {
        "asks": "" if question is None else question.asks,
        "shown": [] if question is None else list(question.answerable),
        "outcome": [places[each] for each in chosen if each in places],
        "thought": answer.thought,
    }


async def events(
    ranked: Callable[[Callable[[Program], Program]], Awaitable[dict[str, Any]]],
) -> AsyncIterator[bytes]:
    """Ranks with what watches the program, and yields a `step` for each answer, and a `result` or an `error`."""
    told = asyncio.Queue[Told]()

    async def work() -> None:
        try:
            result = await ranked(
                lambda program: watched(program, lambda *each: told.put_nowait(("step", step_data(*each))))
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
