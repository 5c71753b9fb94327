"""Which numbers `dtype="auto"` means on a CPU: bfloat16 where that is fast and the model large enough to gain by it."""

from __future__ import annotations

import logging
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

LEAST_PARAMETERS = 50_000_000
"""Smaller models stay in float32, whose answers do not depend on the batch."""

_CPU_INFO = Path("/proc/cpuinfo")


@cache
def computes_in_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16: AVX-512 BF16 or AMX on x86, the BF16 extension on ARM under Linux.

    A CPU without these converts every number first, and is then slower than in float32.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return _CPU_INFO.is_file() and "bf16" in _CPU_INFO.read_text(encoding="utf-8", errors="replace").split()
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    # These are not documented, and a version of torch may lack one.
    return any(bool(getattr(torch.cpu, name, bool)()) for name in asked)


def count_parameters(config: Any, trust_remote_code: bool) -> int:
    """Counts the weights of a causal language model without memory for it; 0 if there is none."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    # The loading of the weights says what is wrong with it.
    except Exception as error:
        logger.debug("no model can be made of the configuration: %s", error)
        return 0
    return sum(each.numel() for each in model.parameters())


def auto_on_cpu(name: str, config: Any, trust_remote_code: bool) -> torch.dtype:
    """bfloat16 on a CPU that computes in it, for a model of at least `LEAST_PARAMETERS`; otherwise float32."""
    count = count_parameters(config, trust_remote_code) if computes_in_bfloat16() else 0
    if count < LEAST_PARAMETERS:
        return torch.float32
    said = "%s (%d million parameters) is loaded in bfloat16, which this CPU computes about twice as fast as float32; "
    said += "close scores may then depend on the batch. Give a dtype, float32 or bfloat16, to choose"
    logger.warning(said, name, round(count / 1e6))
    return torch.bfloat16
