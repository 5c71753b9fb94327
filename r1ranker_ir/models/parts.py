"""What of a checkpoint can be read without its weights: tokenizer and configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1ranker_ir.models.gguf import gguf_file, loading_from, require_gguf
from r1ranker_ir.models.small import located

# How llama.cpp calls the way in which SmolLM's vocabulary was made.
_DIGIT_BY_DIGIT = ("smollm",)


def load_tokenizer(model: str, options: Mapping[str, Any]) -> Any:
    """Loads a checkpoint's tokenizer with its chat template."""
    from transformers import AutoTokenizer

    name = located(model)[0]
    file = gguf_file(name)
    if file is None:
        ordinary: Any = AutoTokenizer.from_pretrained(name, **options)
        return ordinary
    require_gguf(model)
    with loading_from(file) as (folder, arguments):
        loaded: Any = AutoTokenizer.from_pretrained(folder, **arguments)
    loaded.name_or_path = model
    _split_digits(loaded, file)
    return loaded


def _split_digits(tokenizer: Any, file: Path) -> None:
    """Splits texts before each digit where the file says that its vocabulary was made so, as transformers does not.

    Without it, white space before a number would be put into other tokens than the model was trained on.
    """
    try:
        from transformers.integrations.gguf.reader import read_gguf_metadata
    except ImportError:  # before 5.24
        return
    from tokenizers import pre_tokenizers

    metadata, _ = read_gguf_metadata(os.fspath(file))
    if metadata.get("tokenizer.ggml.pre") in _DIGIT_BY_DIGIT:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


def load_config(model: str, options: Mapping[str, Any]) -> Any:
    """Loads a checkpoint's configuration."""
    from transformers import AutoConfig

    name = located(model)[0]
    file = gguf_file(name)
    if file is None:
        return AutoConfig.from_pretrained(name, **options)
    require_gguf(model)
    with loading_from(file) as (folder, arguments):
        return AutoConfig.from_pretrained(folder, **arguments)
