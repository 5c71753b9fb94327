"""Randomly initialised models of a given configuration: what a model costs is measured without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import CheckpointError, InputError, missing_extra
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.hub import only_local
from r1ranker_ir.models.parts import needs_foreign_code

if TYPE_CHECKING:
    from torch import nn

_FOLDER = Path(__file__).parent / "configurations"
CONFIGURATIONS: tuple[str, ...] = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
"""Names of the packaged configurations."""
# A tokenizer of the configuration's own knows these; another one has other ids.
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_configuration(name: str) -> dict[str, Any]:
    """Reads one of `CONFIGURATIONS` or a JSON file, with the `model_type` of transformers."""
    path = _FOLDER / f"{name}.json" if name in CONFIGURATIONS else Path(name)
    way_out = f"give a JSON file as transformers writes them (config.json), or one of {', '.join(CONFIGURATIONS)}"
    text = read_small_text(path, f"configuration {name!r}", way_out)
    try:
        content = parse_json(text, unique=True)
    except ValueError as error:
        raise InputError(f"configuration {name!r} can't be read ({error}): {way_out}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise InputError(
            f"configuration {name!r} names no model_type: give a JSON object as transformers writes them, with "
            '"model_type": "qwen2" or another architecture'
        )
    return content


def open_configuration(name: str) -> tuple[Any, Any]:
    """Opens a configuration and its tokenizer: the embedded model's, or a folder's or hub name's own."""
    try:
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as error:
        raise missing_extra("A randomly initialised model", "local", error) from error
    if name not in CONFIGURATIONS and not name.endswith(".json") and not Path(name).is_file():
        where: dict[str, Any] = {"local_files_only": only_local(name), "trust_remote_code": False}
        try:
            return AutoConfig.from_pretrained(name, **where), AutoTokenizer.from_pretrained(name, **where)
        except Exception as error:
            why = f" ({_reason(error)}): check the name, and that the hub can be reached; or give"
            if needs_foreign_code(error):
                why = ": it needs Python code that comes with it, and that is not run. Give one that needs none,"
            raise CheckpointError(
                f"the configuration of {name!r} can't be loaded{why} a JSON file, or one of {', '.join(CONFIGURATIONS)}"
            ) from error
    content = read_configuration(name)
    tokenizer: Any = AutoTokenizer.from_pretrained(TINY_CHECKPOINT, trust_remote_code=False)
    content |= {token: getattr(tokenizer, token) for token in _TOKENS}
    architecture = content.pop("model_type")
    try:
        config: Any = AutoConfig.for_model(architecture, **content)
    # transformers checks configurations by libraries of its own, each with its own exceptions.
    except Exception as error:
        raise InputError(f"configuration {name!r} can't be used: {_reason(error)}") from error
    vocabulary = int(config.get_text_config().vocab_size)
    if vocabulary < len(tokenizer):
        raise InputError(
            f"configuration {name!r} has a vocab_size of {vocabulary}, and the embedded model's tokenizer, which is "
            f"used with it, has {len(tokenizer)} tokens: raise vocab_size"
        )
    return config, tokenizer


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def random_model(config: Any, *, device: str, dtype: str, seed: int) -> nn.Module:
    """Makes a causal language model with random weights, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(seed)
            options = {"dtype": getattr(torch, dtype), "trust_remote_code": False}
            model: nn.Module = AutoModelForCausalLM.from_config(config, **options)
    except Exception as error:
        made = f"no model of type {config.model_type!r} can be made on device {device!r}"
        raise InputError(f"{made} ({_reason(error)}): check the configuration and --device") from error
    return model.eval()
