"""The verbs `r1ranker thoughts build` and `compare`: thoughts that were right, as worked examples for other models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import measures_option
from r1ranker_ir.cli.parameters import GroupedCommand, with_fields
from r1ranker_ir.cli.ranker_options import RERANKER, RankerChoice, StatedOptions
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import option
from r1ranker_ir.runs.run_source import RunSource

thoughts = typer.Typer(
    help="Keep thoughts that led to right answers, and show them to other models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@thoughts.command(cls=GroupedCommand)
@with_fields
def build(
    traces: list[Path] = option(..., "Trace that r1ranker rerank --save-traces wrote; repeatable."),
    corpus: str = option(..., "Corpus whose judgments say what is right: an ir_datasets id, or a BEIR folder."),
    output: Path = option(..., "SQLite file to write."),
    split: str | None = option(None, "The split of a folder.", unset="train; test for folders without qrels/train.tsv"),
    min_ndcg: float = option(0.0, "Least nDCG@10 of an order.", least=0.0, most=1.0),
    max_candidates: int | None = option(None, "Leave out thoughts about more candidates.", unset="no limit", least=2),
    messages: Messages = MESSAGES,
) -> None:
    """Keep the thoughts of traces whose outcome was right and unrepaired, with their query and candidates."""
    messages.start()
    from r1ranker_ir.training.data.thought_bank import build_bank

    told = {"split": split, "min_ndcg": min_ndcg, "max_candidates": max_candidates}
    built = build_bank(traces, corpus, output, announce=not messages.quiet, **dict[str, Any](told))
    messages.say(built.report())


@thoughts.command(cls=GroupedCommand)
@with_fields
def compare(
    *,
    candidates: RunSource,
    measures: str = measures_option("nDCG@10 RR@10"),
    format_: Literal["table", "markdown", "json"] = option(
        "table", "How to write it; JSON also holds each query's differences.", flags=("--format",), group="Output"
    ),
    reranker: str = RERANKER,
    choice: RankerChoice,
    options: StatedOptions,
    messages: Messages = MESSAGES,
) -> None:
    """Compare no examples with nearest thoughts, random ones and answers alone, in pairs, on queries not in a bank."""
    progress = messages.start()
    from r1ranker_ir.eval.benchmarks.thoughts import compare_thoughts
    from r1ranker_ir.eval.output.comparison_report import FORMATS

    found = compare_thoughts(candidates, choice.source(reranker, options), measures=measures, progress=progress)
    echo(FORMATS[format_](found.comparison), nl=False)
    messages.say(f"{found.of_the_bank} judged queries of the run are in the bank and were not asked")
    for name, tokens in found.tokens.items():
        messages.say(f"{name}: {tokens} tokens read; {found.left_out.get(name, 'nothing to leave out')}")
