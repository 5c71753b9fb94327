"""Modules under the names that they had in release 0.1: importing one gives the module of today, with a warning."""

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
    adapters.opening:rankers.source agreement:runs.trace_summary backends.adapters:models.adapters
    backends.checkpoint_parts:models.parts backends.cpu_precision:models.cpu_precision
    backends.foreign_code:models.parts
    backends.identity:models.identity backends.key_value_cache:models.key_value_cache
    backends.loading:models.loading backends.retries:backends.failures backends.unloaded:backends.limits
    byte_sizes:files.byte_sizes cache_database:cache.database
    cache_records:cache.records cancelling:backends.cancelling cascade:rankers.cascade
    checkpoints:models.checkpoints closed_thoughts:engine.closed_thoughts corpora:data.corpora
    cutting:prompts.cutting demo:cli.demo described:files.described documents:integrations.documents
    family:rankers.systems gguf_files:models.gguf hub:models.hub json_lines:files.json_lines
    langchain:integrations.langchain offsets:files.offsets outcomes:engine.outcomes output_locks:files.locks
    output_paths:files.paths output_streams:files.streams partial_files:files.partial pipes:files.small_files
    plain_data:files.plain_data private_folders:files.locks random_models:models.random_weights
    ranker:rankers.ranker ranking_bench:adapters.ranking_bench
    ranking_bench_prompts:adapters.ranking_bench_prompts ray_engine:runs.ray_engine ray_worker:runs.ray_worker
    registry:integrations.registration request_corpus:data.request_corpus request_files:data.request_files
    rerank_inputs:runs.inputs rerank_run:runs.reranking rerankers:integrations.rerankers reranking:runs.requests
    run_files:data.long_runs seeded:strategies.seeded signs:engine.signs
    small_files:files.small_files small_model:models.small terminal_text:files.terminal_text
    trace_summary:runs.trace_summary trace_summary_view:runs.trace_summary_view trace_view:runs.trace_view
    traces:runs.traces training.advantages:training.trainers.advantages
    training.answer_protocol:training.rewards.answer_protocol training.arguments:training.jobs.arguments
    training.benchmark:training.tiny_model.benchmark training.callback_state:training.trainers.callback_state
    training.comparison:training.jobs.comparison training.comparison_tables:training.jobs.comparison_tables
    training.completion_files:training.data.completion_files training.curriculum:training.trainers.curriculum
    training.curves:training.jobs.curves training.data_command:training.data.command
    training.demo_report:training.demo.report training.episodes:training.trainers.episodes
    training.gold_answers:training.data.gold_answers training.grpo:training.trainers.grpo
    training.held_out:training.jobs.held_out training.held_out_file:training.jobs.record
    training.leakage:training.data.leakage training.mixture:training.trainers.mixture
    training.model_card:training.jobs.model_card training.model_loading:training.jobs.model_loading
    training.normalisation:training.trainers.normalisation training.output_folder:training.jobs.output_folder
    training.ppo:training.trainers.ppo training.progress:training.jobs.progress
    training.prompting:training.data.prompting training.ranking_measures:training.data.ranking_measures
    training.recipe_files:training.jobs.recipe_files training.records:training.data.records
    training.reward_rows:training.rewards.rows training.rollouts:training.trainers.rollouts
    training.sample_files:training.data.sample_files training.samples:training.data.samples
    training.sft:training.trainers.sft training.text_digests:training.data.leakage
    training.tiny_model.cold_start:training.demo.cold_start
    training.tiny_model.documentation:training.demo.documentation
    training.traces:training.data.from_traces training.train_command:training.jobs.command
    training.train_demo:training.demo.demo training.trained_folder:training.jobs.trained_folder
    training.training_data:training.jobs.rows training.training_record:training.jobs.record
    training.value_head:training.trainers.value_head training.variance:training.trainers.variance
    yaml_text:files.yaml_text
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
