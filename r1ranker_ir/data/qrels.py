"""Files of relevance judgments: BEIR's TSV and TREC qrels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import WHITE_SPACE, split_columns, text_lines
from r1ranker_ir.files.plain_data import whole_number_of
from r1ranker_ir.quoting import quoted

if TYPE_CHECKING:
    from ir_measures import Qrel

GREATEST_GRADE = 100_000
"""The largest grade of a judgment: trec_eval keeps a counter for each grade up to it, and runs out of memory."""
_BEIR_HEADER = ["query-id", "corpus-id", "score"]


def read_beir_qrels(path: Path) -> list[Qrel]:
    """Reads query id, document id and grade, split by tabs; a header line is passed over."""
    rows = ((number, [cell.strip(WHITE_SPACE) for cell in line.split("\t")]) for number, line in text_lines(path))
    found = (row for row in rows if row != (1, _BEIR_HEADER))
    return _read(path, found, (0, 1, 2), "query id, document id and grade are needed, split by tabs")


def read_trec_qrels(path: Path) -> list[Qrel]:
    """Reads query id, 0, document id and grade, split by white space."""
    rows = ((number, split_columns(line)) for number, line in text_lines(path))
    return _read(path, rows, (0, 2, 3), "query id, 0, document id and grade are needed")


def read_qrels(path: Path) -> list[Qrel]:
    """Reads BEIR's TSV if the name ends in .tsv, else TREC qrels."""
    if not path.is_file():
        raise InputError(f"qrels file {str(path)!r} does not exist: check the path")
    return read_beir_qrels(path) if path.suffix == ".tsv" else read_trec_qrels(path)


def gains_of(qrels: Iterable[Qrel]) -> dict[str, dict[str, float]]:
    """Query id to document id to gain; a grade below 0 is no worse than not relevant, as measures take it."""
    gains: dict[str, dict[str, float]] = {}
    for judgment in qrels:
        gains.setdefault(judgment.query_id, {})[judgment.doc_id] = max(0.0, float(judgment.relevance))
    return gains


def check_grade(grade: int, where: str) -> int:
    """Refuses a grade that is too large to be counted."""
    if abs(grade) > GREATEST_GRADE:
        raise DataFileError(f"{where}: grade {quoted(grade)} is beyond ±{GREATEST_GRADE}: give grades such as 0 to 3")
    return grade


def _read(path: Path, rows: Iterable[tuple[int, list[str]]], places: tuple[int, int, int], needed: str) -> list[Qrel]:
    from ir_measures import Qrel

    grades: dict[tuple[str, str], int] = {}
    for number, cells in rows:
        if len(cells) != places[-1] + 1:
            raise DataFileError(f"{path}:{number}: {len(cells)} columns: {needed}")
        query_id, doc_id, cell = (cells[place] for place in places)
        grade = check_grade(whole_number_of(cell, f"{path}:{number}: grade"), f"{path}:{number}")
        if grades.setdefault((query_id, doc_id), grade) != grade:
            raise DataFileError(
                f"{path}:{number}: document {doc_id!r} of query {query_id!r} is judged {grade} here and "
                f"{grades[query_id, doc_id]} above: keep one judgment"
            )
    return [Qrel(query_id, doc_id, grade) for (query_id, doc_id), grade in grades.items()]
