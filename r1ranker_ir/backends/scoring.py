"""Log-probabilities of given texts behind given prompts, in batches; what prompts share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from r1ranker_ir.models.key_value_cache import cache_argument

from .decoding import attention_span
from .states import depends_on_beginning_only, shared_length

Tokens = tuple[int, ...]
_Pair = tuple[Tokens, Tokens]

# A batch is cut where its masks or its scores would take more numbers than this.
_MOST_MASKED, _MOST_SCORES = 2**26, 2**27
# A shared beginning that is shorter is not worth a pass of its own.
_LEAST_SHARED = 8
# Every new shape costs a CPU's library the making of kernels.
_COLUMNS = 8
# A CPU computes padding as slowly as tokens: it may be this share of them.
_PADDING = 1 / 8
# Where numbers are not exact.
_TOGETHER = 16
_EXACT = (torch.float32, torch.float64)
_MASKED_BY = ("eager", "sdpa")
_PACKS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Scored:
    """The log-probabilities of a continuation's tokens, and how many of its prompt's tokens were computed for it."""

    log_probabilities: tuple[float, ...]
    computed: int


@dataclass(frozen=True)
class _Row:
    """A prompt, or what is left of it behind what all share, and continuations that branch off at its end."""

    prompt: Tokens
    continuations: tuple[Tokens, ...]

    def __len__(self) -> int:
        return len(self.prompt) + self.branched

    @property
    def branched(self) -> int:
        """The columns of all continuations; the last token of each predicts nothing that is asked."""
        return sum(len(each) - 1 for each in self.continuations)


class Scorer:
    """Scores continuations with a causal language model.

    A continuation's score depends on its prompt and itself alone: padding is never seen, and equal pairs are computed
    once. What is left is rounding. In float32 it is far too small to count; in lower precisions, where other rows could
    change an order, a pass holds pairs of one ranking alone, whatever the batch size.

    Args:
        model: in evaluation mode.
        pad_id: any token id.
        batch_size: how many prompts are computed at once, in float32.
    """

    def __init__(self, model: Any, pad_id: int, batch_size: int) -> None:
        self._model = model
        self._pad_id = pad_id
        weights = model.get_input_embeddings().weight
        self._device, self._vocabulary = weights.device, weights.shape[0]
        self._exact = weights.dtype in _EXACT
        self._batch_size = batch_size if self._exact else _TOGETHER

    @torch.inference_mode()
    def score(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        rankings: Sequence[int],
        before_batch: Callable[[], None] = lambda: None,
    ) -> list[Scored]:
        """Scores pairs of a prompt and a continuation, of at least one token each; `rankings` says whose each is."""
        together: dict[int, list[int]] = {}
        for place, ranking in enumerate(rankings):
            together.setdefault(0 if self._exact else ranking or -1 - place, []).append(place)
        found: dict[int, Scored] = {}
        for places in together.values():
            asked = [(tuple(prompt), tuple(continuation)) for prompt, continuation in (pairs[at] for at in places)]
            found |= zip(places, self._score(asked, before_batch), strict=True)
        return [found[place] for place in range(len(pairs))]

    def _score(self, asked: Sequence[_Pair], before_batch: Callable[[], None]) -> list[Scored]:
        """Scores what may be computed together."""
        way = self._packed if _packs(self._model, self._pad_id) else self._plain
        found, results = dict(way(asked, before_batch)), []
        for pair in asked:
            results.append(found[pair])
            # What was computed once counts once.
            found[pair] = Scored(found[pair].log_probabilities, 0)
        return results

    def _plain(self, asked: Sequence[_Pair], before_batch: Callable[[], None]) -> Iterator[tuple[_Pair, Scored]]:
        """One row a pair, padded on the right, which causal models of every kind can't see."""
        pairs = sorted(set(asked), key=lambda pair: (len(pair[0]) + len(pair[1]), pair))
        for some in self._batches([_Row(prompt, (continuation,)) for prompt, continuation in pairs]):
            before_batch()
            rows = [(*row.prompt, *row.continuations[0][:-1]) for row in some]
            columns = _rounded(max(map(len, rows)))
            first = min(len(row.prompt) for row in some) - 1
            ids = torch.tensor([[*row, *[self._pad_id] * (columns - len(row))] for row in rows], device=self._device)
            mask = torch.tensor([[1] * len(row) + [0] * (columns - len(row)) for row in rows], device=self._device)
            logits = self._model(
                input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=columns - first
            ).logits
            for number, row in enumerate(some):
                start, continuation = len(row.prompt) - 1 - first, row.continuations[0]
                told = _log_probabilities(logits[number, start : start + len(continuation)], continuation)
                yield (row.prompt, continuation), Scored(told, len(row.prompt))

    def _packed(self, asked: Sequence[_Pair], before_batch: Callable[[], None]) -> Iterator[tuple[_Pair, Scored]]:
        """One row a prompt, all of its continuations side by side; what all prompts begin with is computed before."""
        behind: dict[Tokens, dict[Tokens, None]] = {}
        for prompt, continuation in asked:
            behind.setdefault(prompt, {})[continuation] = None
        shared = _shared_by(list(behind))
        rows = [
            _Row(prompt[len(shared) :], tuple(list(continuations)[start : start + self._batch_size]))
            for prompt, continuations in behind.items()
            for start in range(0, len(continuations), self._batch_size)
        ]
        rows.sort(key=lambda row: (len(row), row.prompt, row.continuations))
        states = self._read(shared) if shared else ()
        first = True
        for some in self._batches(rows, len(shared)):
            before_batch()
            for row, results in zip(some, self._branches(some, states, len(shared)), strict=True):
                for place, (continuation, told) in enumerate(zip(row.continuations, results, strict=True)):
                    computed = 0 if place else len(row.prompt) + (len(shared) if first else 0)
                    first = False
                    yield ((*shared, *row.prompt), continuation), Scored(told, computed)

    def _read(self, tokens: Tokens) -> tuple[tuple[Tensor, Tensor], ...]:
        """Keys and values of a text, of each layer."""
        cache = DynamicCache()
        self._model(
            input_ids=torch.tensor([tokens], device=self._device),
            use_cache=True,
            logits_to_keep=1,
            **{cache_argument(self._model): cache},
        )
        layers: list[Any] = cache.layers
        return tuple((layer.keys, layer.values) for layer in layers)

    def _branches(
        self, rows: Sequence[_Row], states: Sequence[tuple[Tensor, Tensor]], known: int
    ) -> Iterator[list[tuple[float, ...]]]:
        """Scores the continuations of some rows in one pass: padded on the left, so that all ends are together."""
        columns = _rounded(max(map(len, rows)))
        ids = torch.full((len(rows), columns), self._pad_id, device=self._device)
        positions = torch.zeros((len(rows), columns), dtype=torch.long, device=self._device)
        seen = torch.zeros((len(rows), 1, columns, known + columns), dtype=torch.bool, device=self._device)
        # Padding sees itself: a row of the mask without any column would make numbers that are none.
        seen[:, :, torch.arange(columns), known + torch.arange(columns)] = True
        below = torch.ones((columns, columns), dtype=torch.bool, device=self._device).tril()
        for number, row in enumerate(rows):
            start = columns - len(row)
            end = start + len(row.prompt)
            seen[number, 0, start:, :known] = True
            seen[number, 0, start:, known + start : known + end] = below[start:, start:end]
            tokens = list(row.prompt)
            places = list(range(known, known + len(row.prompt)))
            for continuation in row.continuations:
                length = len(continuation) - 1
                branch = slice(end, end + length)
                seen[number, 0, branch, known + end : known + end + length] = below[:length, :length]
                tokens += continuation[:-1]
                places += range(known + len(row.prompt), known + len(row.prompt) + length)
                end += length
            ids[number, start:] = torch.tensor(tokens, device=self._device)
            positions[number, start:] = torch.tensor(places, device=self._device)
        kept = max(row.branched for row in rows) + 1
        logits = self._forward(ids, positions, seen, states, kept)
        for number, row in enumerate(rows):
            prompt_end = kept - row.branched - 1
            start, results = prompt_end + 1, list[tuple[float, ...]]()
            for continuation in row.continuations:
                length = len(continuation) - 1
                of_branch = torch.cat(
                    [logits[number, prompt_end : prompt_end + 1], logits[number, start : start + length]]
                )
                results.append(_log_probabilities(of_branch, continuation))
                start += length
            yield results

    def _forward(
        self, ids: Tensor, positions: Tensor, seen: Tensor, states: Sequence[tuple[Tensor, Tensor]], kept: int
    ) -> Tensor:
        cache = DynamicCache()
        for index, (keys, values) in enumerate(states):
            shape = (len(ids), -1, -1, -1)
            cache.update(keys.expand(*shape), values.expand(*shape), index)
        numbers = self._model.get_input_embeddings().weight.dtype
        mask = torch.zeros(seen.shape, dtype=numbers, device=self._device)
        mask.masked_fill_(~seen, torch.finfo(numbers).min)
        logits: Tensor = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=kept,
            **{cache_argument(self._model): cache},
        ).logits
        return logits[:, -kept:]

    def _pads_too_much(self, rows: Sequence[_Row]) -> bool:
        lengths = [len(row) for row in rows]
        return self._device.type == "cpu" and max(lengths) * len(lengths) > (1 + _PADDING) * sum(lengths)

    def _batches(self, rows: Sequence[_Row], known: int = 0) -> Iterator[list[_Row]]:
        """Neighbouring rows, as many as are computed at once and fit into memory."""
        some: list[_Row] = []
        for row in rows:
            count, columns = len(some) + 1, _rounded(max(map(len, [*some, row])))
            scores = count * (max(each.branched for each in [*some, row]) + 1) * self._vocabulary
            full = count > self._batch_size or count * columns * (known + columns) > _MOST_MASKED
            if some and (full or scores > _MOST_SCORES or self._pads_too_much([*some, row])):
                yield some
                some = []
            some.append(row)
        if some:
            yield some


def _rounded(columns: int) -> int:
    return -(-columns // _COLUMNS) * _COLUMNS


def _shared_by(prompts: Sequence[Tokens]) -> Tokens:
    """What all prompts begin with, but for the last token of each."""
    first, last = min(prompts), max(prompts)
    length = min(shared_length(first, last), min(map(len, prompts)) - 1)
    return first[:length] if len(prompts) > 1 and length >= _LEAST_SHARED else ()


def _log_probabilities(logits: Tensor, tokens: Tokens) -> tuple[float, ...]:
    """Of each token by the scores before it."""
    told = torch.log_softmax(logits.float(), -1)
    chosen = told.gather(-1, torch.tensor(tokens, device=told.device)[:, None])
    return tuple(chosen[:, 0].tolist())


def _packs(model: Any, pad_id: int) -> bool:
    """Whether a model goes by the masks and positions that it is given, found out once by asking it."""
    known = _PACKS.get(model)
    if known is None:
        known = _PACKS[model] = _may_pack(model) and _goes_by_masks(model, pad_id)
    return known


def _may_pack(model: Any) -> bool:
    attention = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return attention in _MASKED_BY and attention_span(model) is None and depends_on_beginning_only(model)


def _goes_by_masks(model: Any, pad_id: int) -> bool:
    """Compares both ways on a few tokens: a model of another build may ignore what it is given, or refuse it."""
    scorer = Scorer(model, pad_id, 4)
    rows = model.get_input_embeddings().weight.shape[0]
    beginning = tuple((5 + place) % rows for place in range(_LEAST_SHARED + 1))
    pairs = [((*beginning, 7 % rows, *rest), (3 % rows, last % rows)) for rest in ((), (9 % rows,)) for last in (4, 6)]
    plain = dict(scorer._plain(pairs, lambda: None))
    try:
        packed = dict(scorer._packed(pairs, lambda: None))
    # Whatever a model provokes that does not know such arguments.
    except Exception:
        return False
    sums = [(sum(plain[pair].log_probabilities), sum(packed[pair].log_probabilities)) for pair in pairs]
    return all(abs(one - other) <= 0.02 * abs(one) + 1e-3 for one, other in sums)
