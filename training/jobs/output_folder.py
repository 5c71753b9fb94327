"""Output folders: what they may hold before a training, which checkpoint it goes on from, and whether that fits."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.models.checkpoints import SETTINGS_FILE
from r1ranker_ir.quoting import quoted

from .arguments import TrainingArguments
from .curves import STATE_FILE
from .json_records import read_record
from .record import HELD_OUT_FILE, TrainingRecord
from .trained_folder import CARD_FILE, is_finished, take_down

logger = logging.getLogger(__name__)

RUN_FILE = "training_run.json"
"""What a training was started with; beside the checkpoints, so that one that stopped can be continued alike."""
CURVES_FILE = "curves.png"
WRITTEN_NAMES = (RUN_FILE, CURVES_FILE, STATE_FILE, HELD_OUT_FILE, SETTINGS_FILE, CARD_FILE, "config.json")
"""What a training writes beside its weights."""

_LAST_CHECKPOINT = ("last", "latest", "true")
# What may differ between a run and its continuation without changing what is learned.
_FREE_TO_CHANGE = frozenset(("max_generated_tokens", "held_out_every", "held_out_queries", "use_cpu"))


def output_folder(arguments: TrainingArguments) -> Path:
    """Finds the output folder."""
    output = arguments.trainer.output_dir
    if not output or output == "trainer_output":
        # The name that transformers makes up where none is given.
        raise InputError("no output folder is given: name one with output_dir")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir {output!r} is not a folder: give another name")
    for model in model_folders(arguments.model.model):
        if model.resolve() == folder.resolve():
            raise InputError(f"output_dir {output!r} is the model to be trained: give another folder")
    return folder


def model_folders(name: str) -> list[Path]:
    """Finds the folders on this machine that a model is loaded from: its own, and that of an adapter's base."""
    folder = Path(name)
    if not folder.is_dir():
        return []
    config, base = folder / "adapter_config.json", None
    with contextlib.suppress(ValueError):  # loading it says what is wrong
        content = parse_json(read_small_text(config, str(config), ""), finite=False) if config.is_file() else {}
        base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    return [folder, *([Path(base)] if isinstance(base, str) and Path(base).is_dir() else [])]


def find_checkpoint(arguments: TrainingArguments, folder: Path) -> Path | None:
    """Finds the checkpoint to go on from."""
    wanted = str(arguments.trainer.resume_from_checkpoint or "")
    if wanted.lower() in ("", "false"):
        return None
    if arguments.run.overwrite:
        raise InputError("choose one of overwrite, which starts anew, and resume_from_checkpoint")
    if wanted.lower() in _LAST_CHECKPOINT:
        if (last := _last_checkpoint(folder)) is None:
            raise InputError(f"{str(folder)!r} holds no checkpoint to go on from: leave resume_from_checkpoint out")
        return last
    if not (Path(wanted) / STATE_FILE).is_file():
        raise InputError(f"resume_from_checkpoint {wanted!r} is not a checkpoint: give its folder, or last")
    return Path(wanted)


def _last_checkpoint(folder: Path) -> Path | None:
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if last is None else Path(last)


def check_is_free(arguments: TrainingArguments, folder: Path, checkpoint: Path | None) -> None:
    """Refuses a folder that holds another run, whose files would mix with this one's."""
    if checkpoint is not None or not folder.is_dir():
        return
    last, model = _last_checkpoint(folder), arguments.model.model
    if last is not None and Path(model).resolve().is_relative_to(folder.resolve()):
        raise InputError(f"the model {model!r} lies in the output folder {str(folder)!r}: give another output_dir")
    if arguments.run.overwrite:
        return
    if is_finished(folder):
        there = "a trained model"
    elif last is not None:
        there = f"checkpoints, the last one {last.name!r}: go on from there with resume_from_checkpoint last"
    elif foreign := _files_of_others(folder):
        there = f"{foreign[0]!r}, which no training wrote there and would be replaced"
    else:
        return
    raise InputError(f"output_dir {str(folder)!r} holds {there}; or give another folder, or overwrite to start anew")


def _files_of_others(folder: Path) -> list[str]:
    """What a training would replace or take down with an earlier model, in a folder without the record of one."""
    if (folder / RUN_FILE).exists():
        return []
    taken_down = (path.name for path in folder.glob("*.safetensors*"))
    return [*(name for name in WRITTEN_NAMES if (folder / name).exists()), *taken_down]


def clear(folder: Path) -> None:
    """Removes an earlier run: its model, checkpoints, record, curves and held-out ranks."""
    take_down(folder)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for name in (STATE_FILE, CURVES_FILE, RUN_FILE, HELD_OUT_FILE):
        (folder / name).unlink(missing_ok=True)


def check_continues(folder: Path, record: TrainingRecord) -> None:
    """Compares a training with the one whose checkpoint it goes on from."""
    path = folder / RUN_FILE
    if not path.exists():
        logger.warning("%s holds no %s: whether this is the same training can't be told", folder, RUN_FILE)
        return
    before = read_record(TrainingRecord, path, "start anew with overwrite")
    now = TrainingRecord.model_validate(json.loads(json.dumps(record.as_json())))
    for key in ("method", "base_model", "base_revision", "seed", "rewards", "strategies"):
        was, is_now = getattr(before, key), getattr(now, key)
        if was != is_now:
            raise InputError(
                f"the checkpoint's training has {key} {quoted(was)}, this one {is_now!r}: go on with the same, or "
                "start anew in another folder"
            )
    if [file.sha256 for file in before.data] != [file.sha256 for file in now.data]:
        raise InputError(
            "the train_files are not those of the checkpoint's training, or in another order: go on with the same "
            "ones, or start anew in another folder"
        )
    for key in sorted((before.arguments.keys() | now.arguments.keys()) - _FREE_TO_CHANGE):
        was, is_now = before.arguments.get(key), now.arguments.get(key)
        if was != is_now:
            logger.warning("%s was %r and is %r: the training does not go on exactly", key, was, is_now)
    if before.libraries != now.libraries:
        logger.warning("the libraries are not those of the checkpoint's training: it may not go on exactly")
