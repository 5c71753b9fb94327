"""How many model calls a run took per query: from its traces, a suite's manifest, or as a number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import json_lines
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text


def read_calls(source: str, run: str) -> float:
    """The mean calls per query; of a suite's manifest, those of the data set whose folder holds the run."""
    try:
        number = float(source)
    except ValueError:
        return _of_file(Path(source), run)
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"calls of {run!r}: {source!r} is not a number of calls")
    return number


def _of_file(path: Path, run: str) -> float:
    if not path.is_file():
        raise InputError(
            f"calls of {run!r}: {str(path)!r} is not a file: give a trace, a suite's manifest, or a number"
        )
    try:
        return _of_manifest(path, run) if path.suffix == ".json" else _of_trace(path)
    except OSError as error:
        raise InputError(f"can't read {str(path)!r}: {error.strerror}: give another file") from error


def _of_trace(path: Path) -> float:
    calls: dict[str, int] = {}
    for number, record in json_lines(path):
        where = f"{path}:{number}"
        query_id, usage = record.get("query_id"), record.get("usage")
        count = usage.get("calls") if isinstance(usage, dict) else None
        if not isinstance(query_id, str) or not _is_count(count):
            raise DataFileError(
                f"{where}: query_id and usage.calls are needed, in a line for each query, as r1ranker rerank "
                f"--save-traces writes them"
            )
        if query_id in calls:
            raise DataFileError(f"{where}: query {query_id!r} occurs twice: keep one line for each query")
        calls[query_id] = count
    if not calls:
        raise DataFileError(f"{path}: holds no query: give the trace of a finished run")
    return sum(calls.values()) / len(calls)


def _of_manifest(path: Path, run: str) -> float:
    text = read_small_text(
        path, str(path), "give the manifest of r1ranker suite", error=DataFileError, most=RECORD_BYTES
    )
    try:
        content = parse_json(text)
        counted = {str(entry["name"]): entry["counts"] for entry in content["datasets"] if entry["counts"] is not None}
        means = {
            name: counts["calls"] / counts["queries"]
            for name, counts in counted.items()
            if _is_count(counts["calls"]) and _is_count(counts["queries"]) and counts["queries"]
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataFileError(f"{path}: not a suite's manifest ({error!r}): give the one of r1ranker suite") from error
    inside = [name for name in means if (path.parent / name).resolve() == Path(run).resolve().parent]
    chosen = inside or list(means)
    if len(chosen) != 1:
        named = ", ".join(means) or "none"
        raise InputError(
            f"{str(path)!r} counts calls of {named}, and {run!r} lies in the folder of none of these: give its trace, "
            f"or the number of calls"
        )
    return float(means[chosen[0]])


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
