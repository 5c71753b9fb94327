"""Every strategy ranks with a real model: what a release of the libraries must not break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.strategies import STRATEGIES

pytestmark = pytest.mark.latest

TEXTS = ("fleas live for months", "the kettle boils", "sheep are shorn in spring", "cloth is dyed last", "a flea")


@pytest.mark.parametrize("checkpoint", ["chatml", "gemma", "plain"])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_ranking_is_whole_and_needs_no_repair(
    strategy: str, checkpoint: str, make_checkpoint: Callable[..., Path]
) -> None:
    ranker = Ranker(
        make_checkpoint(checkpoint), strategy=strategy, device="cpu", max_thought_tokens=6, max_repair_rate=1.0
    )
    request = RankingRequest("how long do fleas live", tuple(Candidate(f"d{n}", text) for n, text in enumerate(TEXTS)))
    [ranking] = ranker.rank([request])
    assert sorted(ranking.order) == [0, 1, 2, 3, 4]
    # Lists of grades are written freely, and a random model writes none.
    assert ranking.repairs == (strategy == "groupwise")
    assert ranker.rank([request])[0].order == ranking.order
