"""The verb `r1ranker generic`: what training on rankings did to a model's other abilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from r1ranker_ir.cli.compare import StatedSettings
from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import StatedOf, command_words, with_fields
from r1ranker_ir.eval.generic.settings import GenericSettings
from r1ranker_ir.files.terminal_text import echo, echo_json
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.rankers.settings import RankerSettings

StatedNumerics = Annotated[Mapping[str, Any], StatedOf(RankerSettings, only=("device", "dtype"))]


@with_fields
def generic(
    *,
    ctx: typer.Context,
    before: str = argument(..., "The model before: a folder, adapter, GGUF file, Hugging Face or registered name."),
    after: str = argument(..., "The model after, such as an adapter that was trained on the first one."),
    asking: GenericSettings,
    numerics: StatedNumerics,
    settings: StatedSettings,
    format_: Literal["table", "markdown", "json"] = option(
        "table", "How to write it.", flags=("--format",), group="Output"
    ),
    output: Path | None = option(
        None, "JSON file for all figures, both answers to each sample, and what they were made with.", group="Output"
    ),
    messages: Messages = MESSAGES,
) -> None:
    """Ask two models the tasks of lm-evaluation-harness, and say what was gained and what was forgotten.

    Each model is asked on its own chat template. Answers are paired sample by sample; each difference has an interval
    and a test. By default the tasks are those that R1-Ranker's models were measured on. With --output each finished
    task of a model is kept at once in OUTPUT.answers: the same command given again goes on where it stopped.
    """
    progress = messages.start()
    from r1ranker_ir.eval.generic.answers import Answers
    from r1ranker_ir.eval.generic.asking import ask
    from r1ranker_ir.eval.generic.changes import changes_between
    from r1ranker_ir.eval.generic.kept import LIBRARIES, folder_beside
    from r1ranker_ir.eval.generic.report import FORMATS, changes_data, samples_data
    from r1ranker_ir.eval.generic.tasks import TaskList
    from r1ranker_ir.eval.measuring.settings import ComparisonSettings
    from r1ranker_ir.eval.output.manifest import made_with, write_result
    from r1ranker_ir.files.paths import NamedFile, check_outputs, folder_inputs
    from r1ranker_ir.files.streams import is_stream
    from r1ranker_ir.models.loading import check_exists
    from r1ranker_ir.rankers.source import checkpoint_of

    tested_by = ComparisonSettings(**settings)
    checkpoints = {name: checkpoint_of(name) for name in (before, after)}
    for checkpoint in checkpoints.values():
        check_exists(checkpoint)
    read = [
        *folder_inputs("BEFORE", checkpoints[before], (".json", ".gguf")),
        *folder_inputs("AFTER", checkpoints[after], (".json", ".gguf")),
        *folder_inputs("--task-folder", asking.task_folder, (".json", ".jsonl", ".yaml")),
    ]
    check_outputs([NamedFile("--output", output)], read, announce=not messages.quiet)
    tasks = TaskList(asking)
    kept_in = None if output is None or is_stream(output) else folder_beside(output)

    def answered(name: str) -> Answers:
        messages.say(f"{name} …")
        return ask(
            name, checkpoints[name], tasks, asking, progress=progress, kept_in=kept_in, say=messages.say, **numerics
        )

    found = changes_between(answered(before), answered(after), tested_by)
    printed = echo_json if format_ == "json" else echo
    printed(FORMATS[format_](found), nl=False)
    if output is not None:
        command = command_words(ctx, left_out={"output", "format_", "verbose", "quiet"})
        asked = {name: None if value is None else str(value) for name, value in asdict(asking).items()}
        made = made_with(command, "transformers", *LIBRARIES)
        write_result(output, {**made, "asking": asked, **changes_data(found), "samples": samples_data(found)})
        messages.say(f"wrote {output}")
