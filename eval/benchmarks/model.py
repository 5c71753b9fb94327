"""The model that a benchmark runs: a checkpoint, or random weights in the shape of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, TINY_NAMES
from r1ranker_ir.models.random_weights import open_configuration, random_model
from r1ranker_ir.rankers.settings import Dtype


@dataclass(frozen=True, eq=False)
class BenchmarkModel:
    """A model in memory."""

    name: str  # what was asked for
    model: Any
    tokenizer: Any
    checkpoint: str | None = None  # its folder or hub name; None for random weights

    @property
    def device(self) -> Any:
        """Where its weights are."""
        return self.model.get_input_embeddings().weight.device

    def described(self) -> dict[str, Any]:
        """What it is, as JSON data."""
        return {
            "name": self.name,
            "random_weights": self.checkpoint is None,
            "parameters": sum(each.numel() for each in self.model.parameters()),
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "device": str(self.device),
            "tokenizer": str(self.tokenizer.name_or_path),
            "configuration": self.model.config.to_dict(),
        }


def parse_dtypes(text: str) -> tuple[str, ...]:
    """Reads names of dtypes split by commas or white space; repeats are dropped."""
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    known = get_args(Dtype)
    if wrong := [name for name in names if name not in known] or ([] if names else [text]):
        raise InputError(f"dtype is {wrong[0]!r}: use {', '.join(known)}, or several, split by commas")
    return names


def checkpoint_place(checkpoint: str) -> str:
    """The folder or hub name of a checkpoint, which may be `tiny`: the embedded model."""
    return str(TINY_CHECKPOINT) if checkpoint in ("tiny", *TINY_NAMES) else checkpoint


def open_model(
    checkpoint: str | None, configuration: str | None, *, device: str | None, dtype: str, seed: int
) -> BenchmarkModel:
    """Loads a checkpoint (`tiny`: the embedded model), or makes random weights in the shape of a configuration."""
    import r1ranker_ir.backends.local  # noqa: F401 (says what to install if something is missing)
    from r1ranker_ir.models.loading import load_model, pick_device

    placed = pick_device(device)
    if configuration is not None:
        config, tokenizer = open_configuration(configuration)
        numbers = ("float32" if placed == "cpu" else "bfloat16") if dtype == "auto" else dtype
        model = random_model(config, device=placed, dtype=numbers, seed=seed)
        return BenchmarkModel(configuration, model, tokenizer)
    assert checkpoint is not None
    folder = checkpoint_place(checkpoint)
    loaded = load_model(folder, device=device, dtype=dtype, device_map=None, trust_remote_code=False, revision=None)
    return BenchmarkModel(checkpoint, *loaded, folder)
