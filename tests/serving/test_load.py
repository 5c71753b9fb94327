"""Many clients at once: none is lost, and each is answered as if it were alone."""

from __future__ import annotations

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from loopback import Running

WORDS = "flea star boat kettle wool moon river cat spider bread egg leap shine bite".split()


def asked(number: int, count: int = 3) -> dict[str, object]:
    draw = random.Random(number)
    return {
        "query": f"{draw.choice(WORDS)} {draw.choice(WORDS)}",
        "documents": [" ".join(draw.choices(WORDS, k=draw.randint(1, 8))) for _ in range(count)],
    }


def ranked(service: Running, number: int, **more: object) -> list[int]:
    answer = service.post("/v1/rerank", {**asked(number), **more}).raise_for_status().json()
    assert answer["order"] == "complete"
    return [each["index"] for each in answer["results"]]


@pytest.mark.slow
def test_every_answer_is_that_of_the_same_request_alone(embedded):
    alone = [ranked(embedded, number) for number in range(12)]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda number: ranked(embedded, number % 12), range(128)))
    assert together == [alone[number % 12] for number in range(128)]


@pytest.mark.slow
def test_five_hundred_requests_of_64_clients(embedded, monkeypatch):
    """None is lost, and each is answered as it is alone. Prints how long they wait: docs/serving.md has the figures."""
    backend, sizes = embedded.service.rankers["small"].backend, []
    answer = backend.answer

    def counted(calls):
        sizes.append(len(calls))
        return answer(calls)

    def timed(number: int) -> tuple[list[int], float]:
        started = time.monotonic()
        return ranked(embedded, number, model="small"), time.monotonic() - started

    monkeypatch.setattr(backend, "answer", counted)
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        orders, seconds = zip(*pool.map(timed, range(500)), strict=True)
    whole = time.monotonic() - began
    cuts = statistics.quantiles(seconds, n=20)
    filled = sum(sizes) / (len(sizes) * backend.batch_size)
    print(
        f"\n500 requests in {whole:.1f} s; p50 {statistics.median(seconds):.2f} s, p95 {cuts[-1]:.2f} s; "
        f"{sum(sizes)} calls in {len(sizes)} batches of {backend.batch_size} at most, {filled:.0%} filled"
    )
    assert sum(sizes) <= 1000 and len(sizes) < 500
    assert [ranked(embedded, number, model="small") for number in range(500)] == list(orders)


def test_requests_share_batches(numbers, backend):
    count = 300
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda number: ranked(numbers, number), range(count)))
    assert sum(backend.batches) <= 2 * count and len(backend.batches) < count


def test_a_model_that_fails_in_mid_load_gives_clean_errors(numbers, backend):
    def status(number: int) -> int:
        if number == 100:
            backend.fails = True
        answer = numbers.post("/v1/rerank", asked(number))
        assert answer.status_code == 200 or answer.json()["error_type"] == "Backend"
        return answer.status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(status, range(200)))
    assert set(statuses) == {200, 500} and statuses[-1] == 500
    backend.fails = False
    assert ranked(numbers, 1)
