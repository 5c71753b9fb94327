"""Half a surrogate pair, as `surrogateescape` and broken JSON leave it, passes through everything that takes texts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.request_files import read_requests
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.retrieval.bm25 import BM25Index
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.training.data.sample_files import read_samples
from r1ranker_ir.types import Candidate, RankingRequest

QUERY = "how long\ud800 do fleas \udcff live"
CANDIDATES = tuple(Candidate(f"d{number}", f"passage\ud83d {number} \udce9 of fleas") for number in range(7))
REQUEST = RankingRequest(QUERY, CANDIDATES, query_id="q")


@given(text=st.text())
def test_draws_by_ordinary_text_are_those_of_random(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert seeded_by(text).random() == random.Random(text).random()
    assert seeded_by("\ud800").random() != seeded_by("\udcff").random()


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("iterative", {}),
        ("direct", {}),
        ("setwise", {}),
        ("pointwise", {}),
        ("setwise", {"votes": 3}),
        ("iterative", {"votes": 3}),
        ("direct", {"votes": 3, "vote_by": "borda"}),
    ],
)
def test_every_strategy_ranks_such_texts(strategy: str, options: dict[str, Any]) -> None:
    gains = {"q": {f"d{number}": float(number) for number in range(7)}}
    ranker = Ranker("oracle", strategy=strategy, backend="oracle", gains=gains, **options)
    assert ranker.rank([REQUEST])[0].order == (6, 5, 4, 3, 2, 1, 0)


def test_files_of_requests_samples_and_measures(tmp_path: Path) -> None:
    requests, samples = tmp_path / "r.jsonl", tmp_path / "s.parquet"
    candidates = [{"id": each.id, "text": each.text, "gain": int(each.id == "d2")} for each in CANDIDATES]
    rows = [{"id": f"\udcff{number}", "context": QUERY, "candidates": candidates} for number in range(3)]
    requests.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [judged.request.query for judged in read_requests(requests)] == [QUERY] * 3
    for command in (
        f"data --requests {requests} --output {samples} --candidates 5",
        f"suite {requests} --reranker r1ranker-direct-tiny --shuffle 1 --output {tmp_path / 'o'}",
    ):
        r1ranker(*command.split())
    # In Parquet there are question marks instead.
    assert {row["context"] for row in read_samples(samples)} == {"how long? do fleas ? live"}


def test_words_beside_them_are_found_by_bm25() -> None:
    class Fleas:
        name = "fleas"

        def iterate_documents(self) -> Iterator[tuple[str, str]]:
            yield from ((each.id, each.text) for each in CANDIDATES[:2])
            yield "kettle", "water\udcff boils"

    index = BM25Index(Fleas())
    assert [entry.doc_id for entry in index.search("fleas\ud800", 5)] == ["d0", "d1"]
    assert index.search("\ud800", 5) == ()
