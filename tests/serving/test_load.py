"""Many clients at once: none is lost, and each is answered as if it were alone."""

from __future__ import annotations

import random
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
        assert answer.status_code == 200 or answer.json()["error_type"] == "backend"
        return answer.status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(status, range(200)))
    assert set(statuses) == {200, 500} and statuses[-1] == 500
    backend.fails = False
    assert ranked(numbers, 1)
