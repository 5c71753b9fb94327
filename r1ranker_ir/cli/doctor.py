"""The verb `r1ranker doctor`: whether a model can rank at all, and how it is best asked."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from r1ranker_ir.cli.options import (
    BackendOption,
    BaseUrlOption,
    BatchSizeOption,
    DeviceOption,
    DtypeOption,
    QuietOption,
    TemplateOption,
    VerboseOption,
)
from r1ranker_ir.files.terminal_text import echo, echo_json


def doctor(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder, GGUF file or Hugging Face name, a registered name such as r1ranker-iterative-tiny, or with "
            "--backend openai the server's name for it.",
            show_default=False,
        ),
    ],
    backend: BackendOption = "transformers",
    base_url: BaseUrlOption = None,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="How many short lists are shown, each both ways.", show_default="6; 3 with --quick"),
    ] = None,
    candidates: Annotated[int, typer.Option(min=2, help="Passages in each list.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer lists and shorter thoughts.")] = False,
    max_thought_tokens: Annotated[
        int | None,
        typer.Option(min=0, help="Close a thought after N tokens.", show_default="256; 128 with --quick"),
    ] = None,
    template: TemplateOption = None,
    batch_size: BatchSizeOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    format_: Annotated[
        Literal["text", "json"], typer.Option("--format", help="Text to read, or all figures as JSON.")
    ] = "text",
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Examine a model before it is used: chat template, form of answers, place bias, thoughts, speed, and a verdict.

    A few short lists of the packaged collection are shown, in each of which one passage answers the query and the
    others are about other things, forwards and backwards. A model that can rank names the same passage both ways.
    """
    from r1ranker_ir.backends import BACKENDS
    from r1ranker_ir.cli.app import start
    from r1ranker_ir.cli.rerank import check_backend_options

    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.eval.doctor.doctor import DoctorSettings, examine
    from r1ranker_ir.eval.doctor.report import report_data, report_lines

    check_backend_options(backend, base_url=base_url, device=device)
    given = {"base_url": base_url, "template": template, "batch_size": batch_size}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings = DoctorSettings(backend, queries, candidates, max_thought_tokens, quick, options, device, dtype)
    # Reported by the name that was given: a registered one's folder says less.
    reads = BACKENDS[backend].capabilities.reads_checkpoint
    found = replace(examine(_checkpoint(model) if reads else model, settings), model=model)
    if format_ == "json":
        echo_json(json.dumps(report_data(found), indent=2, ensure_ascii=False))
        return
    for line in report_lines(found):
        echo(line)


def _checkpoint(model: str) -> str:
    """The checkpoint of a registered name or of a published system; other names are checkpoints themselves."""
    from r1ranker_ir.rankers import registry
    from r1ranker_ir.rankers.systems import FAMILY

    if os.path.isdir(model):
        return model
    if registry.is_registered(model):
        return registry.resolve(model)[0]
    if registry.is_family(model):
        checkpoint = FAMILY[model.lower()].checkpoint
        if checkpoint is None:
            raise typer.BadParameter(f"{model!r} works with any chat model: name the model itself", param_hint="MODEL")
        return checkpoint
    return model
