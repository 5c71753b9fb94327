"""A language model to route to, and what is known of it before it is asked: prices, size, what it is good at."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.described import described
from r1ranker_ir.types import Candidate

_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SIZE = re.compile(r"(?:(\d+)\s*[x×]\s*)?(\d+(?:\.\d+)?)\s*([KMBT])\b", re.IGNORECASE)


@dataclass(frozen=True)
class LLMProfile:
    """A language model that could answer.

    Args:
        name: what it is called, by the gateway as in files of observations.
        price_in: dollars per million tokens that it reads; `None` where not known.
        price_out: dollars per million tokens that it writes; `None` where not known.
        description: what it is good at, for the ranker to read.
        size: its parameters, such as `8B` or `8x7B`.

    Raises:
        InputError: if the name is blank, a price is negative or no finite number, only one is known, or another field
            is no text.
    """

    name: str
    price_in: float | None = None
    price_out: float | None = None
    description: str = ""
    size: str = ""

    def __post_init__(self) -> None:
        for field_name in ("name", "description", "size"):
            if not isinstance(text := getattr(self, field_name), str):
                raise InputError(f"a language model's {field_name} is {described(text)}: a text is needed")
        if not self.name.strip():
            raise InputError(f"a language model's name is {self.name!r}: give it one")
        for field_name in ("price_in", "price_out"):
            price = getattr(self, field_name)
            if not (self.price_in is self.price_out is None or _is_price(price)):
                shown = described(price, shows_words=True)
                raise InputError(
                    f"language model {self.name!r}: {field_name} is {shown}: dollars per million tokens are needed"
                )

    @property
    def parameters(self) -> float | None:
        """How many parameters the size says, all experts together; `None` where it says none."""
        found = _SIZE.search(self.size)
        return None if found is None else int(found[1] or 1) * float(found[2]) * _UNITS[found[3].upper()]

    @property
    def text(self) -> str:
        """What a ranker reads: what tells language models apart comes first, as small rankers read no further."""
        known = self.price_in is not None
        price = f"${self.price_in:g}/${self.price_out:g} per million tokens" if known else ""
        head = ", ".join(part for part in (self.name, self.size, price) if part)
        return f"{head}: {self.description}" if self.description else head

    def candidate(self) -> Candidate:
        """The candidate of a ranking request."""
        return Candidate(self.name, self.text)

    def price(self, tokens_in: float, tokens_out: float) -> float | None:
        """What an answer costs in dollars, by the tokens that are read and written; `None` without known prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def check_profiles(profiles: Iterable[LLMProfile], where: str = "llms") -> tuple[LLMProfile, ...]:
    """Checks that there are language models to choose from, each once; `where` is the argument or the file."""
    checked = tuple(profiles)
    if not checked:
        raise InputError(f"{where} holds no language model: give at least one")
    for place, profile in enumerate(checked):
        if not isinstance(profile, LLMProfile):
            raise InputError(f"{where}[{place}] is {described(profile)}: give an LLMProfile")
    if repeated := [name for name, times in Counter(profile.name for profile in checked).items() if times > 1]:
        raise InputError(f"{where} holds {repeated[0]!r} more than once: give each language model a name of its own")
    return checked
