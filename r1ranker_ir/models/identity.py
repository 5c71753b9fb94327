"""Which checkpoint a model was loaded from: the same on every machine, another one after a training in place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.files.records import OpenRecord, record_of_file
from r1ranker_ir.models.gguf import gguf_file
from r1ranker_ir.models.small import located

_ADAPTER_CONFIG = "adapter_config.json"
# What loading never reads: texts for people, states of trainings, other formats of weights, and how to ask the model.
_UNREAD_SUFFIXES = {".md", ".pdf", ".png", ".svg", ".log", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".h5", ".msgpack"}
_UNREAD_NAMES = {"r1ranker.json", "trainer_state.json", "LICENSE"}
_TEMPLATES = "additional_chat_templates"
_THREADS = 8


class _AdapterConfig(OpenRecord):
    base_model_name_or_path: str
    revision: str | None = None


def checkpoint_identity(model: str, revision: str | None, *, loading_began: float) -> dict[str, Any]:
    """Tells a checkpoint whose loading began at a time, in seconds since the epoch, from every other one.

    A hub name is told by the commit that its files belong to; a folder by the SHA-256 of every file that loading may
    read, whole, so that weights trained anew in place are another checkpoint, and a copy elsewhere is the same one; a
    GGUF file by its own SHA-256. An adapter's has its base's under `base`; `not_cacheable` says why nothing is sure.
    """
    place, commit = located(model, revision)
    folder, gguf = Path(place), gguf_file(place)
    if gguf is None and not folder.is_dir():
        return _hub_identity(place, commit, loading_began)
    files = list(_files_read(folder)) if gguf is None else [gguf]
    newest = max((max(status.st_mtime, status.st_ctime) for status in map(os.stat, files)), default=0.0)
    # A GGUF file is read alone, so it is the same one under any name and beside anything.
    identity: dict[str, Any] = {"files": _digest_of(folder, files)} if gguf is None else {"gguf": file_digest(gguf)}
    if newest >= loading_began:
        identity["not_cacheable"] = f"files of {model!r} were written while it was loaded or after that"
    return identity if gguf is not None else _with_base(identity, folder / _ADAPTER_CONFIG, loading_began)


def _hub_identity(model: str, revision: str | None, loading_began: float) -> dict[str, Any]:
    from huggingface_hub import try_to_load_from_cache

    for name in (_ADAPTER_CONFIG, "config.json"):
        try:
            found = try_to_load_from_cache(model, name, revision=revision)
        except ValueError:  # no name that the hub could have, such as a folder that is gone
            break
        if isinstance(found, str):
            snapshot = Path(found).parent
            return _with_base({"name": model, "revision": snapshot.name}, snapshot / _ADAPTER_CONFIG, loading_began)
    return {"name": model, "not_cacheable": f"the commit of {model!r} is not in the hub's local cache"}


def _with_base(identity: dict[str, Any], adapter_config: Path, loading_began: float) -> dict[str, Any]:
    """Adds the base model's identity to an adapter's."""
    if not adapter_config.is_file():
        return identity
    way_out = "correct the adapter's file"
    config = record_of_file(_AdapterConfig, adapter_config, way_out, error=CheckpointError, finite=False)
    if os.path.realpath(config.base_model_name_or_path) == os.path.realpath(adapter_config.parent):
        raise CheckpointError(f"{adapter_config} names its own folder as base_model_name_or_path: {way_out}")
    base = checkpoint_identity(config.base_model_name_or_path, config.revision, loading_began=loading_began)
    reasons = {} if "not_cacheable" not in base else {"not_cacheable": base.pop("not_cacheable")}
    return reasons | identity | {"base": base}


def _files_read(folder: Path) -> Iterator[Path]:
    """The files that loading from a folder may read, in a fixed order; rather too many than too few."""
    code = (path for path in folder.rglob("*.py") if path.parent != folder)
    for path in sorted({*folder.iterdir(), *(folder / _TEMPLATES).glob("*"), *code}):
        unread = path.suffix in _UNREAD_SUFFIXES or path.name in _UNREAD_NAMES or path.name.startswith(".")
        if path.is_file() and not unread:
            yield path


def _digest_of(folder: Path, files: list[Path]) -> str:
    # hashlib lets other threads run, so shards are read side by side.
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(file_digest, files))
    listed = [[path.relative_to(folder).as_posix(), digest] for path, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
