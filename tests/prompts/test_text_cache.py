"""What was made of texts is remembered up to a number of bytes."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.prompts.text_cache import TextCache
from r1ranker_ir.types import Candidate, RankingRequest


@given(
    texts=st.lists(st.text(st.sampled_from("ab"), max_size=6).map(lambda text: text * 50), max_size=60),
    max_bytes=st.integers(0, 6000),
)
def test_results_are_the_functions_and_stay_within_the_bytes(texts: list[str], max_bytes: int) -> None:
    made = []

    def reversed_text(given: tuple[str, int]) -> str:
        text, times = given
        made.append(text)
        return text[::-1] * times

    cache = TextCache(reversed_text, max_bytes)
    for text in texts:
        assert cache.of((text, 2)) == text[::-1] * 2
        assert cache.bytes <= max_bytes
    if max_bytes < sys.getsizeof(""):
        assert made == texts


def test_what_was_used_last_stays() -> None:
    made = []
    cache = TextCache(lambda text: made.append(text) or text, 20 * (250 + 150))  # type: ignore[func-returns-value]
    for number in range(200):
        cache.of("always")
        cache.of(f"{number:0100}")
    assert made.count("always") == 1
    assert len(made) == 201
    cache.of(f"{199:0100}")
    assert len(made) == 201


@pytest.mark.parametrize(("function", "key"), [(str, "x" * 1000), (lambda given: given[0], ("x" * 1000, 5))])
def test_a_result_that_is_its_key_or_a_part_of_it_counts_once(function: Any, key: Any) -> None:
    cache: TextCache[Any, str] = TextCache(function, 10**6)
    cache.of(key)
    assert 1000 < cache.bytes < 1500


def test_threads_may_share_it() -> None:
    cache: TextCache[tuple[str, int], str] = TextCache(lambda given: given[0] * given[1], 40_000)
    wrong: list[str] = []

    def work(first: int) -> None:
        for number in range(4000):
            text = f"{(first + number * 7) % 300:03}"
            if cache.of((text, 9)) != text * 9:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and 0 < cache.bytes <= 40_000


def test_prompts_of_long_documents_take_a_bounded_memory(monkeypatch: pytest.MonkeyPatch, word_limits: Any) -> None:
    # A sixteenth of what is kept otherwise, so that few documents show where it ends.
    monkeypatch.setattr("r1ranker_ir.prompts.prompt._TEXT_BYTES", 2 * 2**20)
    prompt = Prompt(load_template(), word_limits(context_length=20_000), max_passage_tokens=100)
    letters = "the life cycle of a flea " * 2000

    def rank(number: int) -> None:
        candidates = tuple(Candidate(str(place), f"{number} {place} {letters}") for place in range(10))
        prompt.ask("direct", RankingRequest("flea", candidates), range(10))

    rank(0)
    tracemalloc.start()
    try:
        for number in range(1, 31):
            rank(number)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 300 documents of 50 kB would be 15 MB.
    assert kept < 7e6
