"""How many model calls a run took per query: from its traces, a suite's manifest, or as a number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import Field

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.records import OpenRecord, checked_lines, checked_record
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text


class _Counts(OpenRecord):
    calls: Annotated[int, Field(ge=0)]
    queries: Annotated[int, Field(ge=0)] = 1


class _Traced(OpenRecord):
    query_id: str
    usage: _Counts


class _DataSet(OpenRecord):
    name: str
    counts: _Counts | None


class _Manifest(OpenRecord):
    datasets: list[_DataSet]


def read_calls(source: str, run: str) -> float:
    """The mean calls per query; of a suite's manifest, those of the data set whose folder holds the run."""
    try:
        number = float(source)
    except ValueError:
        path = Path(source)
        return _of_manifest(path, run) if path.suffix == ".json" else _of_trace(path)
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"calls of {run!r}: {source!r} is not a number of calls")
    return number


def _of_trace(path: Path) -> float:
    calls: dict[str, int] = {}
    for number, traced in checked_lines(_Traced, path):
        if traced.query_id in calls:
            raise DataFileError(
                f"{path}:{number}: query {traced.query_id!r} occurs twice: keep one line for each query"
            )
        calls[traced.query_id] = traced.usage.calls
    if not calls:
        raise DataFileError(f"{path}: holds no query: give the trace of a finished run")
    return sum(calls.values()) / len(calls)


def _of_manifest(path: Path, run: str) -> float:
    hint = "give the manifest of r1ranker suite"
    text = read_small_text(path, str(path), hint, error=DataFileError, most=RECORD_BYTES)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataFileError(f"{path}: not a suite's manifest ({error}): {hint}") from error
    listed = checked_record(_Manifest, content, f"{path}: not a suite's manifest").datasets
    means = {
        each.name: each.counts.calls / each.counts.queries
        for each in listed
        if each.counts is not None and each.counts.queries
    }
    inside = [name for name in means if (path.parent / name).resolve() == Path(run).resolve().parent]
    chosen = inside or list(means)
    if len(chosen) != 1:
        raise InputError(
            f"{str(path)!r} counts calls of {', '.join(means) or 'none'}, and {run!r} lies in the folder of none of "
            f"these: give its trace, or the number of calls"
        )
    return means[chosen[0]]
