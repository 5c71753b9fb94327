"""A real model that does all its work, and answers what it is told: so that every variant excludes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from r1ranker_ir.types import Answer, Call

from .lists import MadeLists

if TYPE_CHECKING:
    from r1ranker_ir.backends.local import TransformersBackend


class ForcedBackend:
    """A backend whose answers, after the model's work is done, are replaced by those of a given order."""

    def __init__(self, backend: TransformersBackend, lists: MadeLists, *, best_first: bool, thought: str) -> None:
        self._backend = backend
        self._lists = lists
        self._best_first = best_first
        self._thought = thought
        self.name = backend.name
        self.batch_size = backend.batch_size
        self.context_length = backend.context_length
        self.answer_reserve = backend.answer_reserve
        self.control_tokens = backend.control_tokens
        self.forget, self.cut_text = backend.forget, backend.cut_text
        self.count_tokens, self.count_prompt_tokens = backend.count_tokens, backend.count_prompt_tokens

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's, whose answers these are not."""
        return {**self._backend.identity, "not_cacheable": "its answers are forced"}

    @property
    def cache_memory_peak(self) -> int:
        """The most bytes that kept keys and values have taken so far."""
        return self._backend.cache_memory_peak

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Has the model answer, and puts the given order's answers in place of its own."""
        answers = self._backend.answer(calls)
        return [self._forced(call, answer) for call, answer in zip(calls, answers, strict=True)]

    def _forced(self, call: Call, answer: Answer) -> Answer:
        """Chances fall evenly along the order, from the answer on."""
        numbers = self._lists.shown(call)
        going = {identifier: self._lists.going[numbers[int(identifier[1:-1]) - 1]] for identifier in call.identifiers}
        best_first = self._best_first or call.form == "order"
        ordered = sorted(going, key=going.__getitem__, reverse=best_first)
        total = len(ordered) * (len(ordered) + 1) / 2
        chances = {identifier: (len(ordered) - rank) / total for rank, identifier in enumerate(ordered)}
        places = 1 if call.form == "one" else call.top or len(ordered)
        return replace(
            answer,
            choice=tuple(ordered[:places]),
            probabilities={identifier: chances[identifier] for identifier in call.identifiers},
            thought=self._thought if call.thought is None else answer.thought,
        )


@contextmanager
def no_early_end(model: Any, tokenizer: Any) -> Iterator[None]:
    """Keeps a model from writing what ends a turn, a thought or a tag, so that thoughts reach their full length."""
    import torch

    vocabulary = tokenizer.get_vocab()
    endings = {number for token, number in vocabulary.items() if ">" in token} | set(tokenizer.all_special_ids)
    size = int(model.config.get_text_config().vocab_size)
    unknown = set(range(size)) - set(vocabulary.values())
    kept_out = torch.tensor(sorted(number for number in endings | unknown if number < size))
    on_device: dict[Any, Any] = {}

    def keep_out(module: Any, inputs: Any, output: Any) -> None:
        logits = output.logits
        if logits.device not in on_device:
            on_device[logits.device] = kept_out.to(logits.device)
        logits.index_fill_(-1, on_device[logits.device], -torch.inf)

    hook = model.register_forward_hook(keep_out)
    try:
        yield
    finally:
        hook.remove()
