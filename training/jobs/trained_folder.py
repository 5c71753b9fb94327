"""What a trained folder carries: weights, tokenizer, how to ask the model, and what it was trained with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.models.checkpoints import SETTINGS_FILE, TINY_CHECKPOINT, CheckpointSettings
from r1ranker_ir.prompts.sections import Section, known_sections
from r1ranker_ir.prompts.template import Template, Wording, load_template

from .record import TrainingRecord

CARD_FILE = "README.md"

_STAGING = ".unfinished"
# Without these two no library takes the folder for a model: they come last, and go first.
_KEYS_TO_LOADING = ("config.json", "adapter_config.json")
# Of a trainer's own files, what serves to go on training alone: checkpoints have it.
_LEFT_OUT = ("training_args.bin", "value_head.safetensors")


def settings_content(
    base: CheckpointSettings, strategies: Sequence[str], record: TrainingRecord | None = None
) -> dict[str, Any]:
    """Builds what the `r1ranker.json` of a trained model says."""
    template = base.template or load_template()
    for section in map(known_sections().get, strategies):
        if section is not None and section.user and section.name not in template.wordings:
            # A strategy may bring its own wording: what the model was trained on, it keeps.
            template = _with_wording(template, section)
    if lacking := [name for name in strategies if name not in template.wordings]:
        raise InputError(
            f"the template {template.name!r} has no section [{lacking[0]}], so a model can't offer that strategy: "
            f"choose among {', '.join(template.wordings)}"
        )
    limits = {name: getattr(base, name) for name in ("max_passage_tokens", "max_query_tokens")}
    return {
        "strategies": list(strategies),
        "template": template.content(),
        "template_hash": template.digest(),
        "window_size": base.window_size,
        "stride": base.stride,
        **{name: limit for name, limit in limits.items() if limit is not None},
        "max_thought_tokens": base.max_thought_tokens,
        "batch_size": base.batch_size,
        **({} if record is None else {"training": record.as_json()}),
    }


def _with_wording(template: Template, section: Section) -> Template:
    tasks = {}
    for task, user in section.tasks.items():
        form = template.form(task)
        tasks[task] = replace(form, wordings={**form.wordings, section.name: Wording(section.system, user)})
    wordings = {**template.wordings, section.name: Wording(section.system, section.user)}
    return replace(template, wordings=wordings, tasks={**template.tasks, **tasks})


def base_name(model: str) -> str:
    """What a model is called in a record: a hub name as it is, a folder or file by its name."""
    if os.path.realpath(model) == os.path.realpath(TINY_CHECKPOINT):
        return "r1ranker-iterative-tiny"
    return Path(model).resolve().name if Path(model).exists() else model


def is_finished(folder: str | Path) -> bool:
    """Tells whether a folder holds a model that can be loaded."""
    return any((Path(folder) / name).is_file() for name in _KEYS_TO_LOADING)


def save_trained_folder(
    folder: str | Path,
    *,
    save_weights: Callable[[Path], None],
    tokenizer: Any,
    settings: Mapping[str, Any],
    card: str,
    main_process: bool = True,
) -> None:
    """Writes a trained model so that its folder loads when everything is there, and not before.

    All files are written into a folder beside the checkpoints first. Then they move, what makes a folder loadable
    last. A model that was there before is taken down first.
    """
    folder = Path(folder)
    staging = folder / _STAGING
    try:
        if main_process:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        save_weights(staging)
        if not main_process:
            return
        if not is_finished(staging):
            raise CheckpointError(
                f"no weights came to be saved in {str(folder)!r}: with FSDP, set fsdp_state_dict_type to "
                "FULL_STATE_DICT in accelerate's configuration; the checkpoints in that folder are whole"
            )
        for name in _LEFT_OUT:
            (staging / name).unlink(missing_ok=True)
        # TRL's frozen copy of an adapter that was trained further.
        shutil.rmtree(staging / "ref", ignore_errors=True)
        tokenizer.save_pretrained(staging)
        write_whole(staging / SETTINGS_FILE, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        write_whole(staging / CARD_FILE, card)
        take_down(folder)
        written = sorted(staging.iterdir(), key=lambda path: path.name in _KEYS_TO_LOADING)
        for path in written:
            path.replace(folder / path.name)
        staging.rmdir()
    except OSError as error:
        raise InputError(f"the trained model can't be written to {str(folder)!r}: {error}") from error


def take_down(folder: Path) -> None:
    """Removes the model in a folder, what makes it loadable first; checkpoints stay."""
    for name in _KEYS_TO_LOADING:
        (folder / name).unlink(missing_ok=True)
    for pattern in ("*.safetensors", "*.safetensors.index.json"):
        for path in folder.glob(pattern):
            path.unlink()
