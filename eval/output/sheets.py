"""A table as text, for the terminal and for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from r1ranker_ir.eval.measuring.measures import Evaluation

NOTHING = "–"
"""Stands where there is no figure."""


def figure(value: float | None, form: str = ".4f") -> str:
    """A figure in a form, or a dash where there is none."""
    return NOTHING if value is None else f"{value:{form}}"


@dataclass(frozen=True)
class Sheet:
    """A table as text."""

    title: str  # may be empty
    headings: tuple[str, ...]  # the first ones of words, the others of figures
    rows: tuple[tuple[str, ...], ...]
    words: int = 1  # how many columns hold words

    def table(self) -> Table:
        """The sheet for rich to print."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, title=Text(self.title) if self.title else None, title_justify="left")
        for number, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="left" if number < self.words else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def markdown(self) -> str:
        """The sheet as a Markdown table under its title."""
        # Brackets may become a link.
        return f"{self.title}:\n\n" + markdown_table(self.headings, self.rows, self.words, special=r"[|\[\]]")


def measures_sheet(evaluations: Mapping[str, Evaluation]) -> Sheet:
    """Means of runs: a row per run, a column per measure, four decimals."""
    measures = dict.fromkeys(measure for each in evaluations.values() for measure in each.mean)
    rows = ((name, *(f"{each.mean[measure]:.4f}" for measure in measures)) for name, each in evaluations.items())
    return Sheet("", ("run", *map(str, measures)), tuple(rows))


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], words: int, special: str = r"\|") -> str:
    """A Markdown table, its columns behind those of words aligned to the right; special characters are escaped."""
    rule = ["---"] * words + ["---:"] * (len(headings) - words)
    cells = ([re.sub(f"({special})", r"\\\1", cell) for cell in line] for line in (headings, rule, *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def tables_text(sheets: Iterable[Sheet]) -> str:
    """Tables as plain lines of any length."""
    from rich.console import Console

    written = io.StringIO()
    Console(file=written, width=1000, highlight=False, color_system=None).print(*(sheet.table() for sheet in sheets))
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())
