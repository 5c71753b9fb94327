"""LoRA adapters: their base first, with as many embeddings as the adapter was trained with, then the adapter on it."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from r1ranker_ir.errors import CheckpointError, missing_extra
from r1ranker_ir.models.hub import only_local
from r1ranker_ir.models.small import located

from .parts import load_tokenizer

logger = logging.getLogger(__name__)

_WEIGHTS = "adapter_model.safetensors"
_MISSING_IS_NONE = {"_raise_exceptions_for_missing_entries": False}
# What peft writes below the name of a layer of as many rows, or columns, as there are tokens.
_OF_VOCABULARY = r"lora_embedding_A|lora_B\.weight|(?:(?!lora_)\w+\.)*weight"


def load_adapter(
    adapter: str,
    options: Mapping[str, Any],
    load_base: Callable[[str, dict[str, Any]], Any],
    *,
    trainable: bool = False,
) -> tuple[Any, Any]:
    """Loads an adapter, puts it on its base, and returns both with its tokenizer, or else the base's.

    `options` are `revision`, `trust_remote_code` and `local_files_only`; `load_base` takes the base's name and its own.
    """
    from transformers.utils.hub import cached_file

    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise missing_extra(f"LoRA adapter {adapter!r}", "local", error) from error
    where = {"revision": options["revision"], "local_files_only": options["local_files_only"]}
    config = PeftConfig.from_pretrained(adapter, **where)
    _check_config(adapter, config)
    # peft would fall back to a pickle, in a folder and on the hub.
    weights = cached_file(adapter, _WEIGHTS, **where, **_MISSING_IS_NONE)
    if weights is None:
        raise CheckpointError(f"adapter {adapter!r} has no {_WEIGHTS}: other weight files are not loaded")
    base_name = config.base_model_name_or_path
    if not base_name:
        raise CheckpointError(f"adapter {adapter!r} names no base model in adapter_config.json")
    place, revision = located(base_name, config.revision)
    base_options = {**options, "revision": revision, "local_files_only": only_local(place, revision)}
    base = load_base(base_name, base_options)
    own_tokenizer = cached_file(adapter, "tokenizer_config.json", **where, **_MISSING_IS_NONE) is not None
    tokenizer = load_tokenizer(adapter, options) if own_tokenizer else load_tokenizer(base_name, base_options)
    _fit_vocabulary(base, adapter, tokenizer, weights, config)
    with warnings.catch_warnings():
        # peft reads a name that transformers has replaced.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = PeftModel.from_pretrained(base, adapter, is_trainable=trainable, **where)
    return model, tokenizer


def merged(adapted: Any) -> Any:
    """Adds an adapter to its base's weights, which takes no time in each product; returns the base.

    Adapters of other layers than plain linear ones stay beside their base: sums in quantised weights would lose what
    was learned, and an embedding may be the head as well.
    """
    from peft.tuners.lora import Linear as AdaptedLinear
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Linear

    layers = [each for each in adapted.modules() if isinstance(each, BaseTunerLayer)]
    embeddings = adapted.get_input_embeddings().weight
    plain = all(
        type(each) is AdaptedLinear and type(each.base_layer) is Linear and each.base_layer.weight is not embeddings
        for each in layers
    )
    return adapted.merge_and_unload() if layers and plain else adapted


def _check_config(adapter: str, config: Any) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        raise CheckpointError(
            f"adapter {adapter!r} is of the kind {kind}, which puts made-up tokens before a prompt: only adapters that "
            "change weights, such as LoRA, are loaded"
        )
    if getattr(config, "megatron_config", None):
        # peft would import whatever module the file names.
        raise CheckpointError(f"adapter {adapter!r} is made for Megatron (megatron_config), which is not supported")


def _fit_vocabulary(base: Any, adapter: str, tokenizer: Any, weights: str, config: Any) -> None:
    """Gives the base as many embeddings as the adapter has, or as its tokenizer needs."""
    from safetensors import safe_open

    layers = [layer for layer in (base.get_input_embeddings(), base.get_output_embeddings()) if layer is not None]
    names = [name for name, module in base.named_modules() if any(module is layer for layer in layers)]
    saved: set[int] = set()
    with safe_open(weights, framework="pt") as file:
        for key, name in product(file.keys(), names):
            if (found := re.fullmatch(rf"base_model\.model\.{re.escape(name)}\.({_OF_VOCABULARY})", key)) is not None:
                saved.add(file.get_slice(key).get_shape()[found[1] == "lora_embedding_A"])
    have = len(layers[0].weight)
    rows = max(saved, default=max(have, len(tokenizer)))
    if rows < len(tokenizer):
        raise CheckpointError(
            f"adapter {adapter!r} has embeddings of {rows} tokens, and its tokenizer has {len(tokenizer)}: put the "
            "tokenizer that it was trained with into its folder"
        )
    if rows == have:
        return
    base.resize_token_embeddings(rows, mean_resizing=False)
    # transformers would draw what is new, so that no two loadings were the same.
    for layer, name in product((base.get_input_embeddings(), base.get_output_embeddings()), ("weight", "bias")):
        if rows > have and (values := getattr(layer, name, None)) is not None:
            values.data[have:] = values.data[:have].float().mean(0).to(values.dtype)
    if not saved and not getattr(config, "trainable_token_indices", None):
        said = "adapter %r adds %d tokens to the vocabulary of its base and has no embeddings of them: they get the "
        said += "mean of all others. Keep what was learned of them by modules_to_save, for the embeddings and the head"
        logger.warning(said, adapter, rows - have)
