"""The verbs `r1ranker cache info` and `r1ranker cache clear`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from r1ranker_ir.cli.console import MESSAGES
from r1ranker_ir.cli.options import CACHE_PLACE
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.files.byte_sizes import in_units
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import option

if TYPE_CHECKING:
    from r1ranker_ir.cache.completions import CacheInfo, CompletionsCache

cache = typer.Typer(
    help="Look at the answers that are kept between runs, or remove them.", no_args_is_help=True, rich_markup_mode=None
)

CACHE_FILE = option(None, "The cache's file.", unset=CACHE_PLACE)


@cache.command()
@with_fields
def info(cache: Path | None = CACHE_FILE) -> None:
    """Say where the cache lies, how much it holds, how old it is, and of which models."""
    MESSAGES.start()
    opened = _open_existing(cache)
    if opened is not None:
        with opened:
            for line in _lines(opened.info()):
                echo(line)


@cache.command()
@with_fields
def clear(
    model: str | None = option(None, "Only this model's answers, by a name that `cache info` shows.", unset="all"),
    cache: Path | None = CACHE_FILE,
) -> None:
    """Remove answers from the cache and give their room on the disk back."""
    MESSAGES.start()
    from r1ranker_ir.rankers.source import checkpoint_of

    opened = _open_existing(cache)
    if opened is not None:
        with opened:
            removed = opened.clear(None if model is None else checkpoint_of(model))
            echo(f"{removed} answers removed, {opened.info().entries} left in {opened.path}")


def _open_existing(path: Path | None) -> CompletionsCache | None:
    """Opens the cache; one that does not exist is reported and not made."""
    from r1ranker_ir.cache.completions import default_cache_path, open_cache

    chosen = path or default_cache_path()
    if not os.path.lexists(chosen):
        echo(f"there is no cache at {chosen} yet")
        return None
    return open_cache(chosen)


def _lines(info: CacheInfo) -> list[str]:
    lines = [
        f"path     {info.path}",
        f"format   {info.format}",
        f"answers  {info.entries}",
        f"size     {in_units(info.file_bytes)} of at most {in_units(info.max_bytes)}",
    ]
    if info.oldest_use is not None and info.newest_use is not None:
        lines.append(f"used     {info.oldest_use:%Y-%m-%d %H:00} to {info.newest_use:%Y-%m-%d %H:00} UTC")
    width = max((len(str(model.entries)) for model in info.models), default=0)
    return lines + [f"{model.entries:>{width}} of {model.name} {model.version}".rstrip() for model in info.models]
