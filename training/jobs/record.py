"""What a trained folder carries of its training: method, data, seed, arguments and versions, and held-out ranks."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.files.records import OpenRecord, Record
from r1ranker_ir.training.data.sample_files import opened_parquet, read_metadata, versions

from .json_records import read_record, write_record

HELD_OUT_FILE = "held_out.json"
"""How each held-out list was ranked before and after the training."""
LIBRARIES = ("r1ranker-ir", "trl", "transformers", "torch", "peft", "datasets", "accelerate")
# Arguments that say where, how often it is noted and on what machine, or that the record states elsewhere.
_NO_SETTINGS = frozenset(
    ("output_dir", "run_name", "resume_from_checkpoint", "disable_tqdm", "seed", "rewards", "local_rank", "debug")
    + ("deepspeed_plugin", "distributed_state", "parallelism_config", "model", "revision", "train_files")
    + ("held_out_files", "activation_checkpointing", "activation_checkpointing_kwargs")
    # May hold secrets: the record says of the judge what its backend tells of itself.
    + ("judge_options", "judge_cache")
)
_NO_SETTINGS_FROM = ("logging_", "log_", "save_", "report_", "hub_", "push_", "dataloader_")


class DataFile(OpenRecord):
    """A file that a model was trained on or measured with."""

    name: str = ""
    sha256: str
    rows: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class TrainingRecord(OpenRecord):
    """What a model was trained with: the key `training` of `r1ranker.json`."""

    method: str = ""
    base_model: str = ""
    strategies: list[str] = Field(default_factory=list)
    data: list[DataFile] = Field(default_factory=list)
    seed: int
    arguments: dict[str, Any] = Field(default_factory=dict)
    libraries: dict[str, str] = Field(default_factory=dict)
    base_revision: str | None = None
    held_out: list[DataFile] = Field(default_factory=list)
    rewards: list[str] = Field(default_factory=list)
    task_order: list[str] = Field(default_factory=list)
    judge: dict[str, Any] = Field(default_factory=dict)
    steps: int = 0
    generated_tokens: int | None = None
    seconds: float | None = None
    before: dict[str, float] = Field(default_factory=dict)
    after: dict[str, float] = Field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as JSON, without what is empty."""
        return {key: value for key, value in self.model_dump().items() if value not in (None, [], {})}


class HeldOutRanks(Record):
    """The reciprocal ranks of held-out lists, in the order of `ids`; `before` is empty where it is not known.

    `files` names the file of each list; it is empty in folders of earlier versions.
    """

    ids: list[str]
    before: list[float]
    after: list[float]
    files: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        known = len(self.before) in (0, len(self.ids)) and len(self.files) in (0, len(self.ids))
        if len(self.after) != len(self.ids) or not known:
            raise ValueError(f"give one number per list, of {len(self.ids)} lists")
        return self


def write_ranks(
    folder: str | Path,
    ids: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    files: Sequence[str] = (),
) -> None:
    """Writes the file into a folder; ranks that do not fit the lists, as after a change of lists, are left out."""
    if len(after) == len(ids):
        known = list(before) if len(before) == len(ids) else []
        content = {"ids": list(ids), "before": known, "after": list(after)}
        content |= {"files": list(files)} if files else {}
        write_record(Path(folder) / HELD_OUT_FILE, content, "output_dir")


def read_ranks(folder: str | Path) -> HeldOutRanks | None:
    """Reads the file of a trained folder; `None` if there is no such file."""
    path = Path(folder) / HELD_OUT_FILE
    return read_record(HeldOutRanks, path, "remove it, or train again", finite=True) if path.exists() else None


def describe_file(path: str | Path) -> DataFile:
    """Says which file a model was trained on."""
    path = Path(path)
    try:
        digest = file_digest(path)
    except OSError as error:
        raise InputError(f"data file {str(path)!r} can't be read: {error.strerror}") from error
    if path.suffix != ".parquet":
        return DataFile(name=path.name, sha256=digest)
    with opened_parquet(path) as file:
        return DataFile(name=path.name, sha256=digest, rows=file.metadata.num_rows, metadata=read_metadata(path))


def library_versions() -> dict[str, str]:
    """The versions of Python and of the installed libraries that a training depends on."""
    return {"python": platform.python_version(), **versions(LIBRARIES)}


def changed_arguments(config: Any) -> dict[str, Any]:
    """Picks the arguments of a trainer that differ from their defaults."""
    changed = {}
    for argument in dataclasses.fields(config):
        if not argument.init or argument.name in _NO_SETTINGS or argument.name.startswith(_NO_SETTINGS_FROM):
            continue
        made = argument.default_factory
        default = argument.default if made is dataclasses.MISSING else made()
        plain = _plain(getattr(config, argument.name))
        made_by_trl = argument.name == "pad_to_multiple_of" and plain is None
        if plain not in (_plain(default), NotImplemented) and not made_by_trl:
            changed[argument.name] = plain
    return changed


def _plain(value: Any) -> Any:
    """A value as JSON would give it back, or NotImplemented for one that it can't hold."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else NotImplemented
