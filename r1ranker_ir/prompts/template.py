"""Prompt templates: TOML files, or the same structure inside a checkpoint's settings."""

from __future__ import annotations

import hashlib
import json
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.types import TASKS, Message

STRATEGY_SECTIONS = ("iterative", "direct", "setwise")
_PLACEHOLDERS = frozenset(("query", "candidates", "count", "noun", "nouns"))
_CANDIDATE_PLACEHOLDERS = frozenset(("identifier", "text"))
_KEYS = frozenset(("name", "candidate", "separator", "empty", "nouns", *STRATEGY_SECTIONS))


@dataclass(frozen=True)
class Wording:
    """The turns of one strategy's prompt; `system` may be empty."""

    system: str
    user: str


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Args:
        name: for traces and errors.
        wordings: strategy name to its turns.
        candidate: one candidate's line, with `{identifier}` and `{text}`.
        separator: what stands between candidates.
        empty: what is shown for a candidate without text.
        nouns: task to its singular and plural noun.
    """

    name: str
    wordings: Mapping[str, Wording]
    candidate: str
    separator: str
    empty: str
    nouns: Mapping[str, tuple[str, str]]

    def digest(self) -> str:
        """A hash of everything that shapes a prompt: 16 hexadecimal digits of SHA-256."""
        content = {
            "wordings": {name: [wording.system, wording.user] for name, wording in self.wordings.items()},
            "candidate": self.candidate,
            "separator": self.separator,
            "empty": self.empty,
            "nouns": {task: list(pair) for task, pair in self.nouns.items()},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def render(self, strategy: str, query: str, candidates: str, count: int, task: str) -> tuple[Message, ...]:
        """Fills one strategy's turns.

        Args:
            strategy: `iterative`, `direct` or `setwise`.
            query: the neutralised query.
            candidates: the rendered candidate lines.
            count: how many there are.
            task: which nouns to use.

        Returns:
            The turns, system first where there is one.

        Raises:
            InputError: if the template has no wording for the strategy.
        """
        if strategy not in self.wordings:
            offered = ", ".join(self.wordings)
            raise InputError(f"template {self.name!r} has no [{strategy}] section: it offers {offered}")
        wording = self.wordings[strategy]
        noun, nouns = self.nouns[task]
        values = {"query": query, "candidates": candidates, "count": count, "noun": noun, "nouns": nouns}
        turns = []
        if wording.system:
            turns.append(Message("system", wording.system.format(**values)))
        turns.append(Message("user", wording.user.format(**values)))
        return tuple(turns)


def _check_placeholders(where: str, text: Any, allowed: frozenset[str], required: frozenset[str]) -> None:
    if not isinstance(text, str):
        raise InputError(f"{where} is {text!r}; give a string")
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise InputError(f"{where}: {error}; write a literal brace as {{{{ or }}}}") from error
    found = {str(name) for _, name, _, _ in fields}
    if any(form or conversion for _, _, form, conversion in fields):
        raise InputError(f"{where}: a placeholder is a name in braces, without ':' or '!'")
    if unknown := found - allowed:
        offered = ", ".join(f"{{{name}}}" for name in sorted(allowed))
        raise InputError(f"{where}: unknown placeholder {{{sorted(unknown)[0]}}}; use {offered}")
    if missing := required - found:
        raise InputError(f"{where}: placeholder {{{sorted(missing)[0]}}} is missing")


def build_template(content: Mapping[str, Any], source: str) -> Template:
    """Checks a template's keys and placeholders.

    Args:
        content: the parsed TOML or JSON.
        source: where it comes from, for errors.

    Returns:
        The template.

    Raises:
        InputError: if a key is unknown, of the wrong type, or a placeholder is unknown or missing.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: the template is {content!r}; give its keys and sections")
    if unknown := set(content) - _KEYS:
        raise InputError(f"{source}: unknown key {sorted(unknown)[0]!r}; use {', '.join(sorted(_KEYS))}")
    texts = {}
    for key, default in (("name", source), ("candidate", "{identifier} {text}"), ("separator", "\n"), ("empty", "")):
        texts[key] = content.get(key, default)
        if not isinstance(texts[key], str):
            raise InputError(f"{source}: {key} is {texts[key]!r}; give a string")
    _check_placeholders(f"{source}: candidate", texts["candidate"], _CANDIDATE_PLACEHOLDERS, _CANDIDATE_PLACEHOLDERS)
    wordings = {}
    for section in STRATEGY_SECTIONS:
        if section in content:
            turns = content[section]
            if not isinstance(turns, Mapping) or not set(turns) <= {"system", "user"} or "user" not in turns:
                raise InputError(f"{source}: section [{section}] needs the key user, may have system, and nothing else")
            _check_placeholders(f"{source}: [{section}] system", turns.get("system", ""), _PLACEHOLDERS, frozenset())
            needed = frozenset(("query", "candidates"))
            _check_placeholders(f"{source}: [{section}] user", turns["user"], _PLACEHOLDERS, needed)
            wordings[section] = Wording(turns.get("system", ""), turns["user"])
    if not wordings:
        raise InputError(f"{source}: no section [iterative], [direct] or [setwise]: a template needs at least one")
    nouns: dict[str, tuple[str, str]] = {task: (task, f"{task}s") for task in TASKS}
    own_nouns = content.get("nouns", {})
    if not isinstance(own_nouns, Mapping):
        raise InputError(f"{source}: nouns is {own_nouns!r}; give a section of tasks and their nouns")
    for task, pair in own_nouns.items():
        if task not in nouns or not isinstance(pair, list) or [type(noun) for noun in pair] != [str, str]:
            raise InputError(f"{source}: nouns.{task} = {pair!r}; give [singular, plural] for {', '.join(TASKS)}")
        nouns[task] = (pair[0], pair[1])
    return Template(wordings=wordings, nouns=nouns, **texts)


def load_template(path: str | Path | None = None) -> Template:
    """Reads a template file.

    Args:
        path: a TOML file; `None` for the project's own template.

    Returns:
        The template.

    Raises:
        InputError: if the file is missing or malformed.
    """
    if path is None:
        text, source = resources.files(__package__).joinpath("default.toml").read_text(encoding="utf-8"), "default.toml"
    else:
        source = str(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"template {source!r} can't be read ({error.strerror}): give a TOML file") from error
        except UnicodeDecodeError as error:
            raise InputError(f"template {source!r} is not UTF-8 text ({error}): give a TOML file") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"template {source!r} is not valid TOML: {error}") from error
    return build_template(content, source)
