"""The verb `r1ranker data answers`: samples with the answers that their gains ask for, to fine-tune on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import StatedOf, with_fields
from r1ranker_ir.option_fields import option
from r1ranker_ir.training.data.teacher import Teacher, Teaching

StatedTeaching = Annotated[Mapping[str, Any], StatedOf(Teaching, only=("share",))]


@with_fields
def answers(
    *,
    samples: Path = option(..., "Sample file that r1ranker data wrote."),
    output: Path = option(..., "Parquet or JSON Lines (.jsonl) file for r1ranker train sft."),
    thought: str = option(
        "",
        "What the thought says; {id} and {identifier} stand for the candidate that the answer names first.",
        unset="nothing",
    ),
    quotes: int | None = option(
        None,
        "Thoughts quote N words of each candidate, those nearest to the query, and grade it from 0 to 9.",
        unset="no quotes",
        least=1,
    ),
    teacher: str | None = option(
        None,
        "With --quotes: a sentence encoder (folder or hub name, mean pooling) whose cosines are graded.",
        unset="the gains alone",
    ),
    teaching: StatedTeaching,
    seed: int = option(0, "Seed of the choice among candidates that are worth the same."),
    rows: int | None = option(None, "Only the first N samples.", unset="all", least=1),
    messages: Messages = MESSAGES,
) -> None:
    """Complete samples with the answers that their gains ask for, to fine-tune a model on them.

    The answers are right, and the thoughts are the one that you give, or quotes and grades that the answers follow
    from: a start for reinforcement learning, or a baseline.
    """
    messages.start()
    if quotes is None and teacher is not None:
        raise typer.BadParameter("it goes with --quotes: say how many words a thought quotes", param_hint="--teacher")
    if quotes is not None and thought:
        raise typer.BadParameter("it does not go with --quotes: leave one of the two out", param_hint="--thought")
    from r1ranker_ir.training.data.gold_answers import write_gold_answers
    from r1ranker_ir.training.data.quoted_thoughts import Quoting

    graded_by = None if teacher is None else Teacher(Teaching(teacher, **teaching))
    quoting = None if quotes is None else Quoting(quotes, graded_by)
    count = write_gold_answers(samples, output, thought, quoting=quoting, seed=seed, rows=rows)
    messages.say(f"{output}: {count} samples with their answers")
