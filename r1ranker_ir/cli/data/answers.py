"""The verb `r1ranker data answers`: samples with the answers that their gains ask for, to fine-tune on."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.option_fields import option


@with_fields
def answers(
    samples: Path = option(..., "Sample file that r1ranker data wrote."),
    output: Path = option(..., "Parquet or JSON Lines (.jsonl) file for r1ranker train sft."),
    thought: str = option(
        "",
        "What the thought says; {id} and {identifier} stand for the candidate that the answer names first.",
        unset="nothing",
    ),
    seed: int = option(0, "Seed of the choice among candidates that are worth the same."),
    rows: int | None = option(None, "Only the first N samples.", unset="all", least=1),
    messages: Messages = MESSAGES,
) -> None:
    """Complete samples with the answers that their gains ask for, to fine-tune a model on them.

    The answers are right and the thoughts are the one that you give: a start for reinforcement learning, or a baseline.
    """
    messages.start()
    from r1ranker_ir.training.data.gold_answers import write_gold_answers

    count = write_gold_answers(samples, output, thought, seed=seed, rows=rows)
    messages.say(f"{output}: {count} samples with their answers")
