"""The rerankers of a shoot-out as a YAML file names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from r1ranker_ir.backends import BACKENDS, DEFAULT_BACKEND
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.records import Record, checked_record
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.files.yaml_text import parse_yaml
from r1ranker_ir.option_fields import number_or_none
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.source import find_ranker, ranker_source
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.checks import check_options_of

from .option_values import check_values, ranker_hints

SHOOTOUTS = Path(__file__).parent
"""The folder of the packaged files."""
FIRST_STAGE = "first stage"
"""The name of the row that no reranker has touched."""
ORACLE = "oracle"

_NOT_IN_NAMES = re.compile(r"[^\w.,=+-]+")
_NAMING = {**dict.fromkeys(("name", "reranker", "model", "strategy"), str | None), ORACLE: Any}
_NONE_SAYS = ("shuffle_seed", "seed", "temperature")
# Answers from a file would take no time, weights in memory can't be named, and the oracle's knowledge is the corpus's.
_NOT_HERE = {"self", "model", "strategy", "progress", "cache", "system", "loaded", "gains", "more", "return"}


@dataclass(frozen=True)
class Entry:
    """One reranker."""

    name: str
    model: str  # a checkpoint, a server's name for one, or oracle
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)  # Ranker's other arguments


@dataclass(frozen=True)
class CascadeEntry:
    """Two rerankers, of which the second one is given the top of the first one's order."""

    name: str
    first: Entry
    second: Entry
    depth: int = 20  # of the top
    options: Mapping[str, Any] = field(default_factory=dict)  # max_calls and max_tokens of both together


class _Errors(Record):
    """Of the oracle: what stands under its name."""

    noise: float = 0.0
    noise_growth: float = 0.0
    seed: int = 0


class _Pair(Record):
    first: str
    second: str
    depth: Annotated[int, Field(ge=2)] = 20


class _Cascade(Record):
    name: str
    cascade: _Pair
    max_calls: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None


def run_file(name: str) -> str:
    """The file of a reranker's run: its name without what file systems and shells refuse."""
    return f"{_NOT_IN_NAMES.sub('_', name)}.trec"


def shootout_names() -> list[str]:
    """The names of the packaged files."""
    return sorted(path.stem for path in SHOOTOUTS.glob("*.yaml"))


def read_entries(name: str) -> tuple[Entry | CascadeEntry, ...]:
    """Reads the rerankers of a YAML file, or of a packaged one's name, in its order.

    Each entry has a `name` and one of: `reranker`, a registered name, a published system's, or with `strategy` any
    model, perhaps with a `model` in place of the name's own; `oracle`, a mapping of `noise`, `noise_growth` and `seed`,
    with `strategy`; or `cascade`, a mapping of `first` and `second`, the names of two other entries, and `depth`.
    Further keys are arguments of `Ranker` and of the backend. Errors name file, entry and key.
    """
    path = _find(name)
    text = read_small_text(path, str(path), "give a YAML file with a list of rerankers")
    content = parse_yaml(text, str(path), feature="A list of rerankers", extra="eval")
    if not isinstance(content, list) or not content:
        raise InputError(f"{path}: give a list of rerankers, each with a name, such as\n- name: mine\n  reranker: …")
    named: dict[str, Mapping[str, Any]] = {}
    for number, given in enumerate(content, 1):
        where = f"{path}: entry {number}"
        if not isinstance(given, dict):
            raise InputError(f"{where} is {given!r}: give a mapping with a name and a reranker")
        if not isinstance(title := given.get("name"), str) or not title.strip():
            raise InputError(f"{where}: name is {title!r}: give a text")
        if alike := [other for other in (FIRST_STAGE, *named) if run_file(other) == run_file(title)]:
            raise InputError(f"{where}: {title!r} is too much like {alike[0]!r}: choose another name")
        named[title] = given
    places = {title: f"{path}: entry {title!r}" for title in named}
    entries = {title: _read_entry(given, places[title]) for title, given in named.items() if "cascade" not in given}
    return tuple(entries.get(title) or _read_cascade(given, entries, places[title]) for title, given in named.items())


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    packaged = SHOOTOUTS / f"{name.removesuffix('.yaml')}.yaml"
    if path.name == name and packaged.is_file():
        return packaged
    known = ", ".join(shootout_names())
    raise InputError(
        f"list of rerankers {name!r} is not a file: give a YAML file, or one of the packaged ones: {known}"
    )


def _read_entry(given: Mapping[str, Any], where: str) -> Entry:
    backend = ORACLE if ORACLE in given else given.get("backend", DEFAULT_BACKEND)
    if backend not in BACKENDS or (backend == ORACLE and ORACLE not in given):
        others = ", ".join(name for name, each in BACKENDS.items() if each.offered)
        raise InputError(f"{where}: backend is {quoted(backend)}: use one of {others}, or oracle: {{noise: 0.5}}")
    if isinstance(seed := given.get("shuffle_seed"), str):
        given = {**given, "shuffle_seed": number_or_none(int, f"{where}: shuffle_seed")(seed)}
    left_out = {*_NOT_HERE, *_Errors.model_fields, "backend"} if backend == ORACLE else _NOT_HERE
    accepted = {name: hint for name, hint in ranker_hints(backend).items() if name not in left_out}
    check_values(given, {**accepted, **_NAMING}, where)
    # What is left empty is the default, but where None itself says something else than the default.
    kept = {key for key in given if given[key] is not None or key in _NONE_SAYS}
    options = {key: value for key, value in given.items() if key in accepted and key in kept}
    reranker, model, strategy = (given.get(key) for key in ("reranker", "model", "strategy"))
    try:
        if ORACLE in given:
            if also := [key for key in ("reranker", "model", "backend") if key in given]:
                raise InputError(f"the oracle stands in place of a model: drop {also[0]}, or drop oracle")
            if strategy is None:
                raise InputError(f"the oracle needs a strategy: use one of {', '.join(STRATEGIES)}")
            errors = checked_record(_Errors, {} if given[ORACLE] is None else given[ORACLE], ORACLE)
            options |= {"backend": ORACLE, **errors.model_dump(exclude_unset=True)}
            found = ranker_source(ORACLE, strategy, options)
        else:
            name = reranker or model
            if name is None:
                raise InputError("it names no model: give reranker, model or oracle")
            found = find_ranker(name, model if reranker else None, strategy, options)
            options |= found.stated()
        check_options_of(found.strategy, found.options)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Entry(given["name"], found.model, found.strategy, options)


def _read_cascade(given: Mapping[str, Any], entries: Mapping[str, Entry], where: str) -> CascadeEntry:
    said = checked_record(_Cascade, given, where)
    asked, limits = said.cascade, said.model_dump(include={"max_calls", "max_tokens"}, exclude_none=True)
    for key, name in (("first", asked.first), ("second", asked.second)):
        if name not in entries:
            known = ", ".join(map(repr, entries)) or "none: add some"
            raise InputError(f"{where}: field 'cascade.{key}' is {quoted(name)}: name another entry, one of {known}")
    return CascadeEntry(said.name, entries[asked.first], entries[asked.second], asked.depth, limits)
