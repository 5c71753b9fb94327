"""What a result was made with: versions, checkpoint, hardware and settings, without anything that changes from one run
of the same command to the next."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.backends import declared_backend
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.models.identity import checkpoint_identity
from r1ranker_ir.rankers.ranker import template_of
from r1ranker_ir.thoughts.bank import read_bank
from r1ranker_ir.types import CHOSEN_BY

if TYPE_CHECKING:
    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.prompts.prompt import PromptTemplate
    from r1ranker_ir.rankers.ranker import Ranker
    from r1ranker_ir.runs.reranking import RankerSource

_LIBRARIES = ("numpy", "ir-datasets", "ir-measures", "pytrec-eval-terrier", "bm25s", "PyStemmer")
_CLOSED = ("closed_at_limit", "closed_at_end_of_turn", "closed_at_answer")
_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")


def versions(backend: str, *others: str) -> dict[str, str]:
    """The versions of Python, this package, and the installed libraries that a backend and others bring, by name."""
    found = {"python": platform.python_version()}
    for name in ("r1ranker-ir", *_LIBRARIES, *declared_backend(backend).libraries, *others):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def made_with(command: Sequence[str], backend: str, *others: str) -> dict[str, Any]:
    """Says what a result was made with."""
    return {
        "command": list(command),
        "versions": versions(backend, *others),
        "hardware": hardware(),
        "numerics": determinism(),
    }


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Writes all figures of a result, and what they were made with, as JSON."""
    try:
        write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another --output") from error


def ranker_settings(ranker: Ranker) -> dict[str, Any]:
    """Describes an opened ranker."""
    limits = {
        "window_size": ranker.window_size,
        "stride": ranker.stride,
        "max_passage_tokens": ranker.prompt.max_passage_tokens,
        "max_query_tokens": ranker.prompt.max_query_tokens,
        "context_length": ranker.backend.context_length,
        "batch_size": ranker.backend.batch_size,
    }
    return _described(ranker, ranker.backend.identity, ranker.template, limits, ranker.notes)


def unopened_settings(ranker: RankerSource) -> dict[str, Any]:
    """Describes a ranker whose model other processes hold, as far as its files tell."""
    told = ranker.settings
    settings = read_settings(told.settings_from or ranker.model, told.revision)
    names = ("window_size", "stride", "max_passage_tokens", "max_query_tokens", "max_thought_tokens", "batch_size")
    given = {name: getattr(told, name) for name in names}
    limits = {name: getattr(settings, name) if value is None else value for name, value in given.items()}
    checkpoint = checkpoint_identity(ranker.model, told.revision, loading_began=time.time())
    identity = {"backend": told.declared_backend.name, "checkpoint": checkpoint}
    return _described(ranker, identity, template_of(told, settings), limits, ranker.notes())


def _described(
    ranker: Ranker | RankerSource,
    identity: Mapping[str, Any],
    template: PromptTemplate,
    limits: Mapping[str, Any],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The same words for both; what is not asked for is not named."""
    told, judged = ranker.settings, ranker.options.vote_by == "judged"
    return {
        "model": ranker.model,
        "strategy": ranker.strategy,
        "identity": dict(identity),
        "template": {"name": template.name, "digest": template.digest(mark=ranker.options.marks, judge=judged)},
        **limits,
        **({} if told.max_passage_words is None else {"max_passage_words": told.max_passage_words}),
        **({"repair_text": True} if told.repair_text else {}),
        "max_repair_rate": told.max_repair_rate,
        **({"answers": "published"} if told.answers == "published" else {}),
        **_examples(ranker),
        **({} if told.system is None else {"system": told.system}),
        **({"notes": list(notes)} if notes else {}),
        **ranker.options.stated(),
    }


def _examples(ranker: Ranker | RankerSource) -> dict[str, Any]:
    """The bank of thoughts that worked examples come from, and how many of them."""
    told = ranker.settings
    if told.thoughts is None:
        return {}
    bank = read_bank(told.thoughts)
    said = {"bank": Path(bank.path).name, "digest": bank.digest, "held": len(bank.examples)}
    return {"thoughts": {**said, "examples": told.examples, "kind": told.example_kind, "encoder": told.example_encoder}}


def counts(summary: RunSummary) -> dict[str, int]:
    """What a second run counts again: no seconds, and cached answers like fresh ones."""
    names = ("repairs", "thoughts_closed", *_CLOSED, "cut_passages", "cut_queries")
    found = {"queries": summary.queries, **asdict(summary.usage), **{name: getattr(summary, name) for name in names}}
    chosen = {f"chosen_by_{how}": getattr(summary, f"chosen_by_{how}") for how in CHOSEN_BY}
    # Named where a server was asked.
    return {**found, **chosen} if any(chosen.values()) else found


def hardware() -> dict[str, Any]:
    """Names processor, cores, memory and, where torch is loaded and sees some, GPUs."""
    torch = sys.modules.get("torch")
    gpus = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
    }


def determinism() -> dict[str, Any]:
    """Names the settings that numerics may depend on."""
    found: dict[str, Any] = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    torch = sys.modules.get("torch")
    if torch is not None:
        found |= {
            "torch_threads": torch.get_num_threads(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        }
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        told = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if told is not None:
            return told[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
