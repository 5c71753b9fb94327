"""A real model that does all its work, and answers what it is told: so that every variant excludes the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from r1ranker_ir.backends.local import CACHE_MEMORY, TransformersBackend
from r1ranker_ir.types import Answer, Call

from .lists import shown_numbers
from .model import BenchmarkModel
from .rows import SpeedSettings


def real_backend(model: BenchmarkModel, settings: SpeedSettings) -> TransformersBackend:
    """A backend that keeps nothing between calls, and whose answers are the model's."""
    return TransformersBackend(model.name, **_options(model, settings, reuse=False))


def _options(model: BenchmarkModel, settings: SpeedSettings, *, reuse: bool) -> dict[str, Any]:
    kept = CACHE_MEMORY if settings.cache_memory is None else settings.cache_memory
    return {
        "loaded": (model.model, model.tokenizer),
        "batch_size": settings.batch_size,
        "max_thought_tokens": settings.thought_tokens,
        "cache_memory": kept if reuse else 0,
    }


class ForcedBackend(TransformersBackend):
    """A backend whose answers, after the model's work is done, are replaced by those of a given order."""

    def __init__(
        self, model: BenchmarkModel, settings: SpeedSettings, *, reuse: bool, best_first: bool, thought: str
    ) -> None:
        super().__init__(model.name, **_options(model, settings, reuse=reuse))
        self._best_first, self._made_thought = best_first, thought

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Has the model answer, and puts the given order's answers in place of its own."""
        return [self._forced(call, answer) for call, answer in zip(calls, super().answer(calls), strict=True)]

    def _forced(self, call: Call, answer: Answer) -> Answer:
        """Chances fall evenly along the order, from the answer on."""
        numbers = shown_numbers(call)
        number_of = {identifier: numbers[int(identifier[1:-1]) - 1] for identifier in call.identifiers}
        ordered = sorted(number_of, key=number_of.__getitem__, reverse=not (self._best_first or call.form == "order"))
        total = len(ordered) * (len(ordered) + 1) / 2
        chances = {identifier: (len(ordered) - rank) / total for rank, identifier in enumerate(ordered)}
        places = 1 if call.form == "one" else call.top or len(ordered)
        return replace(
            answer,
            choice=tuple(ordered[:places]),
            probabilities={identifier: chances[identifier] for identifier in call.identifiers},
            thought=self._made_thought if call.thought is None else answer.thought,
        )


@contextmanager
def no_early_end(model: Any, tokenizer: Any) -> Iterator[None]:
    """Keeps a model from writing what ends a turn, a thought or a tag, so that thoughts reach their full length."""
    import torch

    vocabulary = tokenizer.get_vocab()
    size = int(model.config.get_text_config().vocab_size)
    endings = {number for token, number in vocabulary.items() if ">" in token} | set(tokenizer.all_special_ids)
    unknown = set(range(size)) - set(vocabulary.values())
    kept_out = torch.tensor(sorted(number for number in endings | unknown if number < size))
    kept_out = kept_out.to(model.get_output_embeddings().weight.device)

    def keep_out(module: Any, inputs: Any, output: Any) -> None:
        output.logits.index_fill_(-1, kept_out, -torch.inf)

    hook = model.register_forward_hook(keep_out)
    try:
        yield
    finally:
        hook.remove()
