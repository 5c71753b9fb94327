"""How a query's candidates are chosen among a corpus's passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.option_fields import check_offered, option


@dataclass(frozen=True)
class PassageProtocol:
    """Each field says what it is for; a query's candidates do not depend on what other queries there are."""

    candidates: int = option(5, "Passages of a request: one relevant, the others of the run.", least=2)
    negatives: Literal["random", "top"] = option(
        "random", "Random ones of the run's top, or those that it ranks highest."
    )
    depth: int = option(100, "Documents of the run that count as its top.", least=1)
    min_gain: int = option(
        1, "Least grade of a relevant passage; what is judged above 0 and below this is not used.", least=1
    )
    queries: int | None = option(None, "Only the first N queries.", unset="all", least=1)
    seed: int = option(0, "Seed of every draw.")

    def __post_init__(self) -> None:
        check_offered(self)
