"""Token-by-token decoding of a batch whose rows may pause and look ahead."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from r1ranker_ir.models.key_value_cache import cache_argument, cache_of

from .states import PromptStates

_GROWTH = 128
# Rows whose rests are all this short are computed together: a second pass costs more than their padding.
_FEW_COLUMNS = 64


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


_Known = Sequence[PromptStates | None] | None
_Part = tuple[DynamicCache, Tensor, Tensor]
"""Some rows' cache, which of its columns each of them attends to, and their logits."""


def _growing_cache() -> DynamicCache:
    cache = DynamicCache()
    cache.layer_class_to_replicate = _GrowingLayer
    return cache


def _known_length(states: PromptStates | None) -> int:
    return 0 if states is None else len(states.tokens)


def _seed(cache: DynamicCache, known: Sequence[PromptStates | None], columns: int) -> None:
    """Fills an empty cache with states, padded on the left, and lets go of them layer by layer."""
    sample = next((states for states in known if states is not None), None)
    if sample is None:
        return
    for index in list(sample.layers):
        padded = [each.new_zeros((len(known), each.shape[0], columns, each.shape[2])) for each in sample.layers[index]]
        for row, states in enumerate(known):
            if states is not None:
                for room, each in zip(padded, states.layers.pop(index), strict=True):
                    room[row, :, columns - len(states.tokens) :] = each
        keys, values = padded
        cache.update(keys, values, index)


def similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Groups rows so that padding to a group's longest at most doubles what is computed, or is a few columns."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        # A group's first row is its longest.
        if groups and lengths[groups[-1][0]] <= max(2 * lengths[row], _FEW_COLUMNS):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [sorted(rows) for rows in groups]


def _merged(parts: Sequence[_Part], groups: Sequence[Sequence[int]]) -> _Part:
    """Makes one batch of groups of rows, padded on the left, in the order of the rows' numbers."""
    columns = max(mask.shape[-1] for _, mask, _ in parts)
    order = torch.tensor([row for rows in groups for row in rows]).argsort()

    def padded(tensors: Sequence[Tensor], dimension: int) -> Tensor:
        filled = []
        for tensor in tensors:
            shape = [columns - size if place == dimension else size for place, size in enumerate(tensor.shape)]
            filled.append(torch.cat([tensor.new_zeros(shape), tensor], dimension))
        return torch.cat(filled)[order.to(tensors[0].device)]

    cache = _growing_cache()
    for index in range(len(parts[0][0].layers)):
        layers: list[Any] = [part.layers[index] for part, _, _ in parts]
        if layers[0].is_initialized:
            cache.update(padded([each.keys for each in layers], 2), padded([each.values for each in layers], 2), index)
        for part, _, _ in parts:
            part.layers[index] = _GrowingLayer()  # type: ignore[no-untyped-call]
    logits = torch.cat([logits for _, _, logits in parts])
    return cache, padded([mask for _, mask, _ in parts], 1), logits[order.to(logits.device)]


class DecodingSession:
    """A batch of prompts and what was appended to each, with the model's key-value cache.

    Rows advance together, a column of tokens a step. A row that pauses gets a column that nothing attends to, so it
    computes what it would have computed alone. `known` are the states of the prompts' beginnings; they are used up.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, known: _Known = None) -> None:
        self._model = model
        self._cache_argument = cache_argument(model)
        self._pad_id = pad_id
        self._device = model.get_input_embeddings().weight.device
        self._prompts = prompts
        known = known or [None] * len(prompts)
        rests = [len(prompt) - _known_length(states) for prompt, states in zip(prompts, known, strict=True)]
        groups = similar_lengths(rests)
        parts = [self._read([prompts[row] for row in rows], [known[row] for row in rows]) for rows in groups]
        self._cache, self._mask, self.logits = parts[0] if len(parts) == 1 else _merged(parts, groups)
        self._prompt_mask = self._mask
        self._next_position = self._mask.sum(-1)

    def _read(self, prompts: Sequence[Sequence[int]], known: Sequence[PromptStates | None]) -> _Part:
        """Computes what is not known of some prompts: masked columns fill up the known part and the new one."""
        lengths = [_known_length(states) for states in known]
        before = max(lengths)
        cache = _growing_cache()
        _seed(cache, known, before)
        rests = [prompt[length:] for prompt, length in zip(prompts, lengths, strict=True)]
        longest = max(map(len, rests))
        ids = [[self._pad_id] * (longest - len(rest)) + list(rest) for rest in rests]
        seen = [
            [0] * (before - length) + [1] * length + [0] * (longest - len(rest)) + [1] * len(rest)
            for length, rest in zip(lengths, rests, strict=True)
        ]
        mask = torch.tensor(seen, device=self._device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, before:]
        logits, cache = self._forward(torch.tensor(ids, device=self._device), positions, mask, cache)
        return cache, mask, logits

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        options = {"attention_mask": mask, "position_ids": positions, self._cache_argument: cache}
        output = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **options)
        return output.logits[:, -1].float(), cache

    def take_prompts(self) -> list[PromptStates]:
        """Hands over the states of every prompt; the session is at its end then."""
        columns = [row.nonzero().flatten() for row in self._prompt_mask]
        taken = [PromptStates(list(prompt), {}) for prompt in self._prompts]
        layers: list[Any] = self._cache.layers
        for index, layer in enumerate(layers):
            if not layer.is_initialized:
                continue
            for row, states in enumerate(taken):
                # Copies, of one layer at a time: the batch's own tensors go as they are made.
                seen = columns[row].to(layer.keys.device)
                states.layers[index] = (layer.keys[row].index_select(1, seen), layer.values[row].index_select(1, seen))
            layers[index] = _GrowingLayer()  # type: ignore[no-untyped-call]
        return taken

    def append(self, tokens: Sequence[int | None]) -> None:
        """Appends one token to every row that has one; `None` pauses a row and keeps its logits."""
        self.append_sequences([() if token is None else (token,) for token in tokens])

    def append_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        """Appends a sequence to each row, in one pass; the columns that a shorter one lacks are unseen."""
        longest = max(map(len, sequences), default=0)
        if not longest:
            return
        ids = [[self._pad_id] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
        active = torch.tensor(
            [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences], device=self._device
        )
        self._mask = torch.cat([self._mask, active], dim=-1)
        positions = (self._next_position[:, None] + active.cumsum(-1) - 1).clamp(min=0)
        ids_of_columns = torch.tensor(ids, device=self._device)
        logits, self._cache = self._forward(ids_of_columns, positions, self._mask, self._cache)
        self.logits = torch.where(active[:, -1:] == 1, logits, self.logits)
        self._next_position = self._next_position + active.sum(-1)

    def look_ahead(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Returns the logits after a sequence each, of shape (rows, vocabulary), and takes the sequences back."""
        before = (self.logits, self._next_position, self._mask.shape[-1])
        self.append_sequences(sequences)
        ahead = self.logits
        self.logits, self._next_position = before[0], before[1]
        # The columns stay in the cache, unseen from now on: this needs no cache that can be cropped.
        self._mask[:, before[2] :] = 0
        return ahead


class _Alone(DecodingSession):
    """One row, whose columns are its positions: nothing is masked.

    Without `known`, the model makes its own cache, which may hold no more than a window, or no keys and values at all.
    """

    def __init__(self, model: Any, prompt: Sequence[int], known: _Known) -> None:
        self._begins_own = known is None
        super().__init__(model, [prompt], 0, known)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        if self._begins_own:
            cache, self._begins_own = None, False
        given = {self._cache_argument: cache}
        output = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **given)
        return output.logits[:, -1].float(), cache_of(output)

    def look_ahead(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        kept = copy.deepcopy(self._cache)
        ahead = super().look_ahead(sequences)
        self._cache = kept
        return ahead


class SeparateSession:
    """What `DecodingSession` does, row by row.

    For attention that counts columns instead of positions, such as a sliding window: pauses of other rows and
    sequences taken back would push what a row has read out of its window. Slower, as nothing is batched.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], known: _Known = None) -> None:
        each = [None] * len(prompts) if known is None else [[states] for states in known]
        self._rows = [_Alone(model, prompt, states) for prompt, states in zip(prompts, each, strict=True)]

    @property
    def logits(self) -> Tensor:
        return torch.cat([row.logits for row in self._rows])

    def take_prompts(self) -> list[PromptStates]:
        """Hands over the states of every prompt; the session is at its end then. Only with `known`."""
        return [states for row in self._rows for states in row.take_prompts()]

    def append(self, tokens: Sequence[int | None]) -> None:
        self.append_sequences([() if token is None else (token,) for token in tokens])

    def append_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        for row, sequence in zip(self._rows, sequences, strict=True):
            row.append_sequences([sequence])

    def look_ahead(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        pairs = zip(self._rows, sequences, strict=True)
        return torch.cat([row.look_ahead([sequence]) if sequence else row.logits for row, sequence in pairs])


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
