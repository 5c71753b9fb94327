"""Inference backends: where calls become answers."""

from __future__ import annotations

from typing import Any

from r1ranker_ir.errors import InputError

from .base import Backend

BACKENDS = ("transformers", "openai", "oracle")


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
    if name == "transformers":
        from .local import TransformersBackend as backend_class
    elif name == "openai":
        from .openai import OpenAIBackend as backend_class  # type: ignore[assignment]
    elif name == "oracle":
        from .oracle import OracleBackend as backend_class  # type: ignore[assignment]
    else:
        raise InputError(f"backend is {name!r}: use one of {', '.join(BACKENDS)}")
    accepted = backend_class.__init__.__annotations__
    if unknown := [option for option in options if option not in accepted]:
        offered = ", ".join(option for option in accepted if option not in ("model", "return"))
        raise InputError(f"backend {name!r} has no option {unknown[0]!r}: it takes {offered}")
    return backend_class(model, **options)
