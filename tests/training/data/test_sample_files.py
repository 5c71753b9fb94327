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


def test_rows_come_back_as_they_were_written_in_the_order_of_their_files(file: Path, tmp_path: Path) -> None:
    rows = read_samples(file)
    assert rows.column_names == list(COLUMNS)
    assert list(rows) == [row_of(sample_of(number, 2 + number % 3)) for number in range(5)]
    assert rows[1] == {
        **{"id": "q1", "source": "mine", "task": "item", "strategy": "iterative", "aim": "", "context": "query 1"},
        "candidate_ids": ["d0", "d1", "d2"],
        "candidates": ["text 0 of 1 – ü", "text 1 of 1 – ü", "text 2 of 1 – ü"],
        "gains": [0.0, 0.5, 0.0],
    }
    write_samples(tmp_path / "other", [sample_of(9, strategy="setwise")])
    assert read_samples([tmp_path / "other", str(file)])["id"] == ["q9", *rows["id"]]
    # A file that was written again is not read from the cache.
    write_samples(file, [sample_of(77)])
    assert read_samples(file)["id"] == ["q77"]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_files, "ROWS_AT_ONCE", 4)
    said = {"a": {"b": 1, "a": {"y": 1, "x": 2}}, "b": {"a": {"x": 2, "y": 1}, "b": 1}}
    for name, metadata in said.items():
        write_samples(tmp_path / name, (sample_of(number) for number in range(10)), metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
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
    path, partial = tmp_path / "samples.parquet", tmp_path / "samples.parquet.partial"
    path.write_text("an older file")

    def failing() -> Any:
        yield sample_of(1)
        assert partial.is_file()
        raise RuntimeError("stopped")

    partial.write_text("left behind")
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError):
        write_samples(path, failing())
    assert "left behind" in caplog.text
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        **{"samples.parquet": "an older file", "samples.parquet.partial.1": "left behind"}
    }
    assert write_samples(path, [sample_of(1)]) == check_samples(path) == 1
    assert not partial.exists()
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "x", r"folder '.*none' does not exist")):
        with pytest.raises(InputError, match=said):
            write_samples(place, [])


def table(**changed: Any) -> Any:
    rows = [row_of(sample_of(number)) for number in range(3)]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return pyarrow.table({name: values for name, values in (columns | changed).items() if values is not None})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gains": None}, "column 'gains' is missing (there are id, source"),
        ({"context": [1, 2, 3]}, "row 1: field 'context' is 1: give a text"),
        ({"candidates": ["a", "b", "c"]}, "row 1: field 'candidates' is 'a': give a list"),
        ({"context": ["a", " ", "c"]}, "row 2: field 'context' is ' ': give at least one word"),
        ({"task": ["item", "item", "film"]}, "row 3: field 'task' is 'film': it must be 'passage', 'item' or 'model'"),
        ({"strategy": ["windows", "direct", "direct"]}, "row 1: field 'strategy' is 'windows': use one of iterative"),
        ({"gains": [[1.0, 0.0, 0.0], [1.0, 0.0], [0.0] * 3]}, "row 2: the record: gains has 2 values for 3 candidates"),
        ({"gains": [[float("nan"), 0.0, 0.0], [0.0] * 3, [0.0] * 3]}, "row 1: field 'gains[0]' is nan: give a finite"),
        ({"candidate_ids": [["a"] * 3, ["a"] * 4, ["a"] * 3]}, "row 2: the record: candidate_ids has 4 values for 3"),
        ({"candidates": [["a"] * 3, ["a"], ["a"] * 3]}, "row 2: field 'candidates' is ['a']: give at least 2"),
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
    assert str(caught.value).startswith(f"{path}: {said}")


def test_large_texts_and_whole_numbers_are_read_too(tmp_path: Path) -> None:
    large = table(gains=[[1, 0, 0]] * 3)
    large = large.set_column(5, "context", large["context"].cast(pyarrow.large_string()))
    parquet.write_table(large, tmp_path / "samples.parquet")
    assert check_samples(tmp_path / "samples.parquet") == 3


def test_files_that_are_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.parquet").write_text(json.dumps({"a": 1}))
    parquet.write_table(table().slice(0, 0), tmp_path / "empty.parquet")
    for name, said in (
        ("none.parquet", r"'.*none\.parquet' does not exist: `r1ranker data`"),
        ("text.parquet", r"text\.parquet: not a Parquet file"),
        ("empty.parquet", r"empty\.parquet: no row"),
    ):
        with pytest.raises(InputError, match=said):
            read_samples(tmp_path / name)
    with pytest.raises(InputError, match="no sample file is given"):
        read_samples([])
    for module in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    for use in (lambda path: write_samples(path, []), read_samples, read_metadata, check_samples):
        with pytest.raises(MissingExtraError, match=r"pip install \"r1ranker-ir\[train\]\""):
            use(tmp_path / "samples.parquet")
