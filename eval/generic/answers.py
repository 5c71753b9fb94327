"""What a model answered to tasks, read from what the harness found."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from r1ranker_ir.files.digests import text_digest

_MOST_WARNINGS = 3
# What Python writes of a function that it can't show otherwise differs from one run to the next.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Measured(NamedTuple):
    """A measure of a task."""

    task: str
    measure: str  # behind a comma what was read out of the answer, where a task reads several ways


@dataclass(frozen=True)
class TaskFacts:
    """What was asked of a task."""

    version: Any
    few_shot: int
    samples: int  # that were asked
    of: int  # that there are
    config: str  # the digest of its settings
    data: str  # the digest of the samples and their prompts' source


@dataclass(frozen=True)
class Answers:
    """What a model answered."""

    model: Mapping[str, Any]  # what it is, as JSON data
    scores: Mapping[Measured, Mapping[str, float]]  # the value of each sample
    higher_is_better: Mapping[Measured, bool]
    texts: Mapping[str, Mapping[str, str]]  # by task and sample: what was written, or the choice
    left_out: Mapping[Measured, str]  # measures that are no mean over samples, and why
    tasks: Mapping[str, TaskFacts]
    warnings: tuple[str, ...]  # of the harness, each once


def together(parts: Sequence[Answers]) -> Answers:
    """The answers of one model to several tasks, in their order."""
    heard = list(dict.fromkeys(warning for part in parts for warning in part.warnings))
    said = heard[:_MOST_WARNINGS]
    if len(heard) > _MOST_WARNINGS:
        said.append(f"and {len(heard) - _MOST_WARNINGS} further warnings")
    return Answers(
        parts[0].model,
        {measured: each for part in parts for measured, each in part.scores.items()},
        {measured: each for part in parts for measured, each in part.higher_is_better.items()},
        {task: each for part in parts for task, each in part.texts.items()},
        {measured: each for part in parts for measured, each in part.left_out.items()},
        {task: each for part in parts for task, each in part.tasks.items()},
        tuple(said),
    )


def config_digest(config: Mapping[str, Any]) -> str:
    """The digest of a task's settings."""
    return text_digest(_ADDRESS.sub("", str(config)))


def read_answers(
    model: Mapping[str, Any], found: Mapping[str, Any], tasks: Mapping[str, Any], warnings: tuple[str, ...]
) -> Answers:
    scores: dict[Measured, dict[str, float]] = {}
    better: dict[Measured, bool] = {}
    left_out: dict[Measured, str] = {}
    texts: dict[str, dict[str, str]] = {}
    facts = {}
    for name, samples in found["samples"].items():
        raw: dict[tuple[str, str], dict[str, Any]] = {}
        texts[name] = {str(sample["doc_id"]): _text(sample, tasks[name].OUTPUT_TYPE) for sample in samples}
        for sample in samples:
            for metric in sample["metrics"]:
                raw.setdefault((metric, sample["filter"]), {})[str(sample["doc_id"])] = sample[metric]
        for (metric, read_by), values in raw.items():
            measured = Measured(name, metric if read_by == "none" else f"{metric}, {read_by}")
            each = _per_sample(list(values.values()))
            whole = found["results"][name].get(f"{metric},{read_by}")
            if each is None or not math.isclose(math.fsum(each) / len(each), whole, abs_tol=1e-6):
                left_out[measured] = "it is not a mean over samples, so there is nothing to pair"
                continue
            scores[measured] = dict(zip(values, each, strict=True))
            better[measured] = found["higher_is_better"][name].get(metric) is not False
        facts[name] = TaskFacts(
            found["versions"][name],
            found["n-shot"][name],
            len(texts[name]),
            found["n-samples"][name]["original"],
            config_digest(found["configs"][name]),
            text_digest("".join(sample["doc_hash"] for sample in samples)),
        )
    return Answers(model, scores, better, texts, left_out, facts, warnings)


def _per_sample(values: Sequence[Any]) -> list[float] | None:
    """A number for each sample, whose mean is the measure; `None` where there is none.

    Of several values per sample, as of a prompt with several instructions, each counts as much as any other.
    """
    if all(isinstance(value, list) for value in values) and (count := sum(map(len, values))):
        return [math.fsum(value) * len(values) / count for value in values]
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _text(sample: Mapping[str, Any], kind: str) -> str:
    """What was written; of a choice, the most probable option."""
    replies = [reply[0] for reply in sample["resps"]]
    if kind != "multiple_choice":
        return str(replies[0])
    options = [(reply[0], asked[1]) for reply, asked in zip(replies, sample["arguments"], strict=True) if asked[0]]
    return str(max(options, key=lambda option: float(option[0]))[1])
