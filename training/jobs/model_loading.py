"""Loading a model to train it: all of its weights, quantised ones under an adapter, or an adapter to go on with."""

from __future__ import annotations

from typing import Any

import torch

from r1ranker_ir.errors import CheckpointError, R1RankerError
from r1ranker_ir.models.adapters import load_adapter
from r1ranker_ir.models.hub import only_local
from r1ranker_ir.models.loading import check_exists, is_adapter, load_weights, way_out
from r1ranker_ir.models.parts import FOREIGN_CODE_HINT, load_tokenizer, needs_foreign_code
from r1ranker_ir.models.small import located

from .arguments import ModelArguments


def load_for_training(arguments: ModelArguments, *, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Loads a model and its tokenizer."""
    name = arguments.model
    check_exists(name)
    try:
        place, revision = located(name, arguments.revision)
        local = only_local(place, revision)
        source = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": local}
        if not is_adapter(place, revision):
            return _load_weights(name, arguments, source), load_tokenizer(name, source)
        if arguments.use_peft:
            return load_adapter(name, source, lambda base, at: _load_weights(base, arguments, at), trainable=True)
    except R1RankerError:
        raise
    # transformers, peft and safetensors raise whatever their file formats provoke: a KeyError as well as an OSError.
    except Exception as error:
        reason = " ".join(str(error).split())[:600]
        told = f"{type(error).__name__}: {reason} — {way_out(name)}"
        if needs_foreign_code(error):
            told = FOREIGN_CODE_HINT
        raise CheckpointError(f"model {name!r} can't be loaded for training: {told}") from error
    raise CheckpointError(
        f"model {name!r} is a LoRA adapter: add use_peft to train it further, or merge it into its base first"
    )


def _load_weights(name: str, arguments: ModelArguments, source: dict[str, Any]) -> Any:
    dtype: Any = "auto" if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if arguments.attn_implementation is not None:
        options["attn_implementation"] = arguments.attn_implementation
    if (quantization := arguments.quantization_config()) is not None:
        from accelerate import PartialState

        # Quantised weights can't be moved afterwards.
        options |= {"quantization_config": quantization, "device_map": {"": PartialState().local_process_index}}
    return load_weights(name, source, options)
