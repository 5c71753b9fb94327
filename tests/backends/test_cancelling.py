"""A cancelled ranking makes no further calls, and the other ones go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from servers import Reply, Request, ScriptedServer, Serve, completion

from r1ranker_ir.integrations.langchain import R1RankerCompressor
from r1ranker_ir.integrations.rerankers import IRankerReranker

PASSAGES = [f"passage {number}" for number in range(20)]
ANSWER = completion("<think>a</think><answer>[1]</answer>").body


def served(server: ScriptedServer, **options: Any) -> IRankerReranker:
    return IRankerReranker("m", backend="openai", base_url=server.base_url, max_retries=0, **options)


async def cancelled_when(task: asyncio.Task[Any], reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached() and time.monotonic() < end:
        await asyncio.sleep(0.01)
    assert reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_ranking_pays_for_no_further_calls(serve: Serve) -> None:
    server = serve(lambda request: Reply(ANSWER, delay=0.02))
    reranker = served(server)

    async def cancel() -> None:
        task = asyncio.create_task(reranker.rank_async("a query", PASSAGES))
        await cancelled_when(task, lambda: len(server.requests) >= 3)

    asyncio.run(cancel())
    assert_no_more(server)
    assert len(reranker.rank("a query", PASSAGES).results) == 20


def assert_no_more(server: ScriptedServer) -> None:
    made = len(server.requests)
    assert made <= 5
    time.sleep(0.4)
    assert len(server.requests) == made


def test_a_request_under_way_is_dropped(serve: Serve) -> None:
    answered, late = threading.Event(), []

    def reply(request: Request) -> Reply:
        if "slow" in request.question:
            late.append(not answered.wait(60))
        return Reply(ANSWER)

    server = serve(reply)
    reranker = served(server, concurrency=1)

    async def cancel() -> None:
        task = asyncio.create_task(reranker.rank_async("a slow query", PASSAGES))
        await cancelled_when(task, lambda: len(server.requests) == 1)
        # The next one need not wait for the answer to the first, which does not come before it.
        assert len((await reranker.rank_async("a query", PASSAGES[:3])).results) == 3
        assert not late

    asyncio.run(cancel())
    answered.set()
    assert len(server.requests) == 3


def test_other_rankings_in_flight_are_not_harmed(serve: Serve) -> None:
    server = serve(lambda request: Reply(ANSWER, delay=0.02))
    reranker = served(server)

    async def several() -> list[Any]:
        tasks = [asyncio.create_task(reranker.rank_async(f"query {number}", PASSAGES[:6])) for number in range(6)]
        await cancelled_when(tasks[2], lambda: len(server.requests) >= 6)
        tasks[4].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(several())
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [
        number in (2, 4) for number in range(6)
    ]
    expected = [result.doc_id for result in reranker.rank("query 0", PASSAGES[:6]).results]
    for number in (0, 1, 3, 5):
        assert [result.doc_id for result in outcomes[number].results] == expected


def test_a_time_limit_and_the_langchain_compressor_stop_too(serve: Serve) -> None:
    from langchain_core.documents import Document

    server = serve(lambda request: Reply(ANSWER, delay=0.1))
    compressor = R1RankerCompressor(reranker=served(server))
    documents = [Document(page_content=text) for text in PASSAGES]

    async def limited() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(compressor.acompress_documents(documents, "a query"), timeout=0.35)

    asyncio.run(limited())
    assert_no_more(server)


def test_a_model_in_this_process_stops_in_the_middle_of_a_thought(make_checkpoint: Callable[..., Any]) -> None:
    reranker = IRankerReranker(make_checkpoint("chatml"), device="cpu", max_thought_tokens=400, batch_size=1)
    steps = 0
    model = reranker.ranker.backend._model

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    hook = model.register_forward_hook(count)

    async def cancel() -> None:
        task = asyncio.create_task(reranker.rank_async("a query", PASSAGES[:6]))
        await cancelled_when(task, lambda: steps >= 5)

    asyncio.run(cancel())
    time.sleep(0.2)
    made = steps
    time.sleep(0.2)
    hook.remove()
    assert steps == made
    assert reranker.ranker.summary.usage.calls <= 1
    assert sorted(result.doc_id for result in reranker.rank("a query", PASSAGES[:2]).results) == [0, 1]
