"""Choosing one identifier by its token scores, where identifiers may take several tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]


def told_apart(options: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Leaves out what a tokenizer makes the same of as of an option before, or the beginning of it."""
    kept: dict[str, Tokens] = {}
    for name, tokens in options.items():
        if not any(tokens[: len(other)] == other[: len(tokens)] for other in kept.values()):
            kept[name] = tokens
    return kept


@dataclass
class ChoiceSearch:
    """The search for the likeliest of some token sequences, none of which begins another.

    A sequence's probability is the product over its tokens of the model's probability among those tokens that still
    lead to a sequence. Where only one token does, nothing needs to be asked.
    """

    options: Mapping[str, Tokens]
    exhaustive: bool
    _open: dict[Tokens, float] = field(default_factory=dict)
    _found: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._settle((), 0.0)

    def _names(self, prefix: Tokens) -> list[str]:
        return [name for name, tokens in self.options.items() if tokens[: len(prefix)] == prefix]

    def _settle(self, prefix: Tokens, log_probability: float) -> None:
        """Follows a prefix while there is no choice, then notes it as found or as open."""
        names = self._names(prefix)
        if len(names) == 1:
            self._found[names[0]] = log_probability
            return
        depth = len(prefix)
        while len({self.options[name][depth] for name in names}) == 1:
            depth += 1
        self._open[self.options[names[0]][:depth]] = log_probability

    @property
    def pending(self) -> Tokens | None:
        """The prefix whose next-token scores are needed; `None` when the search is over."""
        if not self._open:
            return None
        prefix, best = max(self._open.items(), key=lambda item: item[1])
        if not self.exhaustive and self._found and best <= max(self._found.values()):
            return None
        return prefix

    def branch_tokens(self) -> list[int]:
        """The tokens that may follow the pending prefix."""
        prefix = self.pending
        assert prefix is not None
        return list(dict.fromkeys(self.options[name][len(prefix)] for name in self._names(prefix)))

    def tell(self, scores: Sequence[float]) -> None:
        """Takes the logits of `branch_tokens()` after the pending prefix."""
        prefix = self.pending
        assert prefix is not None
        tokens = self.branch_tokens()
        base = self._open.pop(prefix)
        highest = max(scores)
        above = math.log(sum(math.exp(score - highest) for score in scores))
        for token, score in zip(tokens, scores, strict=True):
            self._settle((*prefix, token), base + (score - highest) - above)

    @property
    def best(self) -> str:
        """The likeliest option found; the first in option order among equals."""
        return max((name for name in self.options if name in self._found), key=lambda name: self._found[name])

    @property
    def probabilities(self) -> dict[str, float]:
        """Option to probability, in option order; complete after an exhaustive search."""
        return {name: math.exp(self._found[name]) for name in self.options if name in self._found}
