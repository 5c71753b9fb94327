"""Files of samples: Parquet with one row a sample, written as they come, and read as a `datasets.Dataset`.

A file holds no prompts: they are rendered when training starts, with the model's own template. Its metadata say what it
was made of and with which versions, so that a trained model can cite it.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from r1ranker_ir.errors import DataFileError, InputError, StorageError, missing_extra
from r1ranker_ir.files.partial import growing_file
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.streams import check_place, is_stream
from r1ranker_ir.types import TASKS

from .records import Sample, sample_strategies

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

COLUMNS = ("id", "source", "task", "strategy", "aim", "context", "candidate_ids", "candidates", "gains")
METADATA_KEY = "r1ranker"
ROWS_AT_ONCE = 1000
"""Rows of a row group: what a writer or a check holds in memory."""
_LIST_COLUMNS = ("candidate_ids", "candidates", "gains")


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


class SampleWriter:
    """Writes samples to a Parquet file as they come, with further columns of text; a context manager.

    The rows go to `<output>.partial`, which gets the file's name when all went well and is removed otherwise. The same
    samples and metadata give the same bytes (with the same version of pyarrow).
    """

    def __init__(self, output: str | Path, *more: str, private: bool = False) -> None:
        self.output = Path(output)
        self.rows = 0
        self._more, self._private = more, private
        self._buffer: list[dict[str, Any]] = []
        self._writer: Any = None
        with needing_parquet():
            import pyarrow.parquet

        self._arrow = pyarrow
        self._place = ExitStack()
        if not is_stream(output):
            check_place(output, "output")

    def __enter__(self) -> Self:
        try:
            partial = self._place.enter_context(growing_file(self.output, "output", private=self._private))
            self._schema = sample_schema(*self._more)
            self._writer = self._arrow.parquet.ParquetWriter(partial, self._schema, compression="zstd")
        except OSError as error:
            self._place.close()
            raise InputError(f"can't write {str(self.output)!r}: {error.strerror}: choose another output") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with ExitStack() as closing:
                closing.push(self._place.pop_all())
                closing.callback(self._writer.close)
                if error is not None:
                    raise error
                self._flush()
        except OSError as failed:
            if failed is error:
                return
            raise StorageError(f"can't write {str(self.output)!r}: {failed.strerror or failed}: make room") from failed
        except BaseException as failed:
            if failed is not error:
                raise

    def write(self, sample: Sample, **more: str) -> None:
        """Writes one sample, with its further columns."""
        if self._writer is None:
            raise InputError("this SampleWriter is not open: use it in a with statement")
        self._buffer.append(storable(row_of(sample) | more))
        self.rows += 1
        if len(self._buffer) >= ROWS_AT_ONCE:
            self._flush()

    def describe(self, metadata: Mapping[str, Any]) -> None:
        """Sets what the file says of itself; versions of the libraries are added."""
        said = {**metadata, "versions": versions()}
        text = json.dumps(said, ensure_ascii=False, sort_keys=True)
        self._writer.add_key_value_metadata({METADATA_KEY: storable(text)})

    def _flush(self) -> None:
        if self._buffer:
            self._writer.write_table(self._arrow.Table.from_pylist(self._buffer, self._schema))
            self._buffer.clear()


def read_samples(paths: str | Path | Sequence[str | Path], *, streaming: bool = False) -> datasets.Dataset:
    """Reads sample files, after a check of every row."""
    with needing_parquet():
        import datasets
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise InputError("no sample file is given: name at least one")
    for path in files:
        check_samples(path)
    names = [str(path) for path in files]
    with _bars_on_terminals_alone():
        return datasets.load_dataset(
            "parquet", data_files=names, split="train", streaming=streaming, columns=list(COLUMNS)
        )


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
        _check_columns(file.schema_arrow, path)
        if file.metadata.num_rows == 0:
            raise DataFileError(f"{path}: no row: a sample file holds at least one")
        count = int(file.metadata.num_rows)
    for where, row in parquet_rows(path, COLUMNS):
        _check_row(row, where)
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


@contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    if shown and not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


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
        import pyarrow
        import pyarrow.parquet
    if not Path(path).is_file():
        raise InputError(f"sample file {str(path)!r} does not exist: `r1ranker data` writes one")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise DataFileError(f"{path}: not a Parquet file that can be read ({error}): write it again") from error


def _check_columns(schema: Any, path: str | Path) -> None:
    from pyarrow import types

    for name in COLUMNS:
        if name not in schema.names:
            raise DataFileError(
                f"{path}: column {name!r} is missing (there are {', '.join(schema.names)}): a sample file has "
                f"{', '.join(COLUMNS)}"
            )
        found = inner = schema.field(name).type
        is_list = types.is_list(found) or types.is_large_list(found)
        if is_list and name in _LIST_COLUMNS:
            inner = found.value_type
        text = types.is_string(inner) or types.is_large_string(inner)
        numbers = types.is_floating(inner) or types.is_integer(inner)
        needed = {"gains": "a list of numbers", "candidates": "a list of texts", "candidate_ids": "a list of texts"}
        if is_list != (name in _LIST_COLUMNS) or not (numbers if name == "gains" else text):
            raise DataFileError(f"{path}: column {name!r} is of type {found}: {needed.get(name, 'text')} is needed")


def _check_row(row: Mapping[str, Any], where: str) -> None:
    for name, value in row.items():
        if value is None or (name in _LIST_COLUMNS and any(entry is None for entry in value)):
            raise DataFileError(f"{where}: column {name!r} holds a null: every value is needed")
    for name, allowed in (("task", TASKS), ("strategy", sample_strategies())):
        if row[name] not in allowed:
            raise DataFileError(f"{where}: column {name!r} is {row[name]!r}: use one of {', '.join(allowed)}")
    if not row["context"].strip():
        raise DataFileError(f"{where}: column 'context' is blank: give at least one word")
    count = len(row["candidates"])
    if count < 2:
        raise DataFileError(f"{where}: column 'candidates' has {count}: at least 2 are needed to compare")
    for name in ("candidate_ids", "gains"):
        if len(row[name]) != count:
            raise DataFileError(
                f"{where}: column {name!r} has {len(row[name])} values for {count} candidates: give one each"
            )
    for gain in row["gains"]:
        if not 0 <= gain < float("inf"):
            raise DataFileError(f"{where}: column 'gains' holds {gain!r}: a finite number of at least 0 is needed")


def write_samples(output: str | Path, samples: Iterable[Sample], metadata: Mapping[str, Any] | None = None) -> int:
    """Writes a whole sample file; see `SampleWriter`."""
    with SampleWriter(output) as writer:
        for sample in samples:
            writer.write(sample)
        writer.describe(metadata or {})
    return writer.rows
