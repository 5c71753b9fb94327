"""Loading a causal language model and its tokenizer, or a LoRA adapter and its base."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from r1ranker_ir.errors import CheckpointError, InputError, R1RankerError, missing_extra
from r1ranker_ir.models.checkpoints import OFFLINE_HINT
from r1ranker_ir.models.gguf import dense, gguf_file, made_ordinary, source_of
from r1ranker_ir.models.hub import only_local
from r1ranker_ir.models.small import INSTALL_HINT, is_small, located

from .adapters import load_adapter, merged
from .cpu_precision import auto_on_cpu
from .key_value_cache import cache_argument
from .parts import FOREIGN_CODE_HINT, load_config, load_tokenizer, needs_foreign_code

_DTYPES = ("float32", "bfloat16", "float16")
_ON_CPU = "auto on a CPU"  # what it comes to depends on the weights


def pick_device(device: str | None) -> str:
    """The device asked for, or the first of CUDA, MPS and CPU that is there."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return found if device is None else device


def is_adapter(model: str, revision: str | None) -> bool:
    if Path(model).exists():
        return (Path(model) / "adapter_config.json").is_file()
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        local = only_local(model, revision)
        return find_adapter_config_file(model, revision=revision, local_files_only=local) is not None
    # Whether the name exists at all is found out, and reported, by the loading itself.
    except (OSError, ValueError):
        return False


@contextmanager
def quiet_bars_off_terminal() -> Iterator[None]:
    """Hides the bars of transformers and the hub where standard error is not a terminal."""
    from transformers.utils import logging as bars

    hidden = bars.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hidden:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            bars.enable_progress_bar()


def load_model(
    model: str,
    *,
    device: str | None,
    dtype: str,
    device_map: str | dict[str, Any] | None,
    trust_remote_code: bool,
    revision: str | None,
    merge_adapters: bool = True,
) -> tuple[Any, Any]:
    """Loads a model for inference, weights from safetensors only, and its tokenizer.

    An adapter is added to its base's weights where that loses nothing, unless `merge_adapters` is off.
    """
    check_exists(model)
    placed = pick_device(device)
    if dtype not in ("auto", *_DTYPES):
        raise InputError(f"dtype is {dtype!r}: use auto or one of {', '.join(_DTYPES)}")
    weights: dict[str, Any] = {"use_safetensors": True, "dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if device_map is not None:
        weights["device_map"] = device_map
    elif dtype == "auto" and placed == "cpu":
        weights["dtype"] = _ON_CPU
    try:
        with quiet_bars_off_terminal():
            loaded, tokenizer = _load(model, revision, trust_remote_code, weights)
            loaded = merged(loaded) if merge_adapters and hasattr(loaded, "merge_and_unload") else loaded
        ready = (loaded if device_map is not None else loaded.to(placed)).eval()
    except R1RankerError:
        raise
    except ImportError as error:
        raise missing_extra(f"Checkpoint {model!r}", "local", error) from error
    # transformers, peft and safetensors raise whatever their file formats provoke: a KeyError as well as an OSError.
    except Exception as error:
        raise CheckpointError(_explain(model, error)) from error
    try:
        cache_argument(ready)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {model!r} can't rank: {error}") from error
    return ready, tokenizer


def check_exists(model: str) -> None:
    """Refuses a path that leads nowhere, before anyone takes it for a hub name."""
    if model.startswith((".", "~", os.sep)) and not Path(model).exists():
        raise CheckpointError(_explain(model, FileNotFoundError("there is no such folder or file")))


def _load(model: str, revision: str | None, trust_remote_code: bool, weights: dict[str, Any]) -> tuple[Any, Any]:
    name, commit = located(model, revision)
    options = {"revision": commit, "local_files_only": only_local(name, commit), "trust_remote_code": trust_remote_code}
    if gguf_file(name) is not None or not is_adapter(name, commit):
        tokenizer = load_tokenizer(model, options)
        return _load_for_inference(model, options, weights), tokenizer

    def load_base(base: str, where: dict[str, Any]) -> Any:
        try:
            return _load_for_inference(base, where, weights)
        except (OSError, ValueError) as error:
            raise CheckpointError(_explain(base, error, of=f", the base of adapter {model!r},")) from error

    return load_adapter(model, options, load_base)


def _load_for_inference(model: str, options: dict[str, Any], weights: dict[str, Any]) -> Any:
    if weights["dtype"] == _ON_CPU:
        config = load_config(model, options)
        weights = weights | {"dtype": auto_on_cpu(model, config, bool(options["trust_remote_code"]))}
        if gguf_file(located(model)[0]) is not None:
            weights["config"] = config  # reading a GGUF file's takes seconds
    return load_weights(model, options, weights)


def load_weights(model: str, options: dict[str, Any], weights: dict[str, Any]) -> Any:
    """Loads a causal language model whose checkpoint holds all of its weights.

    `options` say where from (`revision` and the like), `weights` how to hold them (`dtype`, `device_map` and the like).
    """
    from transformers import AutoModelForCausalLM

    with source_of(model, options) as (source, arguments):
        packed = "gguf_file" in arguments
        if packed and "quantization_config" in weights:
            raise CheckpointError(
                f"checkpoint {model!r} is a GGUF file, whose weights are unpacked when it is loaded: they can't be "
                "quantised again. Leave load_in_4bit and load_in_8bit out"
            )
        arguments |= weights | (dense() if packed else {})
        answer: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **arguments)
    loaded, report = answer
    if missing := sorted(report["missing_keys"]):
        # transformers fills them with random numbers and only warns.
        raise CheckpointError(
            f"checkpoint {model!r} lacks {len(missing)} of its weights, among them {missing[0]!r}: it is incomplete, "
            f"or not a causal language model (an embedding model, for example). {OFFLINE_HINT}"
        )
    if is_small(model):
        # An adapter that is trained on it finds its base by the name, on any machine.
        return made_ordinary(loaded, model)
    # A whole path, so that an adapter that is trained on it finds its base from any folder.
    return made_ordinary(loaded, os.path.abspath(model)) if packed else loaded


def _explain(model: str, error: Exception, of: str = "") -> str:
    if needs_foreign_code(error):
        return f"checkpoint {model!r}{of} can't be loaded: {FOREIGN_CODE_HINT}"
    reason = " ".join(str(error).split())[:600] or type(error).__name__
    return f"checkpoint {model!r}{of} can't be loaded: {type(error).__name__}: {reason} — {way_out(model)}"


def way_out(model: str) -> str:
    """What to check about a checkpoint that can't be loaded."""
    if is_small(model):
        checked = f"put it on this machine with: {INSTALL_HINT}; or check that the hub can be reached"
    elif Path(model).is_file() or any(Path(model).glob("*.gguf")):
        whole = "check that the file is whole, that it holds a language model with its tokenizer"
        checked = f"{whole}, and that this version of transformers reads GGUF files of its architecture"
    else:
        checked = "check the name or the folder, that its weights are safetensors, and that the hub can be reached"
    return f"{checked}. {OFFLINE_HINT}"
