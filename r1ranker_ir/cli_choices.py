"""Choices on the command line that are declared elsewhere: what installed packages add is offered as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.backends import BACKENDS
from r1ranker_ir.family import FAMILY
from r1ranker_ir.prompts.sections import known_sections
from r1ranker_ir.retrieval.first_stages import FIRST_STAGES, form_of
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import OF_ONE


def _one_of(names: Iterable[str]) -> Any:
    """The type of an argument that takes these names alone."""
    return Literal.__getitem__(tuple(names))


if TYPE_CHECKING:
    BackendName = str
    StrategyName = str
    SamplingName = str
    SectionName = str
else:
    BackendName = _one_of(name for name, each in BACKENDS.items() if each.offered)
    """What runs a model."""
    StrategyName = _one_of(STRATEGIES)
    """A strategy."""
    SamplingName = _one_of([*(name for name, each in STRATEGIES.items() if each.asks not in OF_ONE), "windows"])
    """What training samples are made for: a strategy that compares candidates, or windows over a run."""
    SectionName = _one_of(known_sections())
    """A section of a template."""


def strategies_help() -> str:
    """What the strategies do, as one sentence."""
    return _sentence([strategy.summary for strategy in STRATEGIES.values()], "; ")


def backends_help() -> str:
    """What the backends do, as one sentence."""
    return _sentence([backend.summary for backend in BACKENDS.values() if backend.offered], ", ")


def first_stages_help() -> str:
    """What searches, as the end of a sentence."""
    said = [f"{form_of(kind)}, {kind.summary}" for kind in FIRST_STAGES.values()]
    return f"{'; '.join(said[:-1])}; or {said[-1]}."


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    each = list(names)
    return f"{', '.join(each[:-1])} or {each[-1]}"


def repairing_systems() -> str:
    """The systems that repair texts before they show them."""
    return listed(name for name, system in FAMILY.items() if system.settings.get("repair_text"))


def _sentence(parts: Iterable[str], separator: str) -> str:
    said = [part for part in parts if part]
    text = f"{separator}or ".join([separator.join(said[:-1]), said[-1]]) + "."
    return text[0].upper() + text[1:]
