"""What a prompt can ask: each question is a section of a template."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted
from r1ranker_ir.types import Asked


@dataclass(frozen=True)
class Section:
    """A question that a strategy asks; it is worded by the template's section of that name.

    Args:
        name: of the template's section.
        asks: for the `worst` or the `best` of the candidates shown, for an `order` of them, for a `grade` of the only
            one, or for the `likelihood` of the query behind it, which then is no part of the wording.
        names_excluded: its prompts show candidates that are excluded already, and name them.
        user: the user's turn where a template has no such section; empty where a template must have one.
        system: the system's turn that goes with `user`; empty for none.
        tasks: task to the user's turn that goes in place of `user`.
    """

    name: str
    asks: Asked
    names_excluded: bool = False
    user: str = ""
    system: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict, hash=False)


def known_sections() -> Mapping[str, Section]:
    """The sections of all strategies by name, in the strategies' order, those that name excluded candidates last."""
    strategies = _strategies()
    return _sections_of(len(strategies), strategies.changes)


def _strategies() -> Any:
    # Strategies are made of prompts, so that this module can't import them while it is imported itself.
    return importlib.import_module("r1ranker_ir.strategies").STRATEGIES


@lru_cache(maxsize=4)
def _sections_of(count: int, changes: int) -> Mapping[str, Section]:
    """The sections of the strategies, of which so many are known, after so many changes: worked out once for each."""
    strategies = _strategies()
    sections = [section for strategy in strategies.values() for section in strategy.sections]
    sections.sort(key=lambda section: section.names_excluded)
    return {section.name: section for section in sections}


def find_section(name: str) -> Section:
    """Finds a section by name.

    Raises:
        InputError: if no strategy has it.
    """
    known = known_sections()
    if name not in known:
        raise InputError(f"section {quoted(name)} is not known: use one of {', '.join(known)}")
    return known[name]


def sections_asking(asks: Asked) -> tuple[str, ...]:
    """Names the sections that ask for that."""
    return tuple(section.name for section in known_sections().values() if section.asks == asks)
