"""Parameters of verbs made of the fields of dataclasses, and help that lists them in groups."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import GROUPS, Offer, offer_of, offers_of

V = TypeVar("V", bound=Callable[..., None])


class StatedOf:
    """In the annotation of a mapping: it holds what the command line states of some fields, or all, of dataclasses."""

    def __init__(self, *kinds: type, only: tuple[str, ...] = ()) -> None:
        self.kinds, self.only = kinds, only


class GroupedCommand(TyperCommand):
    """A verb whose help lists its options by group, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{group: [] for group in GROUPS}}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                group = "Arguments" if parameter.param_type_name == "argument" else "Options"
                records.setdefault(getattr(parameter, "rich_help_panel", None) or group, []).append(record)
        for group, listed in records.items():
            if listed:
                with formatter.section(group):
                    formatter.write_dl(listed)


def with_fields(verb: V) -> V:
    """Lets a verb take dataclasses: each of their offered fields is a parameter on the command line.

    A parameter that is annotated with a dataclass is given an instance; one annotated by `StatedOf` a mapping of the
    fields that the command line states; others have an `option` or an `argument` as their default.
    """
    hints = get_type_hints(verb, include_extras=True)
    parameters: list[inspect.Parameter] = []
    taken: dict[str, tuple[type | None, tuple[str, ...]]] = {}
    context = "context_of_fields"
    for each in inspect.signature(verb).parameters.values():
        hint = hints[each.name]
        marks = [mark for mark in get_args(hint)[1:] if isinstance(mark, StatedOf)] if get_origin(hint) else []
        whole = hint if isinstance(hint, type) and is_dataclass(hint) else None
        if isinstance(each.default, Field) and (offer := offer_of(each.default)) is not None:
            parameters.append(_parameter(each.name, hint, each.default.default, offer))
        elif whole is not None or marks:
            mark = marks[0] if whole is None else StatedOf(whole)
            made = [made for kind in mark.kinds for made in _parameters(kind, mark.only)]
            parameters += made
            taken[each.name] = whole, tuple(one.name for one in made)
        else:
            parameters.append(each.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    # Typer fills one context only: the verb's own, where it has one.
    own = next((each.name for each in parameters if each.annotation is typer.Context), None)
    if own is None:
        parameters.append(inspect.Parameter(context, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    @functools.wraps(verb)
    def run(**given: Any) -> None:
        current: typer.Context = given.pop(context) if own is None else given[own]
        for name, (whole, names) in taken.items():
            values = {each: given.pop(each) for each in names}
            stated = {each: _told(value) for each, value in values.items() if is_stated(current, each)}
            given[name] = stated if whole is None else whole(**stated)
        verb(**given)

    del run.__wrapped__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run  # type: ignore[return-value]


def is_stated(context: typer.Context, name: str) -> bool:
    """Whether the command line gives a parameter."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_stated(context: typer.Context, names: Mapping[str, str]) -> None:
    """Refuses parameters that the command line gives and that do nothing, each for a reason."""
    for parameter in context.command.params:
        if parameter.name in names and is_stated(context, parameter.name):
            raise typer.BadParameter(names[parameter.name], param_hint=parameter.opts[0])


def command_words(ctx: typer.Context, *, left_out: Collection[str] = ()) -> list[str]:
    """The command line of a verb as it was given, without secrets; parameters that change no result are left out."""
    from r1ranker_ir.backends.endpoint import find_endpoint

    words = ["r1ranker", str(ctx.command.name)]
    for parameter in ctx.command.params:
        named, value = parameter.name or "", ctx.params.get(parameter.name or "")
        if named in left_out or not is_stated(ctx, named):
            continue
        if named == "base_url":
            value = find_endpoint(str(value)).base_url
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for each in value if isinstance(value, list | tuple) else [value]:
                said = "none" if each is None else str(each)
                words += [parameter.opts[0], json.dumps(each) if isinstance(each, Mapping) else said]
    return words


def _parameters(kind: type, only: tuple[str, ...]) -> list[inspect.Parameter]:
    hints, defaults = get_type_hints(kind), {each.name: each.default for each in fields(kind)}
    return [
        _parameter(name, hints[name], defaults[name], offer)
        for name, offer in offers_of(kind).items()
        if not only or name in only
    ]


def _parameter(name: str, hint: Any, default: Any, offer: Offer) -> inspect.Parameter:
    unset = offer.unset() if callable(offer.unset) else offer.unset
    offered: dict[str, Any] = {
        "help": offer.help() if callable(offer.help) else offer.help,
        "rich_help_panel": None if offer.group == "Options" else offer.group,
        "show_default": unset or (unset is not None and default is not ... and default is not None),
        "metavar": offer.metavar,
        "min": offer.least,
        "max": offer.most,
        "parser": None if offer.parse is None else _reader(offer.parse),
    }
    kind = hint
    if offer.parse is not None:
        kind = str | None if default is None else str
    elif offer.choices is not None:
        kind = Literal.__getitem__(tuple(offer.choices()))
    elif get_origin(hint) is tuple:  # of any length: the option is repeatable
        kind, default = list[get_args(hint)[0]] | None, None  # type: ignore[misc]
    # Without a flag of its own, a switch would get a second one to turn it off.
    flags = offer.flags or ((f"--{name.replace('_', '-')}",) if hint is bool else ())
    given = typer.Argument(**offered) if offer.argument else typer.Option(*flags, **offered)
    empty = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=empty, annotation=Annotated[kind, given])


def _told(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _reader(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        try:
            return parse(text)
        except InputError as error:
            raise typer.BadParameter(str(error)) from error

    return read
