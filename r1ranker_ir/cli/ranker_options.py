"""The options of verbs that rank: which ranker, how it ranks, its limits, its cache, and the engine that runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from r1ranker_ir.backends import BACKENDS, DEFAULT_BACKEND
from r1ranker_ir.cli.options import CACHE_PLACE, listed, strategies_help
from r1ranker_ir.cli.parameters import StatedOf
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import model_option, offers_of, option
from r1ranker_ir.rankers.names import REGISTERED, NameChoiceError
from r1ranker_ir.rankers.settings import SETTINGS, RankerSettings
from r1ranker_ir.rankers.source import RankerSource, find_ranker
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.runs.cluster import RayCluster
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import RankingOptions

StatedOptions = Annotated[Mapping[str, Any], StatedOf(RankingOptions, RankerSettings)]
StatedCluster = Annotated[Mapping[str, Any], StatedOf(RayCluster)]

RERANKER = option(
    ...,
    f"{listed(REGISTERED)}; a published system, {listed(FAMILY)}, with its settings; or, with --strategy, any causal "
    "language model: a Hugging Face name, a folder, a GGUF file, or a server's name for it.",
    group="Model",
)
ENGINE = option("local", "Work in this process, or over the --workers of a Ray cluster.", group="Engine")


@dataclass(frozen=True)
class RankerChoice:
    """Which model and strategy are meant, and where answers are kept."""

    strategy: str | None = model_option(
        None, strategies_help, unset="the one of the registered name", choices=lambda: STRATEGIES
    )
    model: str | None = model_option(
        None,
        "Checkpoint in place of a registered name's own (not for the -tiny and -small ones).",
        unset="the environment variable R1RANKER_MODEL, else Qwen/Qwen2.5-3B-Instruct",
    )
    own_options: list[str] | None = option(
        None,
        "An option of an installed strategy or backend that is not listed here; repeatable.",
        group="Ranking",
        unset="none",
        flags=("--option",),
        metavar="NAME=VALUE",
    )
    cache: Path | None = option(
        None, "Where answers are kept, so that a command goes on where it stopped.", group="Output", unset=CACHE_PLACE
    )
    no_cache: bool = option(False, "Keep no answers and look for none.", group="Output")

    def source(self, reranker: str, stated: Mapping[str, Any]) -> RankerSource:
        """The ranker that is meant, not yet opened."""
        from r1ranker_ir.cache.completions import default_cache_path

        if self.cache is not None and self.no_cache:
            raise typer.BadParameter("choose one of --cache and --no-cache", param_hint="--no-cache")
        check_backend_options(stated)
        given = {**stated, "cache": None if self.no_cache else self.cache or default_cache_path()}
        try:
            found = find_ranker(reranker, self.model, self.strategy, given)
        except NameChoiceError as error:
            raise typer.BadParameter(str(error), param_hint=f"--{error.argument}") from error
        if not self.own_options:
            return found
        own = read_own_options(self.own_options, found)
        return find_ranker(reranker, self.model, self.strategy, {**given, **own})


def check_backend_options(stated: Mapping[str, Any]) -> None:
    """Refuses what is stated for a backend and only others take."""
    backend = BACKENDS.find(stated.get("backend", DEFAULT_BACKEND))
    defaults = {each.name: each.default for each in fields(RankerSettings)}
    for name, value in stated.items():
        takers = [each for each in BACKENDS.values() if name in each.own]
        hint = f"--{name.replace('_', '-')}"
        if takers and backend not in takers and value != defaults[name]:
            said = " and ".join(each.name for each in takers)
            raise typer.BadParameter(f"only --backend {said} {takers[0].own[name]}", param_hint=hint)
        if name in ("temperature", "seed") and value is None and name not in backend.capabilities.leaves_out:
            raise typer.BadParameter(f"only a server is asked without a {name}", param_hint=hint)


def read_own_options(words: Sequence[str], found: RankerSource) -> dict[str, Any]:
    """Reads `--option NAME=VALUE`: fields of a strategy's own options, and arguments of a backend."""
    from r1ranker_ir.eval.shootouts.option_values import backend_hints, check_value

    strategy, own = STRATEGIES[found.strategy], {}
    offered = {*offers_of(RankingOptions), *SETTINGS}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        try:
            if not name or not equals:
                raise InputError(f"{word!r} is not NAME=VALUE, such as depth=3")
            if name in offered:
                raise InputError(f"{name!r} has an option of its own: use --{name.replace('_', '-')}")
            hints = get_type_hints(strategy.options)
            hint = hints.get(name) or backend_hints(found.settings.declared_backend.name).get(name)
            own[name] = _value(text, hint)
            if hint is not None:
                check_value(own[name], hint, name)
        except InputError as error:
            raise typer.BadParameter(str(error), param_hint="--option") from error
    return own


def _value(text: str, hint: Any) -> Any:
    """A number, a truth value, nothing or JSON where it reads as one, unless a text is all that is taken."""
    if hint is str or (str in get_args(hint) and len(get_args(hint)) == 1):
        return text
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else "null" if text == "none" else text)
    except ValueError:
        return text


def ray_cluster(engine: str, stated: Mapping[str, Any]) -> RayCluster | None:
    """The Ray workers that share the work; `None` for this process."""
    if engine == "local":
        for name in stated:
            flags = offers_of(RayCluster)[name].flags or (f"--{name.replace('_', '-')}",)
            raise typer.BadParameter("only --engine ray has workers", param_hint=flags[0])
        return None
    if "workers" not in stated:
        raise typer.BadParameter("--engine ray needs a number of them, such as --workers 2", param_hint="--workers")
    # Ray would print messages on standard output, where the run may go; it reads this when it is imported.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        return RayCluster(**stated)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--engine ray") from error
