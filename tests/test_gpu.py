"""The local backend on an accelerator; run with `-m gpu` on a machine that has one."""

from __future__ import annotations

import pytest

from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Candidate, RankingRequest

TEXTS = ("the life cycle of a flea", "a flea jumps far", "cycle lanes in town", "the price of steel", "life of a star")


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_accelerator_ranks_as_the_cpu_does(strategy: str) -> None:
    torch = pytest.importorskip("torch")
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if device is None:
        pytest.skip("no CUDA or MPS device")
    candidates = tuple(Candidate(str(number), text) for number, text in enumerate(TEXTS))
    request = RankingRequest("how long is the life cycle of a flea", candidates)
    there = Ranker(TINY_CHECKPOINT, strategy=strategy, device=device, dtype="float32").rank([request])[0]
    here = Ranker(TINY_CHECKPOINT, strategy=strategy, device="cpu").rank([request])[0]
    assert there.order == here.order
    assert [step.thought for step in there.steps] == [step.thought for step in here.steps]
