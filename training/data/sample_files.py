"""Files of samples: Parquet with one row a sample, written as they come, and read as a `datasets.Dataset`.

A file holds no prompts: they are rendered when training starts, with the model's own template. Its metadata say what it
was made of and with which versions, so that a trained model can cite it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from r1ranker_ir.errors import DataFileError, InputError, StorageError, missing_extra
from r1ranker_ir.files.partial import growing_file
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.records import OpenRecord, Words, checked_record
from r1ranker_ir.types import Task

from .records import Sample, sample_strategies

if TYPE_CHECKING:
    import datasets

COLUMNS = ("id", "source", "task", "strategy", "aim", "context", "candidate_ids", "candidates", "gains")
METADATA_KEY = "r1ranker"
ROWS_AT_ONCE = 1000
"""Rows of a row group: what a writer or a check holds in memory."""


def _trainable(strategy: str) -> str:
    if strategy not in (known := sample_strategies()):
        raise ValueError(f"use one of {', '.join(known)}")
    return strategy


class SampleRow(OpenRecord):
    """A row of a sample file; rows of completions may leave out what has a default."""

    id: str = ""
    source: str = ""
    task: Task = "passage"
    strategy: Annotated[str, AfterValidator(_trainable)]
    aim: str = ""
    context: Words
    candidate_ids: list[str] = Field(default_factory=list)
    candidates: Annotated[list[str], Field(min_length=2)]
    gains: list[Annotated[float, Field(ge=0)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        for name in self.model_fields_set & {"candidate_ids", "gains"}:
            if (given := len(getattr(self, name))) != len(self.candidates):
                raise ValueError(f"{name} has {given} values for {len(self.candidates)} candidates: give one each")
        return self


def row_of(sample: Sample) -> dict[str, Any]:
    """Turns a sample into a row of a file."""
    record = sample.record
    return {
        "id": record.request.query_id,
        "source": record.source,
        "task": record.request.task,
        "strategy": sample.strategy,
        "aim": record.request.aim,
        "context": record.request.query,
        "candidate_ids": [candidate.id for candidate in record.request.candidates],
        "candidates": [candidate.text for candidate in record.request.candidates],
        "gains": list(record.gains),
    }


@dataclass
class SampleWriter:
    """Writes samples to an open Parquet file."""

    _parquet: Any
    _schema: Any
    rows: int = 0
    _buffer: list[dict[str, Any]] = field(default_factory=list)

    def write(self, sample: Sample, **more: str) -> None:
        """Writes one sample, with its further columns."""
        self._buffer.append(storable(row_of(sample) | more))
        self.rows += 1
        if len(self._buffer) >= ROWS_AT_ONCE:
            self.flush()

    def describe(self, metadata: Mapping[str, Any]) -> None:
        """Sets what the file says of itself; versions of the libraries are added."""
        text = json.dumps({**metadata, "versions": versions()}, ensure_ascii=False, sort_keys=True)
        self._parquet.add_key_value_metadata({METADATA_KEY: storable(text)})

    def flush(self) -> None:
        """Hands over what is still in memory."""
        import pyarrow

        if self._buffer:
            self._parquet.write_table(pyarrow.Table.from_pylist(self._buffer, self._schema))
            self._buffer.clear()


@contextmanager
def sample_writer(output: str | Path, *more: str, private: bool = False) -> Iterator[SampleWriter]:
    """Opens a Parquet file for samples with further columns of text; it is there only once it is whole.

    The same samples and metadata give the same bytes (with the same version of pyarrow).
    """
    with needing_parquet():
        import pyarrow.parquet
    schema = sample_schema(*more)
    try:
        with (
            growing_file(output, "output", private=private) as partial,
            pyarrow.parquet.ParquetWriter(partial, schema, compression="zstd") as parquet,
        ):
            writer = SampleWriter(parquet, schema)
            yield writer
            writer.flush()
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"can't write {str(output)!r}: {reason}: make room, or choose another output") from error


def write_samples(output: str | Path, samples: Iterable[Sample], metadata: Mapping[str, Any] | None = None) -> int:
    """Writes a whole sample file; returns how many samples it holds."""
    with sample_writer(output) as writer:
        for sample in samples:
            writer.write(sample)
        writer.describe(metadata or {})
    return writer.rows


def read_samples(paths: str | Path | Sequence[str | Path]) -> datasets.Dataset:
    """Reads sample files, after a check of every row."""
    with needing_parquet():
        import datasets
    names = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not names:
        raise InputError("no sample file is given: name at least one")
    for name in names:
        check_samples(name)
    return datasets.load_dataset("parquet", data_files=names, split="train", columns=list(COLUMNS))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Reads what a file says of itself."""
    with opened_parquet(path) as file:
        said = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
    try:
        metadata = parse_json(said, finite=False) if said is not None else {}
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise DataFileError(f"{path}: its metadata {METADATA_KEY!r} are not a JSON object: write the file again")
    return metadata


def check_samples(path: str | Path) -> int:
    """Checks columns and rows of a sample file, and counts the rows."""
    with opened_parquet(path) as file:
        there, count = file.schema_arrow.names, int(file.metadata.num_rows)
    if lacking := [name for name in COLUMNS if name not in there]:
        raise DataFileError(
            f"{path}: column {lacking[0]!r} is missing (there are {', '.join(there)}): a sample file has "
            f"{', '.join(COLUMNS)}"
        )
    if count == 0:
        raise DataFileError(f"{path}: no row: a sample file holds at least one")
    for where, row in parquet_rows(path, COLUMNS):
        checked_record(SampleRow, row, where)
    return count


def parquet_rows(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file, each with its place in words."""
    with opened_parquet(path) as file:
        batches = file.iter_batches(ROWS_AT_ONCE, columns=None if columns is None else list(columns))
        for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
            yield f"{path}: row {number}", row


def storable(value: Any) -> Any:
    """Makes data of a row fit for Parquet, which holds valid Unicode only."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {name: storable(each) for name, each in value.items()}
    return [storable(each) for each in value] if isinstance(value, list | tuple) else value


def versions(libraries: Iterable[str] = ("r1ranker-ir", "pyarrow", "datasets")) -> dict[str, str]:
    """The versions of what makes and reads files, by name; libraries that are not installed are left out."""
    found = {}
    for name in libraries:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextmanager
def needing_parquet() -> Iterator[None]:
    """Turns a failed import into the error that names the extra."""
    try:
        yield
    except ImportError as error:
        raise missing_extra("A file of training samples", "train", error) from error


def sample_schema(*more: str) -> Any:
    """The Arrow schema of samples, with further columns of text."""
    import pyarrow

    texts, text = pyarrow.list_(pyarrow.string()), pyarrow.string()
    types = {"candidate_ids": texts, "candidates": texts, "gains": pyarrow.list_(pyarrow.float64())}
    return pyarrow.schema([(name, types.get(name, text)) for name in (*COLUMNS, *more)])


@contextmanager
def opened_parquet(path: str | Path) -> Iterator[Any]:
    """Opens a Parquet file; what is wrong with it, there or while it is read, names the file."""
    with needing_parquet():
        import pyarrow.parquet
    if not Path(path).is_file():
        raise InputError(f"sample file {str(path)!r} does not exist: `r1ranker data` writes one")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise DataFileError(f"{path}: not a Parquet file that can be read ({error}): write it again") from error
