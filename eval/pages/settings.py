"""What stands in a report: fields that the command line offers."""

from __future__ import annotations

from dataclasses import dataclass

from r1ranker_ir.option_fields import option

TEXT_CHARACTERS = 4_000
"""How much of a text stands on the page, unless more is asked for."""


@dataclass(frozen=True)
class ReportSettings:
    """How much of each query a report shows."""

    depth: int = option(10, "Documents of each run to list per query, beside those of traces.", least=1)
    characters: int = option(TEXT_CHARACTERS, "How much of each passage and thought to show.", least=100)
