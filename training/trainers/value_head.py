"""The value head of PPO: what reward a policy may expect from here on, read off its hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from r1ranker_ir.errors import CheckpointError

VALUE_HEAD = "value_head"
VALUE_HEAD_FILE = f"{VALUE_HEAD}.safetensors"


def is_value_head(name: str) -> bool:
    """Whether a parameter's name, with whatever wrappers stand in front, is one of the head's."""
    return f"{VALUE_HEAD}." in name


class ValueHead(nn.Linear):
    """A linear function of a hidden state's direction, 0 everywhere at first.

    The length of hidden states differs by orders of magnitude between models and places: without it, one learning
    rate fits them all, and the head's gradient does not dwarf the policy's where both are clipped together.
    """

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Computes values, outside of mixed precision."""
        with torch.autocast(hidden.device.type, enabled=False):
            direction = nn.functional.normalize(hidden.float(), dim=-1)
            return super().forward(direction.to(self.weight.dtype)).squeeze(-1).float()


def attach_value_head(policy: Any, head: ValueHead) -> None:
    """Makes a value head a submodule of a model, one that is not saved with it."""
    policy.add_module(VALUE_HEAD, head)
    # A model that is loaded to rank has no such head, and would report weights that it can't place.
    names = {f"{VALUE_HEAD}.{name}" for name, _ in head.named_parameters()}
    policy._keys_to_ignore_on_save = {*(policy._keys_to_ignore_on_save or ()), *names}


def save_value_head(named: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Writes a value head beside the model's weights."""
    head = {name.rpartition(".")[2]: tensor.detach().contiguous() for name, tensor in named if is_value_head(name)}
    if head:
        save_file(head, folder / VALUE_HEAD_FILE)


def read_value_head(folder: Path) -> Mapping[str, torch.Tensor]:
    """Reads what `save_value_head` wrote."""
    path = folder / VALUE_HEAD_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {VALUE_HEAD_FILE}, so it is not a checkpoint of PPO: resume from one, or name the folder "
            "as the model to start from"
        )
    return load_file(path)
