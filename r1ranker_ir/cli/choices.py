"""Choices on the command line that are declared elsewhere: what installed packages add is offered as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.prompts.sections import known_sections
from r1ranker_ir.retrieval.first_stages import FIRST_STAGES, form_of
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import OF_ONE

CACHE_PLACE = "the environment variable R1RANKER_CACHE, else r1ranker-ir/completions.sqlite in the user's cache folder"


def _one_of(names: Iterable[str]) -> Any:
    """The type of an argument that takes these names alone."""
    return Literal.__getitem__(tuple(names))


if TYPE_CHECKING:
    SamplingName = str
    SectionName = str
else:
    SamplingName = _one_of([*(name for name, each in STRATEGIES.items() if each.asks not in OF_ONE), "windows"])
    """What training samples are made for: a strategy that compares candidates, or windows over a run."""
    SectionName = _one_of(known_sections())
    """A section of a template."""


def strategies_help() -> str:
    """What the strategies do, as one sentence."""
    text = listed([strategy.summary for strategy in STRATEGIES.values() if strategy.summary], "; ")
    return f"{text[0].upper()}{text[1:]}."


def first_stages_help() -> str:
    """What searches, as the end of a sentence."""
    return listed([f"{form_of(kind)}, {kind.summary}" for kind in FIRST_STAGES.values()], "; ") + "."


def listed(names: Iterable[str], comma: str = ", ") -> str:
    """Names or phrases in a sentence."""
    each = list(names)
    return f"{comma.join(each[:-1])}{';' if comma == '; ' else ''} or {each[-1]}"
