"""What a prompt can ask: each question is a section of a template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from r1ranker_ir.doors import Door
from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted
from r1ranker_ir.types import Asked


@dataclass(frozen=True)
class Section:
    """A question that a strategy asks; it is worded by the template's section of that name.

    Args:
        name: of the template's section.
        asks: for the `worst` or the `best` of the candidates shown, for an `order` of them, for `grades` of them, for a
            `grade` of the only one, or for the `likelihood` of the query behind it, which then is not in the wording.
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


_doors: list[Door[Any]] = []


def declare_sections(door: Door[Any]) -> None:
    """Says which declarations have `sections`: strategies, which are made of prompts and can't be imported here."""
    _doors[:] = [door]


def known_sections() -> Mapping[str, Section]:
    """The sections of all strategies by name, in the strategies' order, those that name excluded candidates last."""
    [door] = _doors
    return _sections_after(len(door), door.changes)


@lru_cache(maxsize=4)
def _sections_after(count: int, changes: int) -> Mapping[str, Section]:
    """Worked out once for as many strategies after as many changes."""
    sections = [section for door in _doors for strategy in door.values() for section in strategy.sections]
    sections.sort(key=lambda section: section.names_excluded)
    return {section.name: section for section in sections}


def find_section(name: str) -> Section:
    """Finds a section by name; an InputError says which there are."""
    known = known_sections()
    if name not in known:
        raise InputError(f"section {quoted(name)} is not known: use one of {', '.join(known)}")
    return known[name]


def sections_asking(asks: Asked) -> tuple[str, ...]:
    """Names the sections that ask for that."""
    return tuple(section.name for section in known_sections().values() if section.asks == asks)
