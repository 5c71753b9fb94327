"""What a checkpoint says of itself in `r1ranker.json`, and where the embedded one lies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text
from r1ranker_ir.models.calibration import Calibration, read_calibrations
from r1ranker_ir.models.hub import only_local
from r1ranker_ir.models.small import located
from r1ranker_ir.prompts.template import Template, build_template, load_template
from r1ranker_ir.strategies import STRATEGIES

SETTINGS_FILE = "r1ranker.json"
ROUTER_FILE = "router.json"
"""What makes a folder a distilled router's, see `models.router`."""
DEFAULT_CHECKPOINT = "Qwen/Qwen2.5-3B-Instruct"
TINY_CHECKPOINT = Path(__file__).parents[1] / "tiny"
SMALL_LIKELIHOOD = Path(__file__).parents[1] / "small"
"""The adapter for the strategy `likelihood` on the small model."""
TINY_NAMES = ("r1ranker-iterative-tiny", "r1ranker-direct-tiny")
OFFLINE_HINT = f"To try things offline, use the embedded model: {' or '.join(map(repr, TINY_NAMES))}."

# What transformers need not say when it looks for a file.
_UNSAID = ("missing_entries", "connection_errors", "gated_repo")
_COUNTS = ("window_size", "stride", "max_passage_tokens", "max_query_tokens", "max_thought_tokens", "batch_size")


@dataclass(frozen=True)
class CheckpointSettings:
    """How a checkpoint wants to be asked, and how it was trained; the defaults are for one that says nothing.

    `None` means no limit of its own; the paper allows thoughts of 1,024 tokens.
    """

    strategies: tuple[str, ...] = field(default_factory=lambda: tuple(STRATEGIES))
    template: Template | None = None
    window_size: int = 20
    stride: int = 10
    max_passage_tokens: int | None = None
    max_query_tokens: int | None = None
    max_thought_tokens: int = 1024
    batch_size: int = 16
    training: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)  # by strategy


def settings_file(checkpoint: str, revision: str | None) -> Path | None:
    """The settings file in a local folder, beside a file, or in the hub's repository."""
    folder = Path(checkpoint)
    if folder.exists():
        path = (folder.parent if folder.is_file() else folder) / SETTINGS_FILE
        return path if path.is_file() else None
    quietly = {f"_raise_exceptions_for_{reason}": False for reason in _UNSAID}
    try:
        from transformers.utils.hub import cached_file

        local = only_local(checkpoint, revision)
        found = cached_file(checkpoint, SETTINGS_FILE, revision=revision, local_files_only=local, **quietly)
    # A name that is not a repository is reported by whoever loads the weights, with a better message.
    except (ImportError, OSError, ValueError):
        return None
    return Path(found) if found else None


def is_router(model: str | os.PathLike[str]) -> bool:
    return (Path(model) / ROUTER_FILE).is_file()


def read_settings(checkpoint: str | os.PathLike[str], revision: str | None = None) -> CheckpointSettings:
    """Reads a checkpoint's `r1ranker.json`: in its folder, beside its GGUF file or on the hub; else the defaults."""
    path = settings_file(*located(os.fspath(checkpoint), revision))
    return CheckpointSettings(template=load_template()) if path is None else read_settings_file(path)


def read_settings_file(path: Path) -> CheckpointSettings:
    """Reads a `r1ranker.json`."""
    return _settings(settings_content(path), path)


def settings_content(path: Path) -> Mapping[str, Any]:
    """What a `r1ranker.json` holds, as it stands there."""
    text = read_small_text(path, str(path), "correct the file or remove it", error=CheckpointError, most=RECORD_BYTES)
    try:
        # What a training has recorded of itself may be a NaN; the settings are checked one by one.
        content = parse_json(text, finite=False, unique=True)
    except ValueError as error:
        raise CheckpointError(f"{path} can't be read: {error}. Correct the file or remove it") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds {type(content).__name__}: it must be a JSON object")
    return content


def _settings(content: Mapping[str, Any], path: Path) -> CheckpointSettings:
    known = {"strategies", "template", "template_hash", "training", "calibration", *_COUNTS}
    if unknown := set(content) - known:
        raise CheckpointError(f"{path}: unknown key {sorted(map(str, unknown))[0]!r}; use {', '.join(sorted(known))}")
    template = load_template()
    if "template" in content:
        try:
            template = build_template(content["template"], str(path))
        except InputError as error:
            raise CheckpointError(str(error)) from error
    stated = content.get("template_hash")
    if stated is not None and stated != template.digest():
        whose = "the hash of the template beside it" if "template" in content else "that of the project's own template"
        raise CheckpointError(
            f"{path}: template_hash is {stated!r}, but {whose} is {template.digest()!r}: it is not "
            "the prompt that the checkpoint was trained on. Restore the template, or update the hash"
        )
    values = {key: content[key] for key in _COUNTS if key in content}
    for key, value in values.items():
        least = 0 if key == "max_thought_tokens" else 1
        if type(value) is not int or value < least:
            raise CheckpointError(f"{path}: {key} is {value!r}; give a whole number of at least {least}")
    strategies = content.get("strategies", [name for name in STRATEGIES if STRATEGIES[name].is_worded_by(template)])
    if not isinstance(strategies, list) or not strategies or any(name not in STRATEGIES for name in strategies):
        raise CheckpointError(f"{path}: strategies is {strategies!r}; list some of {', '.join(STRATEGIES)}")
    if missing := [name for name in strategies if not STRATEGIES[name].is_worded_by(template)]:
        raise CheckpointError(
            f"{path}: strategies names {missing[0]!r}, but the template has no section for it: add one"
        )
    training = content.get("training", {})
    if not isinstance(training, Mapping):
        raise CheckpointError(f"{path}: training is {training!r}; give an object, or leave it out")
    calibration = read_calibrations(content.get("calibration", {}), str(path))
    told: dict[str, Any] = {"template": template, "training": training, "calibration": calibration}
    return CheckpointSettings(strategies=tuple(strategies), **told, **values)
