"""The record of a training: its method, data, seed, arguments and versions, as a trained folder carries it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.training.data.sample_files import METADATA_KEY

LIBRARIES = ("r1ranker-ir", "trl", "transformers", "torch", "peft", "datasets", "accelerate")
# Arguments that say where, how often it is noted and on what machine, or that the record states elsewhere.
_NO_SETTINGS = frozenset(
    ("output_dir", "run_name", "resume_from_checkpoint", "disable_tqdm", "seed", "rewards", "local_rank", "debug")
    + ("deepspeed_plugin", "distributed_state", "parallelism_config", "model", "revision", "train_files")
    + ("held_out_files", "activation_checkpointing", "activation_checkpointing_kwargs")
)
_NO_SETTINGS_FROM = ("logging_", "log_", "save_", "report_", "hub_", "push_", "dataloader_")


@dataclass(frozen=True)
class DataFile:
    """A file that a model was trained on or measured with.

    Args:
        name: its file name, without folders: those say something of a machine only.
        sha256: of its bytes, in hexadecimal.
        rows: how many samples it holds, if that is known.
        metadata: what its maker wrote into it.
    """

    name: str
    sha256: str
    rows: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingRecord:
    """What a model was trained with: the key `training` of `r1ranker.json`.

    Args:
        method: one of `arguments.METHODS`.
        base_model: a hub name or a folder's name.
        base_revision: of the hub.
        strategies: what was trained.
        data: the training's files, in order.
        held_out: the files that it was measured with.
        seed: of data order and sampling.
        rewards: names of the reward functions, none for SFT.
        arguments: arguments of the trainer that differ from their defaults.
        libraries: name to version.
        steps: optimizer steps taken.
        generated_tokens: tokens that the model wrote in training.
        seconds: of the training, the time of all its parts together.
        before: held-out measures of the base model.
        after: held-out measures of the trained one.
    """

    method: str
    base_model: str
    strategies: tuple[str, ...]
    data: tuple[DataFile, ...]
    seed: int
    arguments: Mapping[str, Any]
    libraries: Mapping[str, str]
    base_revision: str | None = None
    held_out: tuple[DataFile, ...] = ()
    rewards: tuple[str, ...] = ()
    steps: int = 0
    generated_tokens: int | None = None
    seconds: float | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as JSON, without what is empty."""
        content = dataclasses.asdict(self)
        return {key: value for key, value in content.items() if value not in (None, (), [], {})}


def describe_file(path: str | Path, rows: int | None = None) -> DataFile:
    """Says which file a model was trained on.

    Args:
        path: any file; of a Parquet file rows and metadata are read.
        rows: how many samples it holds, for other files.

    Returns:
        Its description.

    Raises:
        InputError: if it can't be read.
        DataFileError: if it should be a Parquet file and is none.
    """
    path = Path(path)
    try:
        digest = file_digest(path)
    except OSError as error:
        raise InputError(f"data file {str(path)!r} can't be read: {error.strerror}") from error
    metadata: dict[str, Any] = {}
    if path.suffix == ".parquet":
        rows, metadata = _parquet_facts(path)
    return DataFile(path.name, digest, rows, metadata)


def _parquet_facts(path: Path) -> tuple[int, dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        facts = parquet.read_metadata(path)
    except (ArrowException, OSError) as error:
        raise DataFileError(f"{path}: not a Parquet file that can be read ({error}): write it again") from error
    try:
        said = parse_json((facts.metadata or {}).get(METADATA_KEY.encode(), b"{}"), finite=False)
    except ValueError as error:
        raise DataFileError(f"{path}: its metadata {METADATA_KEY!r} are not JSON: write the file again") from error
    if not isinstance(said, dict):
        raise DataFileError(f"{path}: its metadata {METADATA_KEY!r} are no JSON object: write the file again")
    return facts.num_rows, said


def library_versions() -> dict[str, str]:
    """The versions of Python and of the installed libraries that a training depends on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def changed_arguments(config: Any) -> dict[str, Any]:
    """Picks the arguments of a trainer that differ from their defaults.

    Args:
        config: a dataclass of arguments, such as TRL's.

    Returns:
        Names and values that JSON can hold; without the seed, paths, tokens of the hub, and what else does not say
        what was learned.
    """
    changed = {}
    for argument in dataclasses.fields(config):
        if not argument.init or argument.name in _NO_SETTINGS or argument.name.startswith(_NO_SETTINGS_FROM):
            continue
        value = getattr(config, argument.name)
        if argument.default_factory is not dataclasses.MISSING:
            default = argument.default_factory()
        else:
            default = argument.default
        plain = _plain(value)
        if argument.name == "pad_to_multiple_of" and plain is None:
            continue  # what TRL makes of its default
        if plain != _plain(default) and plain is not NotImplemented:
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
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return NotImplemented
