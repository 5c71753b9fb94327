"""Items that a user has not chosen, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from itertools import accumulate


class NegativeSampler:
    """Draws items without replacement, alike or by weight; items without a weight are never drawn."""

    def __init__(self, titles: Mapping[str, str], weights: Mapping[str, int] | None = None) -> None:
        self._titles = titles
        self._items = list(titles) if weights is None else [item for item in titles if weights.get(item, 0) > 0]
        self._cumulative = None if weights is None else list(accumulate(weights[item] for item in self._items))
        self._texts = {titles[item].casefold() for item in self._items}

    def draw(self, count: int, chosen: Iterable[str], rng: random.Random) -> list[str] | None:
        """Draws items with titles of their own, other than those chosen, whatever the case; `None` for too few."""
        taken = {self._titles[item].casefold() for item in chosen}
        if len(self._texts) - len(self._texts & taken) < count:
            return None
        drawn: list[str] = []
        while len(drawn) < count:
            [item] = rng.choices(self._items, cum_weights=self._cumulative)
            text = self._titles[item].casefold()
            if text not in taken:
                taken.add(text)
                drawn.append(item)
        return drawn
