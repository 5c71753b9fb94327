"""Answers to finished tasks, kept beside the output until it is whole: the same command goes on behind them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.manifest import versions
from r1ranker_ir.files.digests import file_digest, text_digest
from r1ranker_ir.files.partial import partial_path
from r1ranker_ir.models.identity import checkpoint_identity

from .asking import Answers, Measured, TaskFacts
from .settings import GenericSettings

_BY_MEASURE = ("scores", "higher_is_better", "left_out")


class KeptAnswers:
    """What models have answered to tasks under the settings of a command; without an output nothing is kept.

    Args:
        output: where the whole result will go; the answers are kept under its name and `.partial`.
        numerics: what else decides an answer, such as device and numbers.
    """

    def __init__(self, output: Path | None, settings: GenericSettings, numerics: Mapping[str, Any]) -> None:
        self._path = None if output is None else partial_path(output)
        own = settings.task_folder
        files = [] if own is None else sorted(path for path in own.rglob("*") if path.is_file())
        decides = {
            **{name: str(value) for name, value in asdict(settings).items() if name != "tasks"},
            "numerics": dict(numerics),
            "files": {str(path.relative_to(own)): file_digest(path) for path in files if own is not None},
            "versions": versions("transformers", "lm_eval", "datasets", "peft"),
        }
        self._settings = json.dumps(decides, sort_keys=True, default=str)

    def known(self, checkpoint: str, tasks: Iterable[str]) -> dict[str, Answers]:
        """What is kept of a model's answers to these tasks."""
        if self._path is None or not self._path.exists() or (key := self._key(checkpoint)) is None:
            return {}
        wanted, found = set(tasks), dict[str, Answers]()
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the line that a kill broke off
                continue
            if record["key"] == key and record["task"] in wanted:
                found[record["task"]] = _read(record["answers"])
        return found

    def keep(self, checkpoint: str, task: str, answers: Answers) -> None:
        """Adds what a model answered to a task."""
        if self._path is None or (key := self._key(checkpoint)) is None:
            return
        line = json.dumps({"key": key, "task": task, "answers": _data(answers)}, ensure_ascii=False)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                # Behind a line that was broken off.
                file.write(f"\n{line}\n")
        except OSError as error:
            raise InputError(f"can't write {str(self._path)!r}: {error.strerror}: choose another --output") from error

    def drop(self) -> None:
        """Removes what was kept: the result is whole."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _key(self, checkpoint: str) -> str | None:
        """Tells model and settings from all others; `None` where it can't be known that they stay the same."""
        identity = checkpoint_identity(checkpoint, None, loading_began=time.time())
        return None if "not_cacheable" in identity else text_digest(self._settings + json.dumps(identity))


def _data(answers: Answers) -> dict[str, Any]:
    by_measure = {name: [[*key, value] for key, value in getattr(answers, name).items()] for name in _BY_MEASURE}
    facts = {name: asdict(each) for name, each in answers.tasks.items()}
    return {**by_measure, "model": answers.model, "texts": answers.texts, "tasks": facts, "warnings": answers.warnings}


def _read(data: Mapping[str, Any]) -> Answers:
    by_measure: dict[str, Any] = {
        name: {Measured(task, by): value for task, by, value in data[name]} for name in _BY_MEASURE
    }
    facts = {name: TaskFacts(**each) for name, each in data["tasks"].items()}
    return Answers(
        model=data["model"], texts=data["texts"], tasks=facts, warnings=tuple(data["warnings"]), **by_measure
    )
