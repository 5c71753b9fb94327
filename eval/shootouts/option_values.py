"""Arguments of `Ranker` and its backends as a file can hold them: which there are, and what fits them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from r1ranker_ir.backends import backend_class
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import offers_of
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.settings import RankerSettings
from r1ranker_ir.strategies.options import RankingOptions


def backend_hints(backend: str) -> dict[str, Any]:
    """The types of a backend's arguments, by name."""
    return get_type_hints(vars(backend_class(backend))["__init__"])


def ranker_hints(backend: str) -> dict[str, Any]:
    """The types of the arguments of `Ranker` with a backend, by name."""
    own, offered = backend_hints(backend), offers_of(RankerSettings)
    others = {name for name, offer in offered.items() if offer.of_backend and name not in own}
    ours = {**get_type_hints(RankingOptions), **get_type_hints(RankerSettings)}
    return {**{name: hint for name, hint in ours.items() if name not in others}, **own}


def check_values(given: Mapping[Any, Any], hints: Mapping[str, Any], where: str) -> None:
    """Refuses keys that mean nothing, and says which one may be meant; and values that an argument can't take."""
    for key, value in given.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, 1)
            meant = f"did you mean {close[0]!r}?" if close else f"use {', '.join(sorted(hints))}"
            raise InputError(f"{where}: unknown key {quoted(key)}: {meant}")
        check_value(value, hints[key], f"{where}: {key}")


def check_value(value: Any, hint: Any, where: str) -> None:
    """Refuses what a file can hold and an argument can't take."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(_fits(value, kind) for kind in kinds):
        return
    wanted = dict.fromkeys(described for kind in kinds if (described := _described(kind)))
    raise InputError(f"{where} is {quoted(value)}: give {' or '.join(wanted)}")


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    kind = get_origin(kind) or kind
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    # No file holds an object that fulfils a protocol.
    return inspect.isclass(kind) and not getattr(kind, "_is_protocol", False) and isinstance(value, kind)


def _described(kind: Any) -> str:
    """What a file has to hold; empty for what it can't."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return plain.get(kind, "a mapping" if get_origin(kind) in (dict, Mapping) else "")
