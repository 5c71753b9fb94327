"""Sample files: Parquet that is whole or absent, the same bytes for the same samples, and checked when it is read."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.errors import DataFileError, InputError, MissingExtraError
from r1ranker_ir.training.data import sample_files
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import (
    COLUMNS,
    SampleWriter,
    check_samples,
    read_metadata,
    read_samples,
    row_of,
    versions,
    write_samples,
)
from r1ranker_ir.types import Candidate

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def sample_of(number: int, count: int = 3, strategy: str = "iterative") -> Sample:
    candidates = tuple(Candidate(f"d{place}", f"text {place} of {number} – ü") for place in range(count))
    gains = tuple(0.5 * (place == number % count) for place in range(count))
    return Sample(strategy, judged(f"query {number}", candidates, gains, "item", f"q{number}", "mine"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what datasets caches in the test's own folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "samples.parquet"
    write_samples(path, [sample_of(number, 2 + number % 3) for number in range(5)], {"counts": {"read": 5}})
    return path


def test_rows_come_back_as_they_were_written(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = read_samples(file)
    assert rows.column_names == list(COLUMNS)
    assert list(rows) == [row_of(sample_of(number, 2 + number % 3)) for number in range(5)]
    assert rows[1] == {
        **{"id": "q1", "source": "mine", "task": "item", "strategy": "iterative", "aim": "", "context": "query 1"},
        "candidate_ids": ["d0", "d1", "d2"],
        "candidates": ["text 0 of 1 – ü", "text 1 of 1 – ü", "text 2 of 1 – ü"],
        "gains": [0.0, 0.5, 0.0],
    }
    assert capfd.readouterr().err == ""


def test_several_files_are_read_in_their_order_and_streamed(tmp_path: Path, file: Path) -> None:
    import datasets

    other = tmp_path / "other.parquet"
    write_samples(other, [sample_of(9, strategy="setwise")])
    whole = read_samples([other, str(file)])
    streamed = read_samples([other, str(file)], streaming=True)
    assert whole["id"][:2] == ["q9", "q0"]
    assert isinstance(streamed, datasets.IterableDataset)
    assert list(streamed) == list(whole)


def test_a_file_that_was_written_again_is_not_read_from_the_cache(file: Path) -> None:
    read_samples(file)
    write_samples(file, [sample_of(77)])
    assert read_samples(file)["id"] == ["q77"]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_files, "ROWS_AT_ONCE", 4)
    for name in ("a", "b"):
        write_samples(tmp_path / name, (sample_of(number) for number in range(10)), {"b": 1, "a": {"y": 1, "x": 2}})
    write_samples(tmp_path / "c", (sample_of(number) for number in range(10)), {"a": {"x": 2, "y": 1}, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert parquet.ParquetFile(tmp_path / "a").metadata.num_row_groups == 3


def test_a_file_says_what_it_was_made_of(file: Path, tmp_path: Path) -> None:
    metadata = read_metadata(file)
    assert metadata == {"counts": {"read": 5}, "versions": versions()}
    assert metadata["versions"]["pyarrow"] == pyarrow.__version__
    assert set(metadata["versions"]) == {"r1ranker-ir", "pyarrow", "datasets"}
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "plain.parquet")
    assert read_metadata(tmp_path / "plain.parquet") == {}
    parquet.write_table(pyarrow.table({"a": [1]}).replace_schema_metadata({"r1ranker": "{"}), tmp_path / "odd.parquet")
    with pytest.raises(DataFileError, match="are not a JSON object"):
        read_metadata(tmp_path / "odd.parquet")


def test_a_file_is_there_once_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "samples.parquet"
    path.write_text("an older file")

    def failing() -> Any:
        yield sample_of(1)
        assert (tmp_path / "samples.parquet.partial").is_file()
        raise RuntimeError("stopped")

    (tmp_path / "samples.parquet.partial").write_text("left behind")
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError):
        write_samples(path, failing())
    assert "left behind" in caplog.text
    assert (tmp_path / "samples.parquet.partial.1").read_text() == "left behind"
    (tmp_path / "samples.parquet.partial.1").unlink()
    assert path.read_text() == "an older file"
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.parquet"]
    assert write_samples(path, [sample_of(1)]) == check_samples(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.parquet"]


def test_places_that_can_not_be_written_to_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        SampleWriter(tmp_path)
    with pytest.raises(InputError, match=r"folder '.*none' does not exist"):
        SampleWriter(tmp_path / "none" / "samples.parquet")
    with pytest.raises(InputError, match="not open"):
        SampleWriter(tmp_path / "samples.parquet").write(sample_of(1))


def table(**changed: Any) -> Any:
    rows = [row_of(sample_of(number)) for number in range(3)]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return pyarrow.table({name: values for name, values in (columns | changed).items() if values is not None})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gains": None}, "column 'gains' is missing (there are id, source"),
        ({"context": [1, 2, 3]}, "column 'context' is of type int64: text is needed"),
        ({"candidates": ["a", "b", "c"]}, "column 'candidates' is of type string: a list of texts"),
        ({"gains": [["1"], ["2"], ["3"]]}, "column 'gains' is of type list<"),
        ({"context": ["a", " ", "c"]}, "row 2: column 'context' is blank"),
        ({"context": ["a", None, "c"]}, "row 2: column 'context' holds a null"),
        ({"task": ["item", "item", "film"]}, "row 3: column 'task' is 'film': use one of passage, item, model"),
        ({"strategy": ["windows", "direct", "direct"]}, "row 1: column 'strategy' is 'windows': use one of iterative"),
        ({"gains": [[1.0, 0.0, 0.0], [1.0, 0.0], [0.0] * 3]}, "row 2: column 'gains' has 2 values for 3 candidates"),
        ({"gains": [[1.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.0] * 3]}, "row 2: column 'gains' holds -1.0"),
        ({"gains": [[float("nan"), 0.0, 0.0], [0.0] * 3, [0.0] * 3]}, "row 1: column 'gains' holds nan"),
        ({"gains": [[1.0, None, 0.0], [0.0] * 3, [0.0] * 3]}, "row 1: column 'gains' holds a null"),
        ({"candidate_ids": [["a"] * 3, ["a"] * 4, ["a"] * 3]}, "row 2: column 'candidate_ids' has 4 values for 3"),
        ({"candidates": [["a"] * 3, ["a"], ["a"] * 3]}, "row 2: column 'candidates' has 1: at least 2"),
    ],
)
def test_what_is_wrong_is_named_by_file_row_and_column(
    tmp_path: Path, changed: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_files, "ROWS_AT_ONCE", 1)
    path = tmp_path / "samples.parquet"
    parquet.write_table(table(**changed), path)
    with pytest.raises(DataFileError) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_large_texts_and_whole_numbers_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    large = table(gains=[[1, 0, 0]] * 3)
    large = large.set_column(5, "context", large["context"].cast(pyarrow.large_string()))
    parquet.write_table(large, path)
    assert check_samples(path) == 3


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text(json.dumps({"a": 1}))
    parquet.write_table(table().slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match=r"'.*none\.parquet' does not exist: `r1ranker data`"):
        read_samples(tmp_path / "none.parquet")
    with pytest.raises(DataFileError, match=r"text\.parquet: not a Parquet file"):
        read_samples(tmp_path / "text.parquet")
    with pytest.raises(DataFileError, match=r"empty\.parquet: no row"):
        read_samples(tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="no sample file is given"):
        read_samples([])


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for use in (SampleWriter, read_samples, read_metadata, check_samples):
        with pytest.raises(MissingExtraError, match=r"pip install \"r1ranker-ir\[train\]\""):
            use(tmp_path / "samples.parquet")
