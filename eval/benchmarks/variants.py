"""The rows of a benchmark: ways to rank the same lists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies import STRATEGIES, Strategy
from r1ranker_ir.strategies.checks import check_options_of
from r1ranker_ir.strategies.options import LAYOUTS, RankingOptions

PUBLISHED_STRATEGY = "iterative"
"""What ranks where a variant names no strategy."""
NAIVE = "naive"
"""The published method as it is usually written: one `generate` per step, one list at a time."""
ONE = "one"
"""The published method here; the baseline of quality."""
QUALITY_VARIANTS = (
    "one one+mark halving:5 halving:5+mark one+think=first one+mark+think=first think=never direct direct+think=never"
)
"""The rows of a benchmark of quality unless told otherwise."""
DEFAULT_VARIANTS = f"{NAIVE} one+no-reuse {QUALITY_VARIANTS}"
"""The rows unless told otherwise."""


@dataclass(frozen=True)
class Variant:
    """A way to rank."""

    name: str
    strategy: str | None  # None for the loop that uses nothing of this project but its prompts
    options: RankingOptions
    reuse: bool = True  # what a prompt shares with the one before is not computed again

    @property
    def section(self) -> str:
        """The section of a template that it needs."""
        return self.declared.asked_with(self.options).name

    @property
    def declared(self) -> Strategy:
        """The strategy; of the naive loop, the one whose questions it asks."""
        return STRATEGIES[self.strategy or PUBLISHED_STRATEGY]


def parse_variants(text: str) -> tuple[Variant, ...]:
    """Reads names of variants split by commas or white space; repeats are dropped."""
    names = list(dict.fromkeys(re.findall(r"[^\s,]+", text)))
    if not names:
        raise InputError(f"no variant given: name at least one of {DEFAULT_VARIANTS}")
    return tuple(map(parse_variant, names))


def parse_variant(name: str) -> Variant:
    """Reads `naive`, or parts joined by `+`: a schedule, layout or strategy, `think=…`, `top-k=…`, and flags."""
    if name == NAIVE:
        return Variant(name, None, RankingOptions(), reuse=False)
    given: dict[str, Any] = {}
    for part in name.split("+"):
        key, value = _option(part)
        if key in given:
            raise InputError(f"variant {name!r} says twice what its {key} is: say it once")
        given[key] = value
    strategy, reuse = given.pop("strategy", PUBLISHED_STRATEGY), given.pop("reuse", True)
    try:
        options = RankingOptions(**given)
        check_options_of(strategy, options)
    except InputError as error:
        raise InputError(
            f"variant {name!r}: {error}. Variants are {NAIVE}, or parts joined by +, as in {DEFAULT_VARIANTS!r}"
        ) from error
    return Variant(name, strategy, options, reuse)


def _option(part: str) -> tuple[str, Any]:
    """What a part of a name says: an argument of `RankingOptions`, the strategy, or whether there is reuse."""
    key, _, value = part.partition("=")
    known: dict[str, tuple[str, Any]] = {"no-reuse": ("reuse", False), "show-best-first": ("show_best_first", True)}
    known |= {layout: ("layout", layout) for layout in LAYOUTS} | {name: ("strategy", name) for name in STRATEGIES}
    if key == "top-k" and value.isdecimal():
        return "top_k", int(value)
    return ("think", value) if key == "think" and value else known.get(part, ("schedule", part))
