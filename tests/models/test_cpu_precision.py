"""What `dtype="auto"` means on a CPU: bfloat16 for large models where the CPU computes in it, and it is said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoConfig  # noqa: E402

from r1ranker_ir.backends import open_backend  # noqa: E402
from r1ranker_ir.models import cpu_precision  # noqa: E402
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT  # noqa: E402
from r1ranker_ir.models.cpu_precision import auto_on_cpu, computes_in_bfloat16, count_parameters  # noqa: E402


def configuration(rows: int) -> Any:
    """One of a model whose embeddings, of 64 numbers each, are nearly all that it has."""
    return AutoConfig.for_model(
        "qwen2",
        **{"vocab_size": rows, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True},
    )


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("rows", "large"), [(700_000, False), (780_000, False), (790_000, True), (8_000_000, True)])
def test_large_models_are_read_in_bfloat16_where_that_is_fast(
    rows: int, large: bool, fast: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu_precision, "computes_in_bfloat16", lambda: fast)
    with caplog.at_level(logging.WARNING):
        chosen = auto_on_cpu("some/model", configuration(rows), False)
    assert chosen is (torch.bfloat16 if fast and large else torch.float32)
    assert ("some/model" in caplog.text and "bfloat16" in caplog.text) is (fast and large)


def test_parameters_are_counted_without_the_memory_for_them() -> None:
    config = AutoConfig.for_model("qwen2", hidden_size=8192, num_hidden_layers=80, intermediate_size=49152)
    assert count_parameters(config, False) > 100e9
    assert count_parameters(AutoConfig.for_model("vit"), False) == 0


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="there is no /proc/cpuinfo to compare with")
def test_the_cpu_says_the_same_as_the_system() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert computes_in_bfloat16() == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def dtype_of(model: Path | str, **options: Any) -> list[str]:
    return list(open_backend("transformers", str(model), device="cpu", **options).identity["dtype"])


def test_a_large_checkpoint_is_opened_as_said(make_checkpoint: Callable[..., Path]) -> None:
    checkpoint = make_checkpoint("chatml", hidden_size=64, intermediate_size=132_000)
    expected = "bfloat16" if computes_in_bfloat16() else "float32"
    assert dtype_of(checkpoint) == [expected]
    assert dtype_of(checkpoint, dtype="float32") == dtype_of(TINY_CHECKPOINT) == ["float32"]
