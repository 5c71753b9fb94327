"""The most used modules under their names of release 0.1: importing one gives today's module, with a warning."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

_PACKAGE = "r1ranker_ir."
MOVED = dict(
    pair.split(":")
    for pair in """
    cascade:rankers.cascade checkpoints:models.checkpoints corpora:data.corpora family:rankers.systems
    langchain:integrations.langchain ranker:rankers.ranker ranking_bench:adapters.ranking_bench
    ray_engine:runs.ray_engine registry:integrations.registration request_files:data.request_files
    rerank_run:runs.reranking rerankers:integrations.rerankers reranking:runs.requests run_files:data.long_runs
    traces:runs.traces training.completion_files:training.data.completion_files
    training.episodes:training.trainers.episodes training.gold_answers:training.data.gold_answers
    training.grpo:training.trainers.grpo training.held_out:training.jobs.held_out training.ppo:training.trainers.ppo
    training.prompting:training.data.prompting training.sample_files:training.data.sample_files
    training.samples:training.data.samples training.sft:training.trainers.sft training.traces:training.data.from_traces
    """.split()
)
"""Old name to new, both without the package."""


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        moved = fullname.startswith(_PACKAGE) and fullname.removeprefix(_PACKAGE) in MOVED
        return importlib.machinery.ModuleSpec(fullname, self) if moved else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        name = _PACKAGE + MOVED[spec.name.removeprefix(_PACKAGE)]
        warnings.warn(
            f"{spec.name} is {name} now; the old name goes with the next release", FutureWarning, stacklevel=2
        )
        module = importlib.import_module(name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its own specification back, in place of that of the old name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def find_moved_modules() -> None:
    """Lets the old names be imported; calling it again changes nothing."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
