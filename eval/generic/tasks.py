"""The tasks of lm-evaluation-harness by name: its own, the packaged ones, and those of a folder."""

from __future__ import annotations

import contextlib
import difflib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError, R1RankerError, missing_extra

from .settings import PACKAGED_TASKS, GenericSettings

# The seeds that lm-evaluation-harness takes by default, so that examples are those of figures published with it.
SEEDS = (0, 1234)
_WAY_OUT = (
    "a task of the hub needs a connection, or its data in the hub's local cache; the packaged small-sums, "
    "small-instructions and small-choice, and tasks of --task-folder, need none"
)


class TaskList:
    """Tasks that both models are asked.

    They are loaded for each model anew, since a task keeps what was done with it.
    """

    def __init__(self, settings: GenericSettings) -> None:
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise missing_extra("Asking tasks of lm-evaluation-harness", "generic", error) from error
        own = [PACKAGED_TASKS] if settings.task_folder is None else [PACKAGED_TASKS, settings.task_folder.resolve()]
        self._settings, self._own = settings, own
        self._manager = TaskManager(include_path=own, include_defaults=False)
        if not set(settings.names) <= set(self._manager.all_tasks):
            # Reading the harness's own, some ten thousand, takes seconds.
            self._manager = TaskManager(include_path=own)
        for name in settings.names:
            if name not in self._manager.all_tasks:
                close = difflib.get_close_matches(name, self._manager.all_tasks, n=3)
                meant = f": did you mean {', '.join(close)}?" if close else ""
                raise InputError(
                    f"task {name!r} is neither one of lm-evaluation-harness nor, as far as its YAML files can be read, "
                    f"one of --task-folder{meant or ': check the name'}"
                )

    def load(self) -> dict[str, Any]:
        """Loads the tasks with their data, ready to be asked."""
        set_seeds()
        loaded: dict[str, Any] = {"tasks": {}, "groups": {}}
        for name in self._settings.names:
            found = self._load(name)
            for kind, named in loaded.items():
                named.update(found.get(kind, {}))
        for name, task in loaded["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False):
                raise InputError(f"task {name!r} runs code that a model wrote, which is not supported: leave it out")
            self._prepare(task)
        return loaded

    def _load(self, name: str) -> dict[str, Any]:
        try:
            with _folder_of(self._manager.task_index[name].yaml_path, self._own):
                found: dict[str, Any] = self._manager.load([name])
        except R1RankerError:
            raise
        except ImportError as error:
            raise missing_extra(f"Task {name!r}", "generic", error) from error
        # Reading a task runs its code, and its data set's.
        except Exception as error:
            reason = " ".join(str(error).split())[:400] or type(error).__name__
            raise InputError(f"task {name!r} can't be loaded: {type(error).__name__}: {reason} — {_WAY_OUT}") from error
        return found

    def _prepare(self, task: Any) -> None:
        settings = self._settings
        # A task that wants no examples says 0.
        if task.get_config("num_fewshot") is None or (settings.few_shot is not None and task.get_config("num_fewshot")):
            task.set_config(key="num_fewshot", value=settings.few_shot or 0)
        if settings.max_tokens is not None and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": settings.max_tokens}, update=True)
        task.set_fewshot_seed(seed=SEEDS[1])


def set_seeds() -> None:
    """Sets every seed that a task, or a model that samples, may draw from."""
    import numpy as np
    import torch

    random.seed(SEEDS[0])
    np.random.seed(SEEDS[1])
    torch.manual_seed(SEEDS[1])


@contextlib.contextmanager
def _folder_of(file: Path | None, folders: list[Path]) -> Iterator[None]:
    """Works in the folder of a task's file, which names its data files from there; not for the harness's own."""
    if file is None or not any(file.is_relative_to(folder) for folder in folders):
        yield
        return
    before = os.getcwd()
    os.chdir(file.parent)
    try:
        yield
    finally:
        os.chdir(before)
