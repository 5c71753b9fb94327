"""Asks one model the tasks, on its own chat template, and keeps what each sample's answer was worth."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.benchmarks.model import BenchmarkModel, checkpoint_place, open_model
from r1ranker_ir.files.digests import text_digest
from r1ranker_ir.models.identity import checkpoint_identity

from .answers import Answers, read_answers, together
from .kept import keep, key_of, read_kept
from .settings import GenericSettings
from .tasks import TaskList, set_seeds

logger = logging.getLogger(__name__)

# What the harness says of any model that it did not load itself.
_EXPECTED = ("`pretrained` model kwarg is not of type", "Passed an already-initialized model")


def ask(
    name: str,
    checkpoint: str,
    tasks: TaskList,
    settings: GenericSettings,
    *,
    device: str | None = None,
    dtype: str = "auto",
    progress: bool = False,
    kept_in: Path | None = None,
    say: Callable[[str], object] = logger.info,
) -> Answers:
    """Loads a model, asks it all tasks, and lets go of it.

    Args:
        kept_in: folder where each finished task is kept; what is there already is not asked again.
        say: is told what is not asked again.
    """
    loaded = tasks.load()["tasks"]
    found: dict[str, Answers] = {}

    def key(task: str, identity: dict[str, Any]) -> dict[str, Any]:
        return key_of(loaded[task], task, settings, {"checkpoint": identity, "device": _placed(device), "dtype": dtype})

    if kept_in is not None and kept_in.is_dir():
        identity = checkpoint_identity(checkpoint_place(checkpoint), None, loading_began=time.time())
        if "not_cacheable" not in identity:
            kept = {task: read_kept(kept_in, key(task, identity), name) for task in loaded}
            found = {task: answers for task, answers in kept.items() if answers is not None}
    if found:
        say(f"{name}: {', '.join(found)} finished before, see {kept_in}")
    if rest := [task for task in loaded if task not in found]:
        opened = _open(name, checkpoint, settings, device=device, dtype=dtype, progress=progress)
        identity = opened.described["checkpoint"]
        for task in rest:
            kept_as = None if kept_in is None or "not_cacheable" in identity else key(task, identity)
            found[task] = _asked(opened, task, loaded[task], settings)
            if kept_in is not None and kept_as is not None:
                keep(kept_in, kept_as, found[task])
        _let_go(opened)
    return together([found[task] for task in loaded])


@dataclass
class _Opened:
    """A model that can be asked."""

    harness: Any
    described: dict[str, Any]
    warnings: list[str]


def _placed(device: str | None) -> str:
    from r1ranker_ir.models.loading import pick_device

    return pick_device(device)


def _open(
    name: str, checkpoint: str, settings: GenericSettings, *, device: str | None, dtype: str, progress: bool
) -> _Opened:
    from lm_eval.models.huggingface import HFLM

    began = time.time()
    opened = open_model(checkpoint, None, device=device, dtype=dtype, seed=0)
    model = opened.model
    # It would count in place of the task's own limit, and the two models may come with different ones.
    model.generation_config.max_new_tokens = None
    template = getattr(opened.tokenizer, "chat_template", None)
    set_seeds()
    with _overheard() as warnings:
        kept = {"think_end_token": settings.think_end or None, "batch_size": settings.batch_size}
        asked = HFLM(pretrained=model, tokenizer=opened.tokenizer, **kept)
    for kind in ("generate_until", "loglikelihood", "loglikelihood_rolling"):
        setattr(asked, kind, partial(getattr(asked, kind), disable_tqdm=not progress))
    identity = checkpoint_identity(str(opened.checkpoint), None, loading_began=began)
    # Loading merges an adapter of plain linear layers; others stay beside their base.
    adapter = {"adapter": "loaded" if hasattr(model, "peft_config") else "merged"} if "base" in identity else {}
    described = {
        "model": name,
        "checkpoint": identity,
        **adapter,
        **_facts(opened, model),
        "chat_template": None if template is None else text_digest(str(template)),
        "context_length": asked.max_length,
    }
    return _Opened(asked, described, warnings)


def _asked(opened: _Opened, name: str, task: Any, settings: GenericSettings) -> Answers:
    """Asks one task, whose answers depend on no other one's."""
    from lm_eval.evaluator import evaluate

    templated = opened.described["chat_template"] is not None
    turns = {"apply_chat_template": templated, "fewshot_as_multiturn": templated}
    set_seeds()
    with _overheard() as warnings:
        one = {"tasks": {name: task}, "groups": {}}
        try:
            found = evaluate(opened.harness, one, limit=settings.limit, bootstrap_iters=0, **turns)
        except (AssertionError, ValueError, NotImplementedError) as error:
            raise InputError(f"{opened.described['model']!r} can't be asked {name!r}: {error}") from error
    return read_answers(opened.described, found, {name: task}, (*opened.warnings, *warnings))


def _let_go(opened: _Opened) -> None:
    import torch

    del opened.harness
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
        said += heard
