"""Keys and values of prompts, kept between the calls of one ranking: what two prompts share is then computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_FORESEEN_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
# These turn a token's key by how long the whole text is.
_ROTATIONS_BY_LENGTH = {"dynamic", "longrope"}


@dataclass
class PromptStates:
    """What a model's layers hold of some tokens: by layer the keys and values, of shape (heads, tokens, size)."""

    tokens: list[int]
    layers: dict[int, tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers.values())


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    length = min(len(first), len(second))
    return next((place for place in range(length) if first[place] != second[place]), length)


def depends_on_beginning_only(model: Any) -> bool:
    """Whether a model's keys and values of a text's beginning are the same whatever follows, and can be cut there."""
    config = model.config.get_text_config()
    if set(getattr(config, "layer_types", None) or ()) - _FORESEEN_LAYERS:
        return False
    rotation = getattr(config, "rope_parameters", None) or {}
    # One for all layers, or one for each kind of layer.
    each = [rotation, *(value for value in rotation.values() if isinstance(value, dict))]
    return not any(one.get("rope_type") in _ROTATIONS_BY_LENGTH for one in each)


class StateStore:
    """The latest prompt's states of every ranking under way, in bounded memory; may be used from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.peak_bytes = 0
        self._bytes = 0
        self._kept: OrderedDict[int, PromptStates] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, ranking: int, prompt: Sequence[int]) -> PromptStates | None:
        """Takes out what is known of a prompt's beginning: not of its last token, whose scores are asked for."""
        states = self.forget(ranking)
        shared = 0 if states is None else min(shared_length(states.tokens, prompt), len(prompt) - 1)
        if states is None or not shared:
            return None
        cropped = {index: (keys[:, :shared], values[:, :shared]) for index, (keys, values) in states.layers.items()}
        return PromptStates(states.tokens[:shared], cropped)

    def keep(self, ranking: int, states: PromptStates) -> None:
        """Keeps a prompt's states, in place of the ranking's earlier ones; not if they take more than all may."""
        self.forget(ranking)
        size = states.nbytes
        if size > self.max_bytes:
            return
        with self._lock:
            while self._bytes + size > self.max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            self._kept[ranking] = states
            self._bytes += size
            self.peak_bytes = max(self.peak_bytes, self._bytes)

    def forget(self, ranking: int) -> PromptStates | None:
        """Drops what is kept for a ranking, if anything, and returns it."""
        with self._lock:
            states = self._kept.pop(ranking, None)
            self._bytes -= states.nbytes if states is not None else 0
        return states
