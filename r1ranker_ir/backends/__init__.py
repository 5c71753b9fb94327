"""Inference backends: where calls become answers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from r1ranker_ir.errors import InputError

from .base import Backend

BACKENDS = ("transformers", "openai", "oracle")


def backend_class(name: str) -> type[Backend]:
    """Finds a backend by name; its dependencies are imported only now.

    Args:
        name: `transformers`, `openai` or `oracle`.

    Returns:
        What is called with the model and the backend's own arguments.

    Raises:
        InputError: if the name is unknown.
        MissingExtraError: if its dependencies are not installed.
    """
    if name == "transformers":
        from .local import TransformersBackend

        return TransformersBackend
    if name == "openai":
        from .openai import OpenAIBackend

        return OpenAIBackend
    if name == "oracle":
        from .oracle import OracleBackend

        return OracleBackend
    raise InputError(f"backend is {name!r}: use one of {', '.join(BACKENDS)}")


def check_options(name: str, options: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuses arguments that a backend does not take; its dependencies are imported.

    Args:
        name: the backend.
        options: names of arguments.
        others: names that the caller would have taken itself, to find what is meant.

    Raises:
        InputError: if the backend's name or an argument is unknown; it names the closest one.
        MissingExtraError: if the backend's dependencies are not installed.
    """
    taken: Any = backend_class(name)
    accepted = [option for option in taken.__init__.__annotations__ if option not in ("model", "return")]
    for option in options:
        if option not in accepted:
            close = difflib.get_close_matches(option, [*others, *accepted], 1)
            meant = f"did you mean {close[0]!r}? It" if close else "it"
            raise InputError(f"backend {name!r} has no option {option!r}: {meant} takes {', '.join(accepted)}")


def open_backend(name: str, model: str, **options: Any) -> Backend:
    """Opens a backend by name; its dependencies are imported only now.

    Args:
        name: `transformers`, `openai` or `oracle`.
        model: what it is to run or to ask for.
        options: the backend's own arguments.

    Returns:
        The backend.

    Raises:
        InputError: if the name or an option is unknown.
        MissingExtraError: if its dependencies are not installed.
        CheckpointError: if the model can't be loaded.
    """
    check_options(name, options)
    opened: Any = backend_class(name)
    backend: Backend = opened(model, **options)
    return backend
