"""Loading a model to train it: all of its weights, quantised ones under an adapter, or an adapter to go on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils.peft_utils import find_adapter_config_file

from r1ranker_ir.backends.adapters import load_adapter
from r1ranker_ir.backends.foreign_code import FOREIGN_CODE_HINT, needs_foreign_code
from r1ranker_ir.backends.loading import load_weights
from r1ranker_ir.checkpoints import OFFLINE_HINT
from r1ranker_ir.errors import CheckpointError, R1RankerError
from r1ranker_ir.hub import only_local

from .arguments import ModelArguments


def load_for_training(arguments: ModelArguments, *, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Loads a model and its tokenizer.

    Args:
        arguments: which model, and how.
        trust_remote_code: run code that comes with it.

    Returns:
        The model, an adapter already on it if the folder is one, and the tokenizer.

    Raises:
        CheckpointError: if it can't be loaded, or is an adapter and all weights are to be trained.
    """
    name = arguments.model
    if name.startswith((".", "~", os.sep)) and not Path(name).is_dir():
        raise CheckpointError(f"model {name!r}: there is no such folder. {OFFLINE_HINT}")
    try:
        return _load(arguments, trust_remote_code)
    except R1RankerError:
        raise
    # transformers, peft and safetensors raise whatever their file formats provoke: a KeyError as well as an OSError.
    except Exception as error:
        if needs_foreign_code(error):
            raise CheckpointError(f"model {name!r} can't be loaded for training: {FOREIGN_CODE_HINT}") from error
        reason = " ".join(str(error).split())[:600] or type(error).__name__
        raise CheckpointError(
            f"model {name!r} can't be loaded for training: {type(error).__name__}: {reason} — check the name or the "
            f"folder, that its weights are safetensors, and that the hub can be reached. {OFFLINE_HINT}"
        ) from error


def _load(arguments: ModelArguments, trust_remote_code: bool) -> tuple[Any, Any]:
    name, revision = arguments.model, arguments.revision
    local = only_local(name, revision)
    source = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": local}
    adapter = find_adapter_config_file(name, revision=revision, local_files_only=local)
    if adapter is None:
        return _load_weights(name, arguments, source), AutoTokenizer.from_pretrained(name, **source)
    if not arguments.use_peft:
        raise CheckpointError(
            f"model {name!r} is a LoRA adapter: add use_peft to train it further, or merge it into its base first"
        )
    return load_adapter(name, source, lambda base, where: _load_weights(base, arguments, where), trainable=True)


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
