"""The verb `r1ranker serve`: rankers behind HTTP, for clients of Cohere, Jina and text-embeddings-inference."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.cli.ranker_options import RankerChoice, StatedOptions
from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.option_fields import option
from r1ranker_ir.serving.limits import ServiceLimits
from r1ranker_ir.serving.listening import Listening

if TYPE_CHECKING:
    from r1ranker_ir.rankers.source import RankerSource

KEYS = "R1RANKER_API_KEYS"


@with_fields
def serve(
    *,
    reranker: list[str] | None = option(
        None,
        "NAME=RERANKER, or a reranker alone: as of rerank, a registered name, a published system, or with --strategy "
        "any model; repeatable. Requests choose by NAME; those that name none get the first. The options of models, "
        "ranking and limits hold for all.",
        group="Model",
        unset="those of --rerankers",
        metavar="[NAME=]RERANKER",
    ),
    rerankers: Path | None = option(
        None, "YAML file of rerankers, each with options of its own, as of shootout.", group="Model", unset="none"
    ),
    choice: RankerChoice,
    options: StatedOptions,
    limits: ServiceLimits,
    fallback: bool = option(
        False, "When a model fails, answer with the order of the input, marked, in place of an error.", group="Engine"
    ),
    listening: Listening,
    messages: Messages = MESSAGES,
) -> None:
    """Serve rerankers over HTTP: /v1/rerank (Jina, Cohere), /v2/rerank (Cohere) and /rerank (TEI).

    Clients show a key of the environment variable R1RANKER_API_KEYS (several by commas); without it all are let in.
    Logs are JSON lines on standard error, without texts; with --verbose they hold the words of errors. SIGTERM ends
    the service once what was accepted is finished.
    """
    sources = {**_named(reranker or [], choice, options), **_of_file(rerankers)}
    if not sources:
        raise typer.BadParameter("give at least one reranker, or a file of --rerankers", param_hint="--reranker")
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_extra("The service", "serve", error) from error
    from r1ranker_ir.serving.logs import json_logs
    from r1ranker_ir.serving.running import run_service
    from r1ranker_ir.serving.service import Service

    if messages.verbose and messages.quiet:
        raise typer.BadParameter("choose one of --verbose and --quiet", param_hint="--quiet")
    os.environ.setdefault("TQDM_DISABLE", "1")
    keys = [key for each in os.environ.get(KEYS, "").split(",") if (key := each.strip())]
    service = Service(sources, limits, fallback=fallback, keys=keys)
    with json_logs(verbose=messages.verbose, quiet=messages.quiet):
        run_service(service, listening, _announce)


def _announce(url: str) -> None:
    fields = {"fields": {"url": url}}
    logging.getLogger(__name__).warning("listening", extra=fields)


def _named(words: list[str], choice: RankerChoice, options: StatedOptions) -> dict[str, RankerSource]:
    found: dict[str, RankerSource] = {}
    for word in words:
        name, equals, reranker = word.partition("=")
        if not equals or Path(word).exists():
            name, reranker = word, word
        if not name.strip() or name in found:
            raise typer.BadParameter(f"{word!r} has no name of its own: use NAME=RERANKER", param_hint="--reranker")
        found[name.strip()] = choice.source(reranker, options)
    return found


def _of_file(path: Path | None) -> dict[str, RankerSource]:
    if path is None:
        return {}
    from r1ranker_ir.eval.shootouts.entries import ORACLE, Entry, read_entries
    from r1ranker_ir.rankers.source import ranker_source

    found = {}
    for entry in read_entries(str(path)):
        if not isinstance(entry, Entry) or entry.model == ORACLE:
            raise InputError(f"{path}: {entry.name!r} is a cascade or an oracle, which can't be served: drop it")
        found[entry.name] = ranker_source(entry.model, entry.strategy, entry.options)
    return found
