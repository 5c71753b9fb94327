"""The names under which `rerankers.Reranker` finds this package, and what each of them stands for."""

from __future__ import annotations

import difflib
import functools
import importlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

import wrapt

from r1ranker_ir.doors import Derived
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.models.checkpoints import DEFAULT_CHECKPOINT, SETTINGS_FILE, TINY_CHECKPOINT
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.systems import FAMILY, family_options
from r1ranker_ir.strategies import STRATEGIES

logger = logging.getLogger(__name__)

MODEL_VARIABLE = "R1RANKER_MODEL"
"""Environment variable that replaces the default checkpoint."""

_FACTORY_MODULE = "rerankers.reranker"
# rerankers has a class of its own by this name, which goes on answering to it unless our arguments are given.
_SHARED, _THEIRS = "rankgpt", "RankGPTRanker"
_OURS = re.compile(r"r1[-_ ]?ranker([-_ ]|$)", re.IGNORECASE)
_WRAPPED = "__knows_r1ranker_names__"


@dataclass(frozen=True)
class RegisteredName:
    """What a name stands for.

    Args:
        strategy: the ranking program, one of `STRATEGIES`.
        checkpoint: the default checkpoint; `None` for the one that the package carries.
    """

    strategy: str
    checkpoint: str | None


@functools.cache
def _embedded_strategies() -> tuple[str, ...]:
    """Those that the embedded model follows."""
    settings = parse_json((TINY_CHECKPOINT / SETTINGS_FILE).read_text(encoding="utf-8"))
    return tuple(settings["strategies"])


def _registered() -> Mapping[str, RegisteredName]:
    default = {f"r1ranker-{name}": RegisteredName(name, DEFAULT_CHECKPOINT) for name in STRATEGIES}
    return default | {f"r1ranker-{name}-tiny": RegisteredName(name, None) for name in _embedded_strategies()}


REGISTERED: Mapping[str, RegisteredName] = Derived(_registered)
"""The names: each strategy with the default checkpoint, and those that the embedded model follows with that one."""


def is_family(name: str) -> bool:
    """Tells whether a name stands for a published system, such as `rank-r1`; case does not matter."""
    return name.lower() in FAMILY


def is_registered(name: str) -> bool:
    """Tells whether this package answers to a name.

    Args:
        name: any name; case does not matter.

    Returns:
        True if `resolve` knows it.
    """
    return name.lower() in REGISTERED


def refuse_unknown(name: str | os.PathLike[str]) -> None:
    """Refuses what looks like one of our names and is none, before anyone takes it for a model of the hub.

    Args:
        name: a reranker's or a model's name. A folder or a file is a model, whatever it is called.

    Raises:
        InputError: if it begins as our names do and is neither one of them nor a folder or a file; it says which is
            closest.
    """
    said = os.fspath(name)
    if not _OURS.match(said) or is_registered(said) or "/" in said or os.path.exists(said):
        return
    raise unknown_name(said)


def unknown_name(name: str) -> InputError:
    """The error for a reranker's name that nobody answers to, with the names that there are and the closest one."""
    known = [*REGISTERED, *FAMILY]
    wanted = name.lower().replace("_", "-").replace(" ", "-")
    close = difflib.get_close_matches(wanted, known, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    if wanted.endswith("-tiny") and wanted.removesuffix("-tiny") in REGISTERED:
        followed = " and ".join(entry.strategy for entry in REGISTERED.values() if entry.checkpoint is None)
        meant = (
            f"the embedded model follows the strategies {followed} alone, so use {wanted.removesuffix('-tiny')!r} with "
            "a model of your own. "
        )
    return InputError(f"reranker {quoted(name)} is not a registered name: {meant}The names are {', '.join(known)}")


@dataclass(frozen=True)
class FoundRanker:
    """What a name, a model and a strategy come to.

    Args:
        checkpoint: a hub name, a folder, or a server's name for a model.
        strategy: the ranking program.
        options: further arguments of `Ranker`, a published system's settings among them.
    """

    checkpoint: str
    strategy: str
    options: Mapping[str, Any]


def find_ranker(
    name: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    strategy: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> FoundRanker:
    """Finds what to run for a name, as the command line, the adapters and files of shoot-outs do.

    Args:
        name: a registered name, a published system's, or with `strategy` any model.
        model: a checkpoint in place of the name's own.
        strategy: how to use a model that is no registered name.
        options: further arguments of `Ranker`; they go before a published system's settings.

    Returns:
        Checkpoint, strategy and options.

    Raises:
        InputError: if the arguments do not go together, or the name is unknown.
    """
    said = os.fspath(name)
    if is_registered(said):
        checkpoint, own = resolve(said, model)
    elif is_family(said):
        member = FAMILY[said.lower()]
        if model is None and member.checkpoint is None:
            raise InputError(f"{said!r} works with any chat model: name one as model")
        checkpoint, own = os.fspath(model) if model is not None else str(member.checkpoint), member.strategy
        options = family_options(said.lower(), options)
    else:
        refuse_unknown(said)
        if strategy is None:
            raise InputError(
                f"{unknown_name(said)}. To use a model of that name, add a strategy: {', '.join(STRATEGIES)}"
            )
        if model is not None:
            raise InputError(f"reranker {said!r} names a model already: leave model={os.fspath(model)!r} out")
        checkpoint, own = said, strategy
    if strategy not in (None, own):
        raise InputError(f"{said!r} is the {own} strategy: leave strategy={strategy!r} out")
    return FoundRanker(checkpoint, own, options)


def resolve(name: str, model: str | os.PathLike[str] | None = None) -> tuple[str, str]:
    """Finds the checkpoint and the strategy of a registered name.

    Args:
        name: one of `REGISTERED`; case does not matter.
        model: a checkpoint instead of the default one. Without it the environment variable `R1RANKER_MODEL` is
            asked, then the default is taken. The `-tiny` names always mean the embedded model: they take no other
            one and do not ask the environment.

    Returns:
        The checkpoint (a hub name or a folder) and the strategy.

    Raises:
        InputError: if the name is unknown, `model` is blank, or a `-tiny` name is given another model.
    """
    registered = REGISTERED.get(name.lower())
    if registered is None:
        raise unknown_name(name)
    wanted = None if model is None else os.fspath(model)
    if wanted is not None and not wanted.strip():
        raise InputError("model= is blank: give a Hugging Face name or a folder, or leave it out")
    if wanted is not None and registered.checkpoint is not None:
        refuse_unknown(wanted)
    if registered.checkpoint is None:
        return _embedded_checkpoint(name, wanted, registered.strategy), registered.strategy
    return wanted or os.environ.get(MODEL_VARIABLE, "").strip() or registered.checkpoint, registered.strategy


def _embedded_checkpoint(name: str, wanted: str | None, strategy: str) -> str:
    embedded = str(TINY_CHECKPOINT)
    if wanted is not None and os.path.realpath(wanted) != os.path.realpath(embedded):
        raise InputError(
            f"{name!r} always means the embedded model, but model={wanted!r} was given: "
            f"use 'r1ranker-{strategy}' with that model"
        )
    return embedded


def register() -> None:
    """Makes `rerankers.Reranker` know the registered names; calling it again changes nothing.

    `Reranker` picks a class by looking for known substrings in the model's name and has no way to add a name, so
    the function that does the picking is wrapped: our names, in whole, are answered here, every other one there.
    """
    factory: Any = importlib.import_module(_FACTORY_MODULE)
    _offer(factory)
    # What rerankers advises to install where its own class is missing, now under the shared name, too.
    if (advice := getattr(factory, "DEPS_MAPPING", None)) is not None:
        advice.setdefault(_SHARED, advice.get(_THEIRS, "gpt"))
    choose = getattr(factory, "_get_model_type", None)
    if choose is None:
        # Raising here would break `import rerankers` for programs that only want its other models.
        logger.warning(
            "this version of rerankers picks its classes in another way, so Reranker(name) does not know %s by name: "
            "pass model_type= as well, or use r1ranker_ir.IRankerReranker and DRankerReranker",
            ", ".join(REGISTERED),
        )
    elif not getattr(choose, _WRAPPED, False):
        factory._get_model_type = _with_our_names(choose, factory)


def _open_reranker(named: str, /, *arguments: Any, **options: Any) -> Any:
    """Makes a reranker. Its class is found only now: it derives from one of rerankers, which is still being imported
    while the names are registered."""
    from r1ranker_ir.integrations.rerankers import RERANKERS

    return RERANKERS[named](*arguments, **options)


def _offer(factory: Any) -> None:
    """Says what makes the rerankers of our names."""
    for name, registered in REGISTERED.items():
        factory.AVAILABLE_RANKERS[name] = _opener(registered.strategy)
    for name in FAMILY:
        factory.AVAILABLE_RANKERS[name] = _family_opener(name)


@functools.cache
def _opener(strategy: str) -> Any:
    return functools.partial(_open_reranker, strategy)


def _open_family(name: str, /, *arguments: Any, **options: Any) -> Any:
    """Makes the reranker of a published system."""
    if name == _SHARED and "backend" not in options:
        factory: Any = importlib.import_module(_FACTORY_MODULE)
        # A KeyError is what rerankers expects where its own class's dependencies are missing.
        return factory.AVAILABLE_RANKERS[_THEIRS](*arguments, **options)
    from r1ranker_ir.integrations.rerankers import FAMILY_RERANKERS

    return FAMILY_RERANKERS[name](*arguments, **options)


@functools.cache
def _family_opener(name: str) -> Any:
    return functools.partial(_open_family, name)


def _with_our_names(choose: Any, factory: Any) -> Any:
    @functools.wraps(choose)
    def choose_model_type(model_name: Any, explicit_model_type: Any = None) -> str:
        asked = explicit_model_type or model_name
        # A strategy or a system may have been added since.
        _offer(factory)
        if isinstance(asked, str) and is_registered(asked):
            return asked.lower()
        if isinstance(asked, str) and is_family(asked) and (explicit_model_type or asked.lower() != _SHARED):
            return asked.lower()
        if isinstance(asked, str):
            refuse_unknown(asked)
        model_type: str = choose(model_name, explicit_model_type)
        return model_type

    setattr(choose_model_type, _WRAPPED, True)
    return choose_model_type


def register_when_imported() -> None:
    """Registers the names now if `rerankers` is loaded, else as soon as it is."""

    def on_import(module: ModuleType) -> None:
        register()

    wrapt.register_post_import_hook(on_import, _FACTORY_MODULE)
