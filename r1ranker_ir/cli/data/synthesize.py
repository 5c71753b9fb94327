"""The verb `r1ranker data synthesize`: training data of a teacher, where nobody has judged anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import StatedOf, with_fields
from r1ranker_ir.cli.ranker_options import RankerChoice, StatedOptions
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option
from r1ranker_ir.rankers.names import is_family, is_registered
from r1ranker_ir.runs.run_source import CORPUS
from r1ranker_ir.training.data.synthesis.settings import Synthesis

if TYPE_CHECKING:
    from r1ranker_ir.rankers.source import RankerSource
    from r1ranker_ir.training.data.synthesis.teachers import Encoder

StatedSynthesis = Annotated[Mapping[str, Any], StatedOf(Synthesis)]


@with_fields
def synthesize(
    *,
    corpus: str = CORPUS,
    teacher: str = option(
        ..., "What orders lists: as --reranker of r1ranker rerank, or encoder:NAME, a sentence encoder.", group="Model"
    ),
    output: Path = option(..., "Folder for sft.parquet, rl.parquet and report.json; it also keeps finished work."),
    synthesis: StatedSynthesis,
    labels: str | None = option(
        None, "What grades candidates: a reranker, a model, or encoder:NAME.", unset="the teacher", group="Model"
    ),
    label_strategy: str | None = option(
        None,
        "How a model grades.",
        unset="pointwise; likelihood where the prompt template has no words for it",
        choices=lambda: ("pointwise", "likelihood"),
        group="Model",
    ),
    writer: str | None = option(None, "Model that writes queries.", unset="the teacher", group="Model"),
    choice: RankerChoice,
    options: StatedOptions,
    messages: Messages = MESSAGES,
) -> None:
    """Make training data without judgments: a teacher writes queries, grades candidates and orders lists with thoughts.

    Lists are kept whose orders agree with each other and with the grades. A command that was stopped goes on where it
    was. Each option of models is for all of them.
    """
    progress = messages.start()
    from r1ranker_ir.training.data.synthesis.command import synthesize as make
    from r1ranker_ir.training.data.synthesis.teachers import ENCODER, Encoder, Roles

    def role(name: str, chosen: RankerChoice) -> RankerSource | Encoder:
        return Encoder(name.removeprefix(ENCODER)) if name.startswith(ENCODER) else chosen.source(name, options)

    def other(name: str, strategy: str) -> RankerChoice:
        known = is_registered(name) or is_family(name)
        return replace(choice, model=None, own_options=None, strategy=None if known else strategy)

    try:
        settings = Synthesis(**synthesis, seed=options.get("seed") or 0)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    writes = None if writer is None else role(writer, other(writer, "direct"))
    if isinstance(writes, Encoder):
        raise typer.BadParameter("a sentence encoder can't write: name a model", param_hint="--writer")
    grades = None if labels is None else role(labels, other(labels, label_strategy or "pointwise"))
    roles = Roles(role(teacher, choice), grades, writes, label_strategy)
    messages.say(*make(corpus, roles, output, settings, progress=progress).lines())
