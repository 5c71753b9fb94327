"""The verb `r1ranker data answers`: samples with the answers that their gains ask for, to fine-tune on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1ranker_ir.cli.console import start
from r1ranker_ir.cli.options import QuietOption, VerboseOption
from r1ranker_ir.files.terminal_text import echo


def answers(
    samples: Annotated[Path, typer.Option(help="Sample file that r1ranker data wrote.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(help="Parquet or JSON Lines (.jsonl) file for r1ranker train sft.", show_default=False),
    ],
    thought: Annotated[
        str,
        typer.Option(
            help="What the thought says; {id} and {identifier} stand for the candidate that the answer names first.",
            show_default="nothing",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the choice among candidates that are worth the same.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first N samples.", show_default="all")] = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Complete samples with the answers that their gains ask for, to fine-tune a model on them.

    The answers are right and the thoughts are the one that you give: a start for reinforcement learning, or a baseline.
    """
    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.training.data.gold_answers import write_gold_answers

    count = write_gold_answers(samples, output, thought, seed=seed, rows=rows)
    if not quiet:
        echo(f"{output}: {count} samples with their answers", err=True)
