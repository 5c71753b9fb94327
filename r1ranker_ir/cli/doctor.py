"""The verb `r1ranker doctor`: whether a model can rank at all, and how it is best asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from r1ranker_ir.backends import BACKENDS, DEFAULT_BACKEND
from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.parameters import StatedOf, with_fields
from r1ranker_ir.cli.ranker_options import check_backend_options
from r1ranker_ir.files.terminal_text import echo, echo_json
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.rankers.names import NameChoiceError
from r1ranker_ir.rankers.settings import RankerSettings
from r1ranker_ir.rankers.source import checkpoint_of

_OPTIONS = (
    *("backend", "base_url", "api", "tokenizer", "template", "batch_size", "device", "dtype"),
    *("timeout", "max_retries", "leave_out", "extra_body"),
)
Stated = Annotated[Mapping[str, Any], StatedOf(RankerSettings, only=_OPTIONS)]


@with_fields
def doctor(
    *,
    model: str = argument(
        ..., "A folder, GGUF file, Hugging Face or registered name, or with --backend openai the server's name for it."
    ),
    options: Stated,
    queries: int | None = option(None, "Short lists, each shown both ways.", unset="6; 3 with --quick", least=1),
    candidates: int = option(4, "Passages in each list.", least=2),
    quick: bool = option(False, "Fewer lists and shorter thoughts."),
    max_thought_tokens: int | None = option(None, "Tokens of a thought.", unset="256; 128 with --quick", least=0),
    format_: Literal["text", "json"] = option("text", "Text to read, or all figures as JSON.", flags=("--format",)),
    messages: Messages = MESSAGES,
) -> None:
    """Examine a model before it is used: chat template, form of answers, place bias, thoughts, speed, and a verdict.

    A few short lists of the packaged collection are shown, in each of which one passage answers the query and the
    others are about other things, forwards and backwards. A model that can rank names the same passage both ways.
    """
    messages.start()
    from r1ranker_ir.eval.doctor.doctor import examine
    from r1ranker_ir.eval.doctor.report import report_data, report_lines

    check_backend_options(options)
    others = dict(options)
    backend = others.pop("backend", DEFAULT_BACKEND)
    asked: dict[str, Any] = {"queries": queries, "candidates": candidates, "quick": quick}
    asked["max_thought_tokens"] = max_thought_tokens
    try:
        checkpoint = checkpoint_of(model) if BACKENDS[backend].capabilities.reads_checkpoint else model
    except NameChoiceError as error:
        raise typer.BadParameter(str(error), param_hint="MODEL") from error
    # Reported by the name that was given: a registered one's folder says less.
    found = replace(examine(checkpoint, backend, **asked, **others), model=model)
    if format_ == "json":
        echo_json(json.dumps(report_data(found), indent=2, ensure_ascii=False))
        return
    for line in report_lines(found):
        echo(line)
