"""transformers' parser of arguments, with recipes that are checked as the command line is."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from transformers import HfArgumentParser

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.files.yaml_text import parse_yaml
from r1ranker_ir.quoting import quoted

from .recipe_files import find_recipe

_MATCHES = 3


class CommandLineError(InputError):
    """The command line itself can't be understood."""


class RecipeParser(HfArgumentParser):
    """A parser that takes its defaults from a recipe, and raises where argparse would print and exit."""

    def __init__(self, dataclass_types: Sequence[Any], *, prog: str, description: str) -> None:
        # An abbreviation would hide a misspelt name behind one that only begins alike.
        super().__init__(list(dataclass_types), prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print and exit with."""
        raise CommandLineError(message)

    def take_recipe(self, name: str) -> None:
        """Makes a recipe's values the defaults."""
        where = f"recipe {name!r}"
        text = read_small_text(find_recipe(name), where, "give a YAML file of training arguments")
        content = parse_yaml(text, where, feature="A recipe", extra="train")
        if not isinstance(content, dict):
            raise InputError(f"{where} is {quoted(content)}: it must contain a YAML mapping of training arguments")
        # A flag that is on by default has a complement of the same name, after it.
        named = {action.dest: action for action in reversed(self._actions) if action.dest != "help"}
        hints = {name: hint for dtype in self.dataclass_types for name, hint in typing.get_type_hints(dtype).items()}
        for key, value in content.items():
            if key not in named:
                raise InputError(f"{where}: unknown key {quoted(key)}{close_to(str(key), named)}")
            try:
                named[key].default = self._converted(value, named[key], hints.get(key))
            except (argparse.ArgumentError, ValueError) as error:
                problem = getattr(error, "message", None) or str(error)
                raise InputError(f"{where}: {key} is {quoted(value)}: {problem}") from error
            named[key].required = False

    def _converted(self, value: Any, action: argparse.Action, hint: Any) -> Any:
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        if value is None or isinstance(value, list | dict):
            if type(value) not in [typing.get_origin(part) or part for part in parts]:
                raise ValueError("give one value")
            if not isinstance(value, list):
                return value
        converted = [self._get_value(action, str(each)) for each in (value if isinstance(value, list) else [value])]
        for each in converted:
            self._check_value(action, each)
        return converted if isinstance(value, list) or action.nargs == "+" else converted[0]

    def format_help(self) -> str:
        """The help, this project's own arguments before TRL's and transformers'."""
        parents = [parent for dtype in self.dataclass_types for parent in dtype.__mro__ if parent is not object]
        theirs = {
            each.name
            for parent in parents
            if dataclasses.is_dataclass(parent) and not parent.__module__.startswith("r1ranker_ir.")
            for each in dataclasses.fields(parent)
        }
        formatter = self._get_formatter()
        formatter.add_usage(f"{self.prog} [--config RECIPE] [--ARGUMENT VALUE ...]", [], [])
        formatter.add_text(self.description)
        for title, of_others in (("arguments of r1ranker", False), ("arguments of TRL and transformers", True)):
            formatter.start_section(title)
            formatter.add_arguments([each for each in self._actions[1:] if (each.dest in theirs) is of_others])
            formatter.end_section()
        text: str = formatter.format_help()
        return text


def close_to(name: str, known: Iterable[str]) -> str:
    """Asks for the names that are close to an unknown one, if there are any."""
    matches = difflib.get_close_matches(name, list(known), _MATCHES)
    return f": did you mean {' or '.join(matches)}?" if matches else ""
