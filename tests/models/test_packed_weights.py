"""Packed weights give the same products and rankings as plain ones, and are used where they help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn.functional import linear  # noqa: E402

from r1ranker_ir import Candidate, Ranker, RankingRequest  # noqa: E402
from r1ranker_ir.backends import open_backend  # noqa: E402
from r1ranker_ir.models import packed_weights  # noqa: E402
from r1ranker_ir.models.cpu_precision import computes_in_bfloat16  # noqa: E402
from r1ranker_ir.models.loading import load_model  # noqa: E402
from r1ranker_ir.models.packed_weights import pack_weights  # noqa: E402

needs_bfloat16 = pytest.mark.skipif(not computes_in_bfloat16(), reason="this CPU does not compute in bfloat16")


@needs_bfloat16
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=2), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0, 9)
)
def test_products_are_those_of_the_plain_layer(
    shape: list[int], width: int, height: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(width, height, bias=bias).bfloat16()
    numbers = torch.randn(*shape, 2 * width).bfloat16()[..., ::2]
    exact = linear(numbers.double(), layer.weight.double(), layer.bias.double() if bias else None)
    assert pack_weights(layer)
    with torch.inference_mode():
        torch.testing.assert_close(layer(numbers).double(), exact, rtol=0.01, atol=0.02)
    torch.testing.assert_close(layer.float()(numbers.float()).double(), exact, rtol=0.01, atol=0.02)


@needs_bfloat16
def test_a_backend_ranks_as_without(make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [
        RankingRequest(query, tuple(Candidate(str(place), f"{query} {place} of {length}") for place in range(length)))
        for length, query in enumerate(("owls", "tides", "bread"), 4)
    ]

    def ranked() -> tuple[Any, list[Any]]:
        ranker = Ranker(strategy="likelihood", model=make_checkpoint("chatml"), dtype="bfloat16", device="cpu")
        return ranker.backend.identity.get("weights"), ranker.rank(requests)

    packed, with_packed = ranked()
    monkeypatch.setattr(packed_weights, "MOST_BYTES", 0)
    plain, without = ranked()
    assert (packed, plain) == ("packed", None)
    for one, other in zip(with_packed, without, strict=True):
        assert dict(zip(one.order, one.scores, strict=True)) == pytest.approx(
            dict(zip(other.order, other.scores, strict=True)), abs=0.2
        )


def test_only_what_gains_is_packed(make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = str(make_checkpoint("chatml"))
    where: dict[str, Any] = {"device": "cpu", "device_map": None, "trust_remote_code": False, "revision": None}

    def packed(dtype: str, **options: Any) -> bool:
        return "weights" in open_backend("transformers", checkpoint, device="cpu", dtype=dtype, **options).identity

    assert not packed("float32")
    # It may be trained on, and packed weights would not follow.
    assert not packed("bfloat16", loaded=load_model(checkpoint, dtype="bfloat16", **where))
    monkeypatch.setattr(packed_weights, "computes_in_bfloat16", lambda: False)
    assert not packed("bfloat16")
