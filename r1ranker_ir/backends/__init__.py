"""Inference backends: where calls become answers."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from r1ranker_ir.doors import Door
from r1ranker_ir.errors import InputError

from .base import Backend
from .declaration import Capabilities as Capabilities
from .declaration import DeclaredBackend as DeclaredBackend

DEFAULT_BACKEND = "transformers"
BACKENDS: Door[DeclaredBackend] = Door(
    DeclaredBackend, "r1ranker_ir.backends", "r1ranker_ir.backends.declared", "backend"
)
"""Backends by name: the modules of `backends.declared`, and entry points of installed packages."""


def declared_backend(given: object) -> DeclaredBackend:
    """Finds the declaration of a backend by its name, or makes that of one that is open already."""
    if isinstance(given, str | DeclaredBackend):
        return BACKENDS.resolve(given)
    if not isinstance(given, Backend):
        return BACKENDS.find(given)
    return DeclaredBackend(given.name, lambda: given, getattr(given, "capabilities", Capabilities()))


def backend_class(name: str) -> type[Backend]:
    """Finds a backend's class by name; its dependencies are imported only now."""
    opened: type[Backend] = BACKENDS.find(name).opens()
    return opened


def check_options(given: str | Backend | DeclaredBackend, options: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuses arguments that a backend does not take; its dependencies are imported."""
    declared = declared_backend(given)
    # A backend that is there already was told everything.
    is_open = not isinstance(given, str | DeclaredBackend)
    parameters = {} if is_open else dict(inspect.signature(declared.opens()).parameters)
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    accepted = [option for option in parameters if option != "model"]
    for option in options:
        if option not in accepted:
            close = difflib.get_close_matches(option, [*others, *accepted], 1)
            meant = f"did you mean {close[0]!r}? It" if close else "it"
            takes = "none, since it is open already" if is_open else ", ".join(accepted)
            raise InputError(f"backend {declared.name!r} has no option {option!r}: {meant} takes {takes}")


def open_backend(given: str | Backend | DeclaredBackend, model: str, **options: Any) -> Backend:
    """Opens a backend by its name or declaration; its dependencies are imported only now. An open one is given back."""
    check_options(given, options)
    if not isinstance(given, str | DeclaredBackend):
        return given
    backend: Backend = declared_backend(given).opens()(model, **options)
    return backend
