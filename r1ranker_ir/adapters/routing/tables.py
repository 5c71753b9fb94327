"""Reading CSV files as rows of named cells, with errors that name the line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.errors import DataFileError
from r1ranker_ir.files.json_lines import WHITE_SPACE, readable_lines

_LONGEST_CELL = 2**31 - 1


class Row(NamedTuple):
    """One row of a table: its line (the last of several), `router.csv:7`, and column to cell without white space."""

    line: int
    where: str
    cells: dict[str, str]


def is_table(path: Path) -> bool:
    """Whether a file is read as a table, by its name: `.csv` or `.tsv`, also with `.gz` behind it."""
    return path.name.removesuffix(".gz").endswith((".csv", ".tsv"))


def read_table(path: Path, problems: Problems | None = None) -> tuple[tuple[str, ...], list[Row]]:
    """Reads a CSV file with a header (`.tsv` is split at tabs); rows of another width are problems, or else errors."""
    limit = csv.field_size_limit(_LONGEST_CELL)  # a question may be longer than what csv takes unless told otherwise
    rows = []
    try:
        reader = csv.reader(_text_lines(path), delimiter="\t" if ".tsv" in path.suffixes else ",", strict=True)
        header = tuple(name.strip() for name in next(reader, ()))
        if not header:
            raise DataFileError(f"{path}: no header: the first line has to name the columns")
        if repeated := [name for name, times in Counter(header).items() if times > 1 or not name]:
            raise DataFileError(f"{path}:1: column {repeated[0]!r}: give each column a name of its own")
        for cells in ([cell.strip(WHITE_SPACE) for cell in cells] for cells in reader):
            where = f"{path}:{reader.line_num}"
            detail = f"{len(cells)} cells for {len(header)} columns: give one each"
            if len(cells) == len(header) and any(cells):
                rows.append(Row(reader.line_num, where, dict(zip(header, cells, strict=True))))
            elif any(cells) and problems is None:
                raise DataFileError(f"{where}: unequal columns: {detail}")
            elif any(cells) and problems is not None:
                problems.add(where, "unequal columns", detail)
    except csv.Error as error:
        raise DataFileError(f"{path}: damaged ({error}): write the file again") from None
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path}: not UTF-8 ({error.reason}): convert the file") from None
    finally:
        csv.field_size_limit(limit)
    return header, rows


def _text_lines(path: Path) -> Iterator[str]:
    for number, raw in readable_lines(path):
        # A line may hold others that end in a carriage return alone.
        yield from io.StringIO(raw.decode("utf-8-sig" if number == 1 else "utf-8"), newline="")
