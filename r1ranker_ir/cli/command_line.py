"""The command line that a result is made with, as it is written beside the result."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def command_words(ctx: typer.Context, *, left_out: Collection[str] = ()) -> list[str]:
    """The command line of a verb as it was given, in a fixed order, and without secrets."""
    from r1ranker_ir.backends.endpoint import find_endpoint

    words = ["r1ranker", str(ctx.command.name)]
    for parameter in ctx.command.params:
        named, value = parameter.name or "", ctx.params.get(parameter.name or "")
        given = ctx.get_parameter_source(named)
        if named in left_out or given is None or given.name != "COMMANDLINE":
            continue
        if named == "base_url":
            value = find_endpoint(str(value)).base_url
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif value is True:
            words.append(parameter.opts[0])
        else:
            words += [parameter.opts[0], str(value)]
    return words
