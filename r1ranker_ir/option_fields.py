"""Dataclass fields that are options: what the command line says of each is declared beside its name and default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

Group = Literal["What", "Model", "Ranking", "Limits", "Output", "Engine", "Options"]
GROUPS: tuple[Group, ...] = ("What", "Model", "Ranking", "Limits", "Output", "Engine", "Options")
"""How `--help` groups options, in its order."""

_OFFER = "r1ranker_ir.option_fields"


@dataclass(frozen=True)
class Offer:
    """How the command line offers a field.

    Args:
        help: one sentence, or what makes it.
        group: where `--help` lists it.
        unset: what counts where it is left out, in words; `None` to say nothing of it.
        flags: how it is written, if not `--name-with-dashes`.
        metavar: what its value is called.
        least: the smallest value.
        most: the largest value.
        parse: reads the text that was given; may raise an `InputError`.
        choices: gives the values that there are.
        of_backend: it is an argument of the backend.
        argument: it is given by its place, without a flag.
    """

    help: str | Callable[[], str]
    group: Group = "Options"
    unset: str | Callable[[], str] | None = ""
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    parse: Callable[[str], Any] | None = None
    choices: Callable[[], Iterable[str]] | None = None
    of_backend: bool = False
    argument: bool = False


def option(default: Any, help: str | Callable[[], str], **offer: Any) -> Any:
    """A field or a verb's parameter with a default, `...` for none, that the command line offers as `Offer` says."""
    return field(default=default, metadata={_OFFER: Offer(help, **offer)})


ranking_option = partial(option, group="Ranking")
limit_option = partial(option, group="Limits")
model_option = partial(option, group="Model")
engine_option = partial(option, group="Engine")
backend_option = partial(engine_option, of_backend=True)


def argument(default: Any, help: str, **offer: Any) -> Any:
    """As `option`, for what is given by its place."""
    return option(default, help, argument=True, **offer)


def offer_of(given: Field[Any]) -> Offer | None:
    """What the command line offers of a field, if anything."""
    offer: Offer | None = given.metadata.get(_OFFER)
    return offer


def offers_of(kind: type) -> dict[str, Offer]:
    """The fields of a dataclass that the command line offers."""
    return {each.name: offer for each in fields(kind) if (offer := offer_of(each)) is not None}


def stated(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, by name."""
    return {each.name: value for each in fields(instance) if (value := getattr(instance, each.name)) != each.default}


def check_offered(instance: Any) -> None:
    """Raises an InputError if a field of a dataclass is less or more than it may be, or not a word that it may be."""
    for name, offer in offers_of(type(instance)).items():
        value, least, most = getattr(instance, name), offer.least, offer.most
        if least is not None and value is not None and value < least:
            raise InputError(f"{name} is {value}: give at least {least:g}")
        if most is not None and value is not None and value > most:
            raise InputError(f"{name} is {value}: give at most {most:g}")
    for name, hint in get_type_hints(type(instance)).items():
        words = [word for part in (hint, *get_args(hint)) if get_origin(part) is Literal for word in get_args(part)]
        value = getattr(instance, name)
        if words and value not in words and not (value is None and type(None) in get_args(hint)):
            raise InputError(f"{name} is {value!r}: use {' or '.join(words)}")


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
