"""TRL's parser of arguments, with recipes whose keys and values are checked as those of the command line are."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from trl import TrlParser

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

_OUR_PACKAGE = "r1ranker_ir."
_MATCHES = 3


class CommandLineError(InputError):
    """The command line itself can't be understood."""


class RecipeParser(TrlParser):  # type: ignore[misc]  # TRL's types are not all there
    """TRL's parser, which checks the values of a recipe as it does those of the command line."""

    def __init__(self, dataclass_types: Sequence[type], *, prog: str, description: str) -> None:
        # An abbreviation would hide a misspelt name behind one that only begins alike.
        super().__init__(list(dataclass_types), prog=prog, description=description, allow_abbrev=False)
        self.recipe = ""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print and exit with."""
        raise CommandLineError(message)

    def _kinds(self) -> dict[str, tuple[Any, ...]]:
        """The types that each argument may have."""
        kinds: dict[str, tuple[Any, ...]] = {}
        for dtype in self.dataclass_types:
            for name, hint in typing.get_type_hints(dtype).items():
                union = typing.get_origin(hint) in (typing.Union, types.UnionType)
                parts = typing.get_args(hint) if union else (hint,)
                kinds[name] = tuple(typing.get_origin(part) or part for part in parts)
        return kinds

    def _named(self) -> dict[str, argparse.Action]:
        # A flag that is on by default has a complement of the same name, after it.
        return {action.dest: action for action in reversed(self._actions) if action.dest != "help"}

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """Takes a recipe's values as defaults."""
        named, kinds = self._named(), self._kinds()
        values = {}
        for key, value in kwargs.items():
            if key not in named:
                raise InputError(f"recipe {self.recipe!r}: unknown key {key!r}{close_to(key, named)}")
            values[key] = self._converted(key, value, named[key], kinds.get(key, (str,)))
        remaining: list[str] = super().set_defaults_with_config(**values)
        return remaining

    def _converted(self, key: str, value: Any, action: argparse.Action, kinds: tuple[Any, ...]) -> Any:
        def refuse(why: str) -> NoReturn:
            raise InputError(f"recipe {self.recipe!r}: {key} is {quoted(value)}: {why}")

        if value is None:
            return None if type(None) in kinds else refuse("it can't be left empty")
        if isinstance(value, dict):
            return value if dict in kinds else refuse("no mapping goes here")
        convert = action.type if callable(action.type) else str

        def one(part: Any) -> Any:
            if isinstance(part, list | dict) or part is None:
                refuse("give single values")
            try:
                converted = convert(str(part))
            except (ValueError, TypeError, argparse.ArgumentTypeError):
                refuse(f"give {_a_value_of(action.type)}")
            if action.choices is not None and converted not in action.choices:
                refuse(f"choose among {', '.join(map(str, action.choices))}")
            return converted

        if isinstance(value, list):
            return [one(part) for part in value] if list in kinds else refuse("give one value, not a list")
        return [one(value)] if action.nargs == "+" else one(value)

    def format_help(self) -> str:
        """The help, this project's own arguments before TRL's and transformers'."""
        ours, theirs = set[str](), set[str]()
        sections: list[tuple[str, set[str]]] = []
        for dtype in self.dataclass_types:
            names = {each.name for each in dataclasses.fields(dtype)}
            inherited = {
                each.name
                for parent in dtype.__mro__[1:]
                if dataclasses.is_dataclass(parent) and not parent.__module__.startswith(_OUR_PACKAGE)
                for each in dataclasses.fields(parent)
            }
            theirs |= inherited
            ours |= names - inherited
            sections.append((f"{_words(dtype.__name__)} of r1ranker", names - inherited))
        sections.append(("arguments of TRL and transformers", theirs - ours))
        formatter = self._get_formatter()
        formatter.add_usage(f"{self.prog} [--config RECIPE] [--ARGUMENT VALUE ...]", [], [])
        formatter.add_text(self.description)
        for title, names in sections:
            formatter.start_section(title)
            formatter.add_arguments([action for action in self._actions if action.dest in names])
            formatter.end_section()
        text: str = formatter.format_help()
        return text


def _a_value_of(kind: Any) -> str:
    kinds = {"int": "a whole number", "float": "a number", "string_to_bool": "true or false"}
    name = getattr(kind, "__name__", str(kind))
    return kinds.get(name, f"a value of type {name}")


def _words(name: str) -> str:
    """`ModelArguments` as `model arguments`, `RankingGRPOConfig` as `GRPO arguments`."""
    if name.endswith("Config"):
        return f"{name.removeprefix('Ranking').removesuffix('Config')} arguments"
    return name.lower().replace("arguments", " arguments")


def close_to(name: str, known: Iterable[str]) -> str:
    """Asks for the names that are close to an unknown one, if there are any."""
    matches = difflib.get_close_matches(name, list(known), _MATCHES)
    return f": did you mean {' or '.join(matches)}?" if matches else ""
