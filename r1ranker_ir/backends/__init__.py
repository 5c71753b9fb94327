"""Inference backends: where calls become answers."""

from __future__ import annotations

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
    opened: Any = backend_class(name)
    accepted = opened.__init__.__annotations__
    if unknown := [option for option in options if option not in accepted]:
        offered = ", ".join(option for option in accepted if option not in ("model", "return"))
        raise InputError(f"backend {name!r} has no option {unknown[0]!r}: it takes {offered}")
    backend: Backend = opened(model, **options)
    return backend
