"""Makes `rerankers.Reranker` answer to the names of this package."""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Any

import wrapt

from r1ranker_ir.rankers.names import REGISTERED as REGISTERED
from r1ranker_ir.rankers.names import is_family, is_registered, refuse_unknown
from r1ranker_ir.rankers.names import resolve as resolve
from r1ranker_ir.rankers.source import find_ranker as find_ranker
from r1ranker_ir.rankers.systems import FAMILY

logger = logging.getLogger(__name__)

_FACTORY_MODULE = "rerankers.reranker"
# rerankers has a class of its own by this name, which goes on answering to it unless our arguments are given.
_SHARED, _THEIRS = "rankgpt", "RankGPTRanker"
_WRAPPED = "__knows_r1ranker_names__"


def register_when_imported() -> None:
    """Registers the names now if `rerankers` is loaded, else as soon as it is."""
    wrapt.register_post_import_hook(lambda module: register(), _FACTORY_MODULE)


def register() -> None:
    """Makes `rerankers.Reranker` know the names; calling it again changes nothing.

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


def _offer(factory: Any) -> None:
    for name in (*REGISTERED, *FAMILY):
        factory.AVAILABLE_RANKERS[name] = _opener(name)


@functools.cache
def _opener(name: str) -> Any:
    return functools.partial(_open, name)


def _open(name: str, /, *arguments: Any, **options: Any) -> Any:
    if name == _SHARED and "backend" not in options:
        factory: Any = importlib.import_module(_FACTORY_MODULE)
        # A KeyError is what rerankers expects where its own class's dependencies are missing.
        return factory.AVAILABLE_RANKERS[_THEIRS](*arguments, **options)
    # Our classes derive from one of rerankers, which is still being imported while the names are registered.
    from r1ranker_ir.integrations.rerankers import FAMILY_RERANKERS, RERANKERS

    kind: Any = FAMILY_RERANKERS[name] if name in FAMILY else RERANKERS[REGISTERED[name].strategy]
    return kind(*arguments, **options)


def _with_our_names(choose: Any, factory: Any) -> Any:
    @functools.wraps(choose)
    def choose_model_type(model_name: Any, explicit_model_type: Any = None) -> str:
        asked = explicit_model_type or model_name
        # A strategy or a system may have been added since.
        _offer(factory)
        if isinstance(asked, str):
            ours = is_family(asked) and (explicit_model_type or asked.lower() != _SHARED)
            if is_registered(asked) or ours:
                return asked.lower()
            refuse_unknown(asked)
        model_type: str = choose(model_name, explicit_model_type)
        return model_type

    setattr(choose_model_type, _WRAPPED, True)
    return choose_model_type
