"""The parts of a checkpoint that can be read without its weights: tokenizer and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1ranker_ir.models.gguf import source_of
from r1ranker_ir.models.small import is_small

FOREIGN_CODE_HINT = (
    "it needs Python code that comes with it, and such code is not run unasked. Use one that needs none; or read the "
    "code, and pass trust_remote_code=True if you trust it"
)


def needs_foreign_code(error: BaseException) -> bool:
    """Whether transformers gave up because something needs code of its own, which it was told not to run."""
    return isinstance(error, ValueError) and "trust_remote_code" in str(error)


def load_tokenizer(model: str, options: Mapping[str, Any]) -> Any:
    """Loads a checkpoint's tokenizer with its chat template; `options` say where from: `revision` and the like."""
    from transformers import AutoTokenizer

    with source_of(model, options) as (source, arguments):
        loaded: Any = AutoTokenizer.from_pretrained(source, **arguments)
    if is_small(model):
        loaded.name_or_path = model
    if file := arguments.get("gguf_file"):
        loaded.name_or_path = model
        _split_digits(loaded, file)
    return loaded


def _split_digits(tokenizer: Any, file: str) -> None:
    """Splits texts before each digit where the file says that its vocabulary was made so, as transformers does not.

    Without it, white space before a number would be put into other tokens than the model was trained on.
    """
    try:
        from transformers.integrations.gguf.reader import read_gguf_metadata
    except ImportError:  # before 5.24
        return
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    # How llama.cpp calls the way in which SmolLM's vocabulary was made.
    if read_gguf_metadata(file)[0].get("tokenizer.ggml.pre") == "smollm":
        by_digit = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(by_digit)


def load_config(model: str, options: Mapping[str, Any]) -> Any:
    """Loads a checkpoint's configuration; `options` as for `load_tokenizer`."""
    from transformers import AutoConfig

    with source_of(model, options) as (source, arguments):
        return AutoConfig.from_pretrained(source, **arguments)
