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
        judges: its prompts show thoughts in place of candidates, and as `{about}` the candidates that these are about.
        user: the user's turn where a template has no such section; empty where a template must have one.
        system: the system's turn that goes with `user`; empty for none.
        tasks: task to the user's turn that goes in place of `user`.
    """

    name: str
    asks: Asked
    names_excluded: bool = False
    judges: bool = False
    user: str = ""
    system: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict, hash=False)


_JUDGED = (
    "These are the {nouns} that were looked at, each behind a number in round brackets:\n\n{about}\n\n"
    "They were reasoned about {count} times, with different answers. Behind each identifier stands an answer, then the "
    "reasoning that led to it:\n\n{candidates}\n\n"
    "Which single one reasons best? Its reasoning keeps to what the {nouns} say, leaves out nothing that matters, and "
    "supports its answer; how sure it sounds does not count. Answer with the identifier of that one, in the form "
    "<answer>[number]</answer>."
)
JUDGE = Section(
    "judge",
    asks="best",
    judges=True,
    system="You compare lines of reasoning about {nouns}. First reason between <think> and </think>. Then write your "
    "decision between <answer> and </answer>, and nothing after it.",
    user=f"Request: {{query}}\n\n{_JUDGED}",
    tasks={
        "item": f"A user's choices so far, one a line, the latest last:\n\n{{query}}\n\nWanted: {{aim}}. {_JUDGED}",
        "model": f"Somebody asks: {{query}}\n\nYou need not answer that. Wanted: {{aim}}. {_JUDGED}",
    },
)
"""Which of several thoughts about one question, each with its answer, is the soundest."""

_doors: list[Door[Any]] = []


def declare_sections(door: Door[Any]) -> None:
    """Says which declarations have `sections`: strategies, which are made of prompts and can't be imported here."""
    _doors[:] = [door]


def known_sections() -> Mapping[str, Section]:
    """The sections of all strategies by name, in the strategies' order; then those that name excluded candidates, and
    the one that compares thoughts."""
    [door] = _doors
    return _sections_after(len(door), door.changes)


@lru_cache(maxsize=4)
def _sections_after(count: int, changes: int) -> Mapping[str, Section]:
    """Worked out once for as many strategies after as many changes."""
    sections = [section for door in _doors for strategy in door.values() for section in strategy.sections]
    sections.sort(key=lambda section: section.names_excluded)
    return {section.name: section for section in (*sections, JUDGE)}


def find_section(name: str) -> Section:
    """Finds a section by name; an InputError says which there are."""
    known = known_sections()
    if name not in known:
        raise InputError(f"section {quoted(name)} is not known: use one of {', '.join(known)}")
    return known[name]


def sections_asking(asks: Asked) -> tuple[str, ...]:
    """Names the sections that ask for that of candidates."""
    return tuple(section.name for section in known_sections().values() if section.asks == asks and not section.judges)
