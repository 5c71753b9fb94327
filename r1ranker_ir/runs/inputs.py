"""Which files a reranking reads, so that its outputs can be kept away from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from r1ranker_ir.files.paths import NamedFile, cache_inputs, checkpoint_inputs, corpus_inputs

if TYPE_CHECKING:
    from r1ranker_ir.rankers.source import RankerSource
    from r1ranker_ir.runs.requests import RequestSource

_OF_A_RANKER = {
    "template": "--template",
    "settings_from": "--settings-from",
    "tokenizer": "the tokenizer",
    "adapter": "the adapter",
}


def candidate_inputs(candidates: RequestSource) -> Iterator[NamedFile]:
    """The files that the candidates come from, with the options that name them."""
    yield from corpus_inputs("--corpus", getattr(candidates, "corpus", None))
    yield NamedFile("--run", getattr(candidates, "run", None))
    yield NamedFile("the requests", getattr(candidates, "path", None))


def ranker_inputs(ranker: RankerSource) -> Iterator[NamedFile]:
    """The files that a ranker reads, or keeps its answers in, with the options that name them."""
    yield from cache_inputs("--cache", ranker.settings.get("cache"))
    yield from checkpoint_inputs("--model", ranker.model)
    for name, option in _OF_A_RANKER.items():
        yield from checkpoint_inputs(option, ranker.settings.get(name))
