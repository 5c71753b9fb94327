"""GGUF files as checkpoints: a file, or a folder with one, that holds weights, tokenizer and chat template."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from r1ranker_ir.errors import CheckpointError, InputError, MissingExtraError
from r1ranker_ir.models.small import located

SUFFIX = ".gguf"
INSTALL_HINT = 'pip install "r1ranker-ir[small]" (or pip install gguf)'

_MAGIC = b"GGUF"
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
# What makes a folder an ordinary checkpoint or an adapter, whatever GGUF files lie in it, too.
_OTHER_CHECKPOINTS = ("*.safetensors", "adapter_config.json")


def gguf_file(model: str | os.PathLike[str]) -> Path | None:
    """The GGUF file that a model's name stands for: a file, or that in a folder without safetensors or adapter."""
    path, named = Path(model), f"checkpoint {os.fspath(model)!r}"
    if path.is_file():
        try:
            with path.open("rb") as file:
                begins_as_gguf = file.read(len(_MAGIC)) == _MAGIC
        except OSError as error:
            raise CheckpointError(f"{named} can't be read: {error}") from error
        if path.suffix.lower() != SUFFIX and not begins_as_gguf:
            raise CheckpointError(f"{named} is not a GGUF file: give one, or a folder")
        found = path
    elif path.is_dir():
        if any(next(path.glob(pattern), None) is not None for pattern in _OTHER_CHECKPOINTS):
            return None
        files = sorted(each for each in path.iterdir() if each.suffix.lower() == SUFFIX and each.is_file())
        if len(files) > 1 and not all(_PART.search(each.name) for each in files):
            names = ", ".join(each.name for each in files)
            raise CheckpointError(f"{named} is a folder of {len(files)} GGUF files ({names}): name one")
        if not files:
            return None
        found = files[0]
    elif path.suffix.lower() == SUFFIX:
        raise CheckpointError(f"{named}: there is no such file")
    else:
        return None
    if _PART.search(found.name):
        raise CheckpointError(
            f"{os.fspath(found)!r} is one part of a model: merge the parts into one file first "
            "(llama-gguf-split --merge, of llama.cpp)"
        )
    return found.resolve()


@contextmanager
def source_of(model: str, options: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What transformers' `from_pretrained` is given to load a checkpoint, or a GGUF file and nothing beside it.

    Beside a file of its own name, transformers would also read the folder's `tokenizer.json`, which in a folder of
    downloads belongs to another model.
    """
    name = located(model)[0]
    file = gguf_file(name)
    if file is None:
        yield name, dict(options)
        return
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError(
            f"GGUF checkpoint {model!r} needs the package gguf, which is not installed. Install it with: {INSTALL_HINT}"
        )
    with TemporaryDirectory(prefix="r1ranker-gguf-") as empty:
        yield empty, {"gguf_file": os.fspath(file), "local_files_only": True, "trust_remote_code": False}


def dense() -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` that have weights unpacked into ordinary numbers.

    Newer versions of transformers would keep some architectures' weights packed, and compute in float32 only.
    """
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def made_ordinary(model: Any, name: str) -> Any:
    """Takes from a model what says that it came from a GGUF file, so that it can be trained and saved under `name`."""
    if packed := [key for key, each in model.named_parameters() if not each.is_floating_point()]:
        raise InputError(f"{name!r}: the weights {packed[0]!r} are still packed: use another version of transformers")
    for attribute in ("hf_quantizer", "quantization_method"):
        if attribute in vars(model):
            delattr(model, attribute)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = model.name_or_path = name
    return model
