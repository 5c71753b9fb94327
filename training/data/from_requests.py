"""Records from a file of ranking requests; see `r1ranker_ir.data.request_files` for its form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from r1ranker_ir.data.request_files import JudgedRequest, gives_answer_away, read_requests, warn_of_answers_given_away


def requested_records(
    path: str | Path, *, queries: int | None = None, source: str | None = None
) -> Iterator[JudgedRequest]:
    """Reads the first requests of a file, under the source that they name or another one."""
    read = given_away = 0
    for record in read_requests(path, queries=queries):
        read, given_away = read + 1, given_away + gives_answer_away(record)
        yield record if source is None else replace(record, source=source)
    warn_of_answers_given_away(given_away, read, str(path))
