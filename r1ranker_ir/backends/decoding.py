"""Token-by-token decoding of a batch whose rows may pause and look ahead."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

_GROWTH = 128


class _GrowingLayer(DynamicLayer):
    """A cache layer that grows in blocks: appending one token does not copy all that came before."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._length = 0
            self._key_room, self._value_room = key_states[:, :, :0], value_states[:, :, :0]
        end = self._length + key_states.shape[-2]
        if end > self._key_room.shape[-2]:
            self._key_room = self._enlarged(self._key_room, key_states, end)
            self._value_room = self._enlarged(self._value_room, value_states, end)
        self._key_room[:, :, self._length : end] = key_states
        self._value_room[:, :, self._length : end] = value_states
        self._length = end
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values

    def _enlarged(self, room: Tensor, states: Tensor, end: int) -> Tensor:
        larger = states.new_empty((*states.shape[:2], end + _GROWTH, states.shape[3]))
        larger[:, :, : self._length] = room[:, :, : self._length]
        return larger


class DecodingSession:
    """A batch of prompts and what was appended to each, with the model's key-value cache.

    Rows advance together, a column of tokens a step. A row that pauses gets a column that nothing attends to, so it
    computes what it would have computed alone.

    Args:
        model: a causal language model with full attention.
        prompts: token ids, at least one each; they are padded on the left.
        pad_id: any token id.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._device = model.get_input_embeddings().weight.device
        longest = max(map(len, prompts))
        ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        self._mask = torch.tensor(
            [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self._device
        )
        self._next_position = self._mask.sum(-1)
        self._cache = DynamicCache()
        self._cache.layer_class_to_replicate = _GrowingLayer
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self.logits = self._forward(torch.tensor(ids, device=self._device), positions)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits.float()

    def _column(self, tokens: Sequence[int | None]) -> tuple[Tensor, Tensor]:
        active = torch.tensor([token is not None for token in tokens], device=self._device)
        ids = torch.tensor([[self._pad_id if token is None else token] for token in tokens], device=self._device)
        self._mask = torch.cat([self._mask, active.long()[:, None]], dim=-1)
        return ids, active

    def append(self, tokens: Sequence[int | None]) -> None:
        """Appends one token to every row that has one; `None` pauses a row and keeps its logits."""
        ids, active = self._column(tokens)
        logits = self._forward(ids, self._next_position[:, None])
        self.logits = torch.where(active[:, None], logits, self.logits)
        self._next_position = self._next_position + active.long()

    def append_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        """Appends a sequence to each row; rows with shorter ones pause."""
        for step in range(max(map(len, sequences), default=0)):
            self.append([sequence[step] if step < len(sequence) else None for sequence in sequences])

    def look_ahead(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Returns the logits after a sequence each, of shape (rows, vocabulary), and takes the sequences back."""
        before = (self.logits, self._next_position, self._mask.shape[-1])
        self.append_sequences(sequences)
        ahead = self.logits
        self.logits, self._next_position = before[0], before[1]
        # The columns stay in the cache, unseen from now on: this needs no cache that can be cropped.
        self._mask[:, before[2] :] = 0
        return ahead


class SeparateSession:
    """What `DecodingSession` does, row by row with the cache that the model makes for itself.

    For attention that counts columns instead of positions, such as a sliding window: pauses of other rows and
    sequences taken back would push what a row has read out of its window. Slower, as nothing is batched.

    Args:
        model: any causal language model that hands its key-value cache back.
        prompts: token ids, at least one each.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._device = model.get_input_embeddings().weight.device
        steps = [self._forward(prompt, None) for prompt in prompts]
        self.logits = torch.stack([logits for logits, _ in steps])
        self._caches = [cache for _, cache in steps]

    def _forward(self, tokens: Sequence[int], cache: Any) -> tuple[Tensor, Any]:
        ids = torch.tensor([list(tokens)], device=self._device)
        output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = output.logits[0, -1]
        return logits.float(), output.past_key_values

    def append(self, tokens: Sequence[int | None]) -> None:
        """Appends one token to every row that has one."""
        self.append_sequences([() if token is None else (token,) for token in tokens])

    def append_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        """Appends a sequence to each row."""
        rows = list(self.logits)
        for index, sequence in enumerate(sequences):
            if sequence:
                rows[index], self._caches[index] = self._forward(sequence, self._caches[index])
        self.logits = torch.stack(rows)

    def look_ahead(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Returns the logits after a sequence each, of shape (rows, vocabulary), and takes the sequences back."""
        return torch.stack(
            [
                self._forward(sequence, copy.deepcopy(cache))[0] if sequence else logits
                for sequence, cache, logits in zip(sequences, self._caches, self.logits, strict=True)
            ]
        )


def attention_span(model: Any) -> int | None:
    """Over how many columns a model's attention is sure to reach: the smallest of its windows; `None` for all."""
    config = model.config.get_text_config()
    if config.model_type == "mpt":
        return 0  # weighs by distance in columns
    layers = set(getattr(config, "layer_types", None) or ())
    if layers == {"full_attention"} or getattr(config, "use_sliding_window", True) is False:
        return None
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if config.model_type == "gpt_neo":
        windows.append(config.window_size)
    found = [int(window) for window in windows if window]
    return min(found) if found else (0 if layers else None)
