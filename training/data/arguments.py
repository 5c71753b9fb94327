"""What `r1ranker data` is asked for, and which of it goes together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from r1ranker_ir.adapters.ranking_bench import STEPS
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option

from .samples import Sampling
from .teacher import Teaching


@dataclass(frozen=True)
class DataCommandArguments:
    """What the samples are made of; each field says what it is for."""

    output: Path
    sampling: Sampling = field(default_factory=Sampling)
    teaching: Teaching | None = None
    corpus: str | None = option(
        None, "With --run or --traces: an ir_datasets id such as beir/scifact/train, or a folder in BEIR layout."
    )
    run: str | None = option(None, "First-stage TREC run of the corpus, for negatives; - for standard input.")
    requests: Path | None = option(None, "Ranking requests (.jsonl): context, candidates with text and gain.")
    ranking_bench: str | None = option(
        None, "ulab-ai/Ranking-bench: iterative or direct, or a .jsonl or .parquet file with its columns."
    )
    split: str | None = option(
        None, "The split of a folder or of Ranking-bench.", unset="train; test for folders without qrels/train.tsv"
    )
    source: str | None = option(None, "What to call the source in the samples.", unset="the corpus, file or task")
    queries: int | None = option(None, "Only the first N queries, requests or rows.", unset="all", least=1)
    depth: int = option(100, "Documents per query to keep, from the top of the run.", least=1)
    add_positives: bool | None = option(
        None,
        "Add positives that the run lacks.",
        unset="except for windows",
        flags=("--add-positives/--only-retrieved",),
    )
    judged_only: bool = option(False, "Leave out what nobody has judged; otherwise its gain is 0.")
    test_corpora: tuple[str, ...] = option(
        (),
        "A corpus or file of requests whose queries and positives must not be trained on; repeatable.",
        flags=("--test-corpus",),
    )
    leaks: Literal["error", "drop"] = option("error", "What to do about test data: stop with an error, or drop them.")
    hold_out: float | None = option(None, "Share of the queries to hold out, chosen by their ids.", unset="none")
    hold_out_output: Path | None = option(None, "Parquet file for the lists of the held-out queries.")

    def __post_init__(self) -> None:
        given = {"corpus": self.corpus, "requests": self.requests, "ranking-bench": self.ranking_bench}
        named = [f"--{name}" for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise InputError(
                f"{' and '.join(named) or 'no source'} {'are' if named else 'is'} given: give one of --corpus (with "
                "--run), --requests, --ranking-bench and --traces (with --corpus)"
            )
        if (self.corpus is None) != (self.run is None):
            raise InputError("--corpus and --run go together: the run gives the negatives, the corpus the rest")
        if self.requests is not None and self.split is not None:
            raise InputError("--split is for folders and Ranking-bench: a file of requests has no splits")
        if (self.hold_out is None) != (self.hold_out_output is None):
            raise InputError("--hold-out and --hold-out-output go together: give both or neither")
        if self.hold_out is not None and not 0 < self.hold_out < 1:
            raise InputError(f"--hold-out is {self.hold_out}: give a share above 0 and below 1")
        if self.ranking_bench == STEPS and not self.sampling.makes_steps:
            raise InputError(
                f"--ranking-bench {STEPS} holds step samples, and --strategy {self.sampling.strategy} needs whole "
                "lists: use --ranking-bench direct"
            )
