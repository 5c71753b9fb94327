"""Dataclass fields that are options: what the command line says of each is declared beside its name and default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

Group = Literal["What", "Model", "Ranking", "Limits", "Output", "Engine"]
GROUPS: tuple[Group, ...] = ("What", "Model", "Ranking", "Limits", "Output", "Engine")
"""How `--help` groups options, in its order."""

_OFFER = "r1ranker_ir.option_fields"


@dataclass(frozen=True)
class Offer:
    """How the command line offers a field.

    Args:
        help: one sentence, or what makes it.
        group: where `--help` lists it.
        unset: what counts where it is left out, in words; needed if the default is `None`.
        flags: how it is written, if not `--name-with-dashes`.
        metavar: what its value is called.
        least: the smallest value.
        most: the largest value.
        parse: reads the text that was given; may raise an `InputError`.
        choices: gives the values that there are.
        of_backend: it is an argument of the backend.
    """

    help: str | Callable[[], str]
    group: Group = "Ranking"
    unset: str | Callable[[], str] = ""
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    parse: Callable[[str], Any] | None = None
    choices: Callable[[], Iterable[str]] | None = None
    of_backend: bool = False


def option(default: Any, help: str | Callable[[], str], **offer: Any) -> Any:
    """A field with a default that the command line offers; the rest is as for `Offer`."""
    return field(default=default, metadata={_OFFER: Offer(help, **offer)})


def offers_of(kind: type) -> dict[str, Offer]:
    """The fields of a dataclass that the command line offers."""
    return {each.name: each.metadata[_OFFER] for each in fields(kind) if _OFFER in each.metadata}


def stated(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, by name."""
    return {each.name: value for each in fields(instance) if (value := getattr(instance, each.name)) != each.default}


def number_or_none(kind: type[int] | type[float], named: str, least: float | None = None) -> Callable[[str], Any]:
    """A parser of numbers that may be left out by the word `none`."""
    wanted = "a whole number" if kind is int else "a number"

    def parse(text: str) -> int | float | None:
        if text.strip().lower() == "none":
            return None
        try:
            value = kind(text)
        except ValueError:
            raise InputError(f"{named} is {quoted(text)}: give {wanted}, or none") from None
        if least is not None and not least <= value < float("inf"):
            raise InputError(f"{named} is {quoted(text)}: give {wanted} of at least {least:g}, or none")
        return value

    return parse
