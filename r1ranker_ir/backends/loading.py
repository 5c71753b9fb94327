"""Loading a causal language model and its tokenizer, or a LoRA adapter and its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from r1ranker_ir.checkpoints import TINY_NAMES
from r1ranker_ir.errors import CheckpointError, InputError, missing_extra

_DTYPES = ("float32", "bfloat16", "float16")


def pick_device(device: str | None) -> str:
    """The device asked for, or the first of CUDA, MPS and CPU that is there."""
    if device is not None:
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _pick_dtype(dtype: str, device: str) -> torch.dtype | str:
    if dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}: use auto or one of {', '.join(_DTYPES)}")
    picked: torch.dtype = getattr(torch, dtype)
    return picked


def _is_adapter(model: str, revision: str | None) -> bool:
    if Path(model).is_dir():
        return (Path(model) / "adapter_config.json").is_file()
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        return find_adapter_config_file(model, revision=revision) is not None
    # Whether the name exists at all is found out, and reported, by the loading itself.
    except (OSError, ValueError):
        return False


def load_model(
    model: str,
    *,
    device: str | None,
    dtype: str,
    device_map: str | dict[str, Any] | None,
    trust_remote_code: bool,
    revision: str | None,
) -> tuple[Any, Any]:
    """Loads a model for inference, weights from safetensors only.

    Args:
        model: a folder or hub name; of an adapter, its base is loaded first.
        device: where to put it; `None` to pick.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device_map: placement by accelerate, instead of `device`.
        trust_remote_code: run code that comes with the checkpoint.
        revision: the hub revision.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        CheckpointError: if it can't be loaded; the message says which, why, and how to try things offline.
        InputError: if dtype is unknown.
        MissingExtraError: if an adapter needs peft and it is not installed.
    """
    placed = pick_device(device)
    options = {"trust_remote_code": trust_remote_code, "revision": revision}
    weights = {"use_safetensors": True, "dtype": _pick_dtype(dtype, "map" if device_map else placed)}
    if device_map is not None:
        weights["device_map"] = device_map
    try:
        loaded = _load(model, options, weights)
        return (loaded[0] if device_map is not None else loaded[0].to(placed)).eval(), loaded[1]
    except (InputError, CheckpointError, ImportError) as error:
        if isinstance(error, ImportError):
            raise missing_extra(f"Checkpoint {model!r}", "local", error) from error
        raise
    # transformers, peft and safetensors raise whatever their file formats provoke: a KeyError as well as an OSError.
    except Exception as error:
        raise CheckpointError(_explain(model, error)) from error


def _load(model: str, options: dict[str, Any], weights: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not _is_adapter(model, options["revision"]):
        tokenizer = AutoTokenizer.from_pretrained(model, **options)
        return AutoModelForCausalLM.from_pretrained(model, **options, **weights), tokenizer
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise missing_extra(f"LoRA adapter {model!r}", "local", error) from error
    config = PeftConfig.from_pretrained(model, revision=options["revision"])
    if Path(model).is_dir() and not (Path(model) / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"adapter {model!r} has no adapter_model.safetensors: other weight files are not loaded")
    base_name = config.base_model_name_or_path
    if not base_name:
        raise CheckpointError(f"adapter {model!r} names no base model in adapter_config.json")
    base_options = options | {"revision": config.revision}
    base = AutoModelForCausalLM.from_pretrained(base_name, **base_options, **weights)
    own_tokenizer = (Path(model) / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(model if own_tokenizer else base_name, **options)
    return PeftModel.from_pretrained(base, model, revision=options["revision"]), tokenizer


def _explain(model: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:600] or type(error).__name__
    return (
        f"checkpoint {model!r} can't be loaded: {type(error).__name__}: {reason} — check the name or the folder, that "
        f"its weights are safetensors, and that the hub can be reached. To try things offline, use the embedded model: "
        f"{' or '.join(repr(name) for name in TINY_NAMES)}."
    )
