"""Choices on the command line that are declared elsewhere: what installed packages add is offered as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.prompts.sections import known_sections
from r1ranker_ir.retrieval.first_stages import FIRST_STAGES, form_of
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import OF_ONE


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
    said = [strategy.summary for strategy in STRATEGIES.values() if strategy.summary]
    text = f"{'; '.join(said[:-1])}; or {said[-1]}."
    return text[0].upper() + text[1:]


def first_stages_help() -> str:
    """What searches, as the end of a sentence."""
    said = [f"{form_of(kind)}, {kind.summary}" for kind in FIRST_STAGES.values()]
    return f"{'; '.join(said[:-1])}; or {said[-1]}."


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    each = list(names)
    return f"{', '.join(each[:-1])} or {each[-1]}"
