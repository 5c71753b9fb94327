"""What training data are synthesized from, how many, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import check_offered, option
from r1ranker_ir.retrieval.first_stages import forms, parse_first_stage

HIGHEST = 10
"""Labels are grades from 0 to this."""


@dataclass(frozen=True)
class Synthesis:
    """How data are synthesized; each field says what it is for. `seed` decides which passages are drawn, and orders."""

    queries: int | None = option(
        None, "Only the first N queries; of written ones, how many passages get one.", unset="all; 100 written", least=1
    )
    write_queries: bool = option(False, "Write queries from passages also where the corpus has its own.")
    split: str | None = option(
        None,
        "The split of a folder; queries that another split judges are left out.",
        unset="train; test for folders without qrels/train.tsv",
    )
    first_stage: str = option("bm25s", f"What finds candidates: {forms()}.")
    depth: int = option(20, "Documents per query that are found and graded.", least=2)
    candidates: int = option(10, "Most candidates of a list.", least=2)
    min_grade: int = option(6, "Least grade of a positive.", least=1, most=HIGHEST)
    max_negative: int = option(3, "Greatest grade of a negative; what lies between is left out.", least=0, most=HIGHEST)
    samples: int = option(3, "How often a list is ordered, shuffled anew each time.", least=1)
    min_agreement: float = option(0.4, "Least mean Kendall's tau between the orders of a list.", least=-1.0, most=1.0)
    min_ndcg: float = option(0.7, "Least mean nDCG@10 of a list's orders by its labels.", least=0.0, most=1.0)
    at_once: int = option(16, "Queries after which work is written down; after a kill, no more is repeated.", least=1)
    test_corpora: tuple[str, ...] = option(
        (),
        "A corpus or file of requests whose queries, near-duplicates of them and positives are left out; repeatable.",
        flags=("--test-corpus",),
    )
    seed: int = 0

    def __post_init__(self) -> None:
        check_offered(self)
        parse_first_stage(self.first_stage)
        if self.max_negative >= self.min_grade:
            raise InputError(
                f"max_negative is {self.max_negative} and min_grade {self.min_grade}: a negative's greatest grade must "
                "be below a positive's least"
            )
        if self.candidates > self.depth:
            raise InputError(
                f"candidates is {self.candidates} and depth {self.depth}: a list holds no more than is found"
            )
