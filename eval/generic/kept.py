"""Keeps what a model answered to a task once it is finished: a command that was stopped goes on from there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from r1ranker_ir.errors import StorageError
from r1ranker_ir.eval.output.manifest import versions
from r1ranker_ir.files.digests import file_digest, text_digest
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.records import Record, record_of_file
from r1ranker_ir.files.small_files import RECORD_BYTES

from .answers import Answers, Measured, TaskFacts, config_digest
from .settings import GenericSettings
from .tasks import SEEDS

LIBRARIES = ("lm_eval", "datasets", "peft", "scipy")
"""What a result depends on beside the libraries of the local backend."""

_LETTERS = 16  # of a digest, in the name of a file


class _KeptMeasure(Record):
    model_config = ConfigDict(allow_inf_nan=True)

    measure: str
    higher_is_better: bool
    scores: dict[str, float]


class _KeptFacts(Record):
    version: Any
    few_shot: int
    samples: int
    of: int
    config: str
    data: str


class _KeptTask(Record):
    key: dict[str, Any]  # what decides the result
    model: dict[str, Any]
    facts: _KeptFacts
    measures: list[_KeptMeasure]
    left_out: dict[str, str]
    texts: dict[str, str]
    warnings: list[str]


def folder_beside(output: Path) -> Path:
    """Where the finished tasks of an output are kept."""
    return Path(f"{output}.answers")


def key_of(task: Any, name: str, settings: GenericSettings, model: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what a model answers to a loaded task, as JSON data.

    Args:
        model: its identity, and how it is loaded; the identity covers its chat template.
    """
    few_shot = task.get_config("num_fewshot") or 0
    return {
        "model": dict(model),
        "task": name,
        "config": config_digest(task.dump_config()),
        "data": _docs_digest(islice(task.eval_docs, settings.limit)),
        "examples": _docs_digest(task.fewshot_docs() or ()) if few_shot else None,
        "code": None if settings.task_folder is None else _code_digest(settings.task_folder),
        "limit": settings.limit,
        "few_shot": few_shot,
        "max_tokens": settings.max_tokens,
        "think_end": settings.think_end,
        "batch_size": settings.batch_size,
        "seeds": list(SEEDS),
        "versions": versions("transformers", *LIBRARIES),
    }


def read_kept(folder: Path, key: Mapping[str, Any], model: str) -> Answers | None:
    """What the model, by its present name, answered before; `None` if the task is not finished."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    kept = record_of_file(_KeptTask, path, "remove it, and the task is asked again", most=RECORD_BYTES, finite=False)
    if kept.key != key:
        return None
    task = str(key["task"])
    measures = {Measured(task, each.measure): each for each in kept.measures}
    return Answers(
        {**kept.model, "model": model},
        {measured: each.scores for measured, each in measures.items()},
        {measured: each.higher_is_better for measured, each in measures.items()},
        {task: kept.texts},
        {Measured(task, measure): why for measure, why in kept.left_out.items()},
        {task: TaskFacts(**kept.facts.model_dump())},
        tuple(kept.warnings),
    )


def keep(folder: Path, key: Mapping[str, Any], answers: Answers) -> None:
    """Writes what a model answered to one task."""
    task = str(key["task"])
    content = {
        "key": key,
        "model": answers.model,
        "facts": asdict(answers.tasks[task]),
        "measures": [
            {
                "measure": measured.measure,
                "higher_is_better": answers.higher_is_better[measured],
                "scores": scores,
            }
            for measured, scores in answers.scores.items()
        ],
        "left_out": {measured.measure: why for measured, why in answers.left_out.items()},
        "texts": answers.texts[task],
        "warnings": answers.warnings,
    }
    try:
        folder.mkdir(exist_ok=True)
        write_whole(_path(folder, key), json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise StorageError(f"can't write to {str(folder)!r}: {error.strerror}: choose another --output") from error


def _path(folder: Path, key: Mapping[str, Any]) -> Path:
    name = re.sub(r"[^\w.-]", "_", str(key["task"]))
    return folder / f"{name}-{text_digest(json.dumps(key, sort_keys=True))[:_LETTERS]}.json"


def _docs_digest(docs: Iterable[Any]) -> str:
    return text_digest("\n".join(json.dumps(doc, sort_keys=True, default=str) for doc in docs))


def _code_digest(folder: Path) -> str:
    """A task's settings hold the functions that they name, but nothing that those call."""
    files = sorted(folder.rglob("*.py"))
    return text_digest("\n".join(f"{path.relative_to(folder).as_posix()} {file_digest(path)}" for path in files))
