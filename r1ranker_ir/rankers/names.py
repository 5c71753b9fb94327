"""The names that this package answers to, and what each of them stands for."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from r1ranker_ir.doors import Derived
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import DEFAULT_CHECKPOINT, SMALL_LIKELIHOOD, TINY_CHECKPOINT
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.strategies import STRATEGIES

MODEL_VARIABLE = "R1RANKER_MODEL"
"""Environment variable that replaces the default checkpoint."""

_OURS = re.compile(r"r1[-_ ]?ranker([-_ ]|$)", re.IGNORECASE)


class NameChoiceError(InputError):
    """A reranker's name, a model and a strategy do not go together; `argument` is the one that has to change."""

    def __init__(self, message: str, argument: Literal["reranker", "model", "strategy"] = "reranker") -> None:
        super().__init__(message)
        self.argument = argument


@dataclass(frozen=True)
class RegisteredName:
    """The strategy and checkpoint of a name; `fixed` is what the checkpoint is called where no other may replace it."""

    strategy: str
    checkpoint: str
    fixed: str = ""


_FIXED = MappingProxyType({"tiny": "the embedded model", "small": "the small model"})
"""How names end that take no other model, and what they mean."""


def _registered() -> Mapping[str, RegisteredName]:
    default = {f"r1ranker-{name}": RegisteredName(name, DEFAULT_CHECKPOINT) for name in STRATEGIES}
    embedded = os.fspath(TINY_CHECKPOINT)
    tiny = {f"r1ranker-{name}-tiny": RegisteredName(name, embedded, _FIXED["tiny"]) for name in ("iterative", "direct")}
    # Of the strategies the small model is fit for this one alone, see docs/small-model.md.
    small = {"r1ranker-likelihood-small": RegisteredName("likelihood", os.fspath(SMALL_LIKELIHOOD), _FIXED["small"])}
    return default | tiny | small


REGISTERED: Mapping[str, RegisteredName] = Derived(_registered)
"""The names: each strategy with the default checkpoint, and those that the embedded and the small model are fit for."""


def is_family(name: str) -> bool:
    """Whether a name stands for a published system, such as `rank-r1`; case does not matter."""
    return name.lower() in FAMILY


def is_registered(name: str) -> bool:
    """Whether `resolve` knows a name; case does not matter."""
    return name.lower() in REGISTERED


def refuse_unknown(name: str | os.PathLike[str]) -> None:
    """Refuses what begins as our names do and is not one of them, before anyone takes it for a model of the hub.

    A folder or a file is a model, whatever it is called.
    """
    said = os.fspath(name)
    if not _OURS.match(said) or is_registered(said) or "/" in said or os.path.exists(said):
        return
    raise unknown_name(said)


def unknown_name(name: str) -> NameChoiceError:
    """The error for a name that nobody answers to, with the names that there are and the closest one."""
    known = [*REGISTERED, *FAMILY]
    wanted = name.lower().replace("_", "-").replace(" ", "-")
    close = difflib.get_close_matches(wanted, known, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    plain, _, size = wanted.rpartition("-")
    if size in _FIXED and plain in REGISTERED:
        followed = [entry.strategy for entry in REGISTERED.values() if entry.fixed == _FIXED[size]]
        several = "strategies" if len(followed) > 1 else "strategy"
        meant = (
            f"{_FIXED[size]} follows the {several} {' and '.join(followed)} alone, so use {plain!r} with a model of "
            "your own. "
        )
    return NameChoiceError(f"reranker {quoted(name)} is not a registered name: {meant}The names are {', '.join(known)}")


def resolve(name: str, model: str | os.PathLike[str] | None = None) -> tuple[str, str]:
    """Finds the checkpoint and the strategy of a registered name; case does not matter.

    The checkpoint is `model`, else the environment variable `R1RANKER_MODEL`, else the default. The names that end in
    `-tiny` or `-small` always mean one model. A `NameChoiceError` if a name is unknown, or `model` can't be one.
    """
    registered = REGISTERED.get(name.lower())
    if registered is None:
        raise unknown_name(name)
    wanted = given_model(model)
    if not registered.fixed:
        return wanted or os.environ.get(MODEL_VARIABLE, "").strip() or registered.checkpoint, registered.strategy
    if wanted is not None and os.path.realpath(wanted) != os.path.realpath(registered.checkpoint):
        raise NameChoiceError(
            f"{name!r} always means {registered.fixed}, but model={wanted!r} was given: use "
            f"'r1ranker-{registered.strategy}' with that model",
            "model",
        )
    return registered.checkpoint, registered.strategy


def given_model(model: str | os.PathLike[str] | None) -> str | None:
    """A model as a caller names it; a `NameChoiceError` if that can't be one."""
    if model is None:
        return None
    wanted = os.fspath(model)
    if not wanted.strip():
        raise NameChoiceError("model= is blank: give a Hugging Face name or a folder, or leave it out", "model")
    refuse_unknown(wanted)
    return wanted
