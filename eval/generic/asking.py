"""Asks one model the tasks, on its own chat template, and keeps what each sample's answer was worth."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.benchmarks.model import BenchmarkModel, open_model
from r1ranker_ir.files.digests import text_digest
from r1ranker_ir.models.identity import checkpoint_identity

from .settings import GenericSettings
from .tasks import TaskList, set_seeds

# What the harness says of any model that it did not load itself.
_EXPECTED = ("`pretrained` model kwarg is not of type", "Passed an already-initialized model")
_MOST_WARNINGS = 3


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
    warnings: tuple[str, ...]  # of the harness


Finished = Callable[[str, Answers], None]
"""Takes what a model answered to a task, by the task's name, as soon as it has."""


def ask(
    name: str,
    checkpoint: str,
    tasks: TaskList,
    settings: GenericSettings,
    *,
    device: str | None = None,
    dtype: str = "auto",
    progress: bool = False,
    known: Mapping[str, Answers] | None = None,
    finished: Finished = lambda task, answers: None,
) -> Answers:
    """Loads a model, asks it all tasks but those whose answers are known, and lets go of it."""
    known = known or {}
    new = {task: tasks.load(task) for task in settings.names if task not in known}
    asked = dict(_asked(name, checkpoint, new, settings, device, dtype, progress, finished)) if new else {}
    return _joined([known.get(task) or asked[task] for task in settings.names])


def _asked(
    name: str,
    checkpoint: str,
    tasks: Mapping[str, Mapping[str, Any]],
    settings: GenericSettings,
    device: str | None,
    dtype: str,
    progress: bool,
    finished: Finished,
) -> Iterator[tuple[str, Answers]]:
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    began = time.time()
    opened = open_model(checkpoint, None, device=device, dtype=dtype, seed=0, merge_adapters=False)
    model, adapter = opened.model, None
    if hasattr(model, "merge_and_unload"):
        model, adapter = (model.merge_and_unload(), "merged") if settings.merge_adapters else (model, "loaded")
    # It would count in place of the task's own limit, and the two models may come with different ones.
    model.generation_config.max_new_tokens = None
    template = getattr(opened.tokenizer, "chat_template", None)
    with _overheard() as said:
        kept = {"think_end_token": settings.think_end or None, "batch_size": settings.batch_size}
        asked = HFLM(pretrained=model, tokenizer=opened.tokenizer, **kept)
    for kind in ("generate_until", "loglikelihood", "loglikelihood_rolling"):
        setattr(asked, kind, partial(getattr(asked, kind), disable_tqdm=not progress))
    turns = {"apply_chat_template": template is not None, "fewshot_as_multiturn": template is not None}
    described = {
        "model": name,
        "checkpoint": checkpoint_identity(str(opened.checkpoint), None, loading_began=began),
        **({} if adapter is None else {"adapter": adapter}),
        **_facts(opened, model),
        "chat_template": None if template is None else text_digest(str(template)),
        "context_length": asked.max_length,
    }
    for task, loaded in tasks.items():
        # Each task for itself, so that its answers are the same whichever others were asked before.
        set_seeds()
        with _overheard() as warnings:
            try:
                found = evaluate(asked, dict(loaded), limit=settings.limit, bootstrap_iters=0, **turns)
            except (AssertionError, ValueError, NotImplementedError) as error:
                raise InputError(f"{name!r} can't be asked {task}: {error}") from error
        answers = _answers(described, found, loaded["tasks"], (*said, *warnings))
        finished(task, answers)
        yield task, answers
    del asked, model, opened
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _joined(parts: Sequence[Answers]) -> Answers:
    """The answers to several tasks as one."""

    def union(name: str) -> dict[Any, Any]:
        return {key: value for part in parts for key, value in getattr(part, name).items()}

    mappings = ("scores", "higher_is_better", "texts", "left_out", "tasks")
    warnings = dict.fromkeys(warning for part in parts for warning in part.warnings)
    return Answers(parts[0].model, warnings=tuple(warnings), **{name: union(name) for name in mappings})


def _facts(opened: BenchmarkModel, model: Any) -> dict[str, Any]:
    first = next(model.parameters())
    parameters = sum(each.numel() for each in model.parameters())
    return {"parameters": parameters, "dtype": str(first.dtype).removeprefix("torch."), "device": opened.device.type}


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """Collects what the harness warns of, in place of printing it."""
    heard: dict[str, None] = {}
    theirs = logging.getLogger("lm_eval")

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not (text := " ".join(record.getMessage().split())).startswith(_EXPECTED):
                heard[text] = None

    handler, passed_on, said = Listening(logging.WARNING), theirs.propagate, list[str]()
    theirs.addHandler(handler)
    theirs.propagate = False
    try:
        yield said
    finally:
        theirs.removeHandler(handler)
        theirs.propagate = passed_on
        said += list(heard)[:_MOST_WARNINGS]
        if len(heard) > _MOST_WARNINGS:
            said.append(f"and {len(heard) - _MOST_WARNINGS} further warnings")


def _answers(
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
            text_digest(str(found["configs"][name])),
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
