"""The verb `r1ranker rerank`: the top of a run through a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import RUN_OUTPUT
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.cli.ranker_options import ENGINE, RERANKER, RankerChoice, StatedCluster, StatedOptions, ray_cluster
from r1ranker_ir.files.byte_sizes import in_units
from r1ranker_ir.option_fields import option
from r1ranker_ir.runs.run_source import RunSource

if TYPE_CHECKING:
    from r1ranker_ir.engine.engine import RunSummary


@with_fields
def rerank(
    *,
    candidates: RunSource,
    reranker: str = RERANKER,
    output: str = RUN_OUTPUT,
    save_traces: Path | None = option(
        None,
        "JSON Lines file for each query's model calls, gzip if it ends in .gz. Grows as <file>.partial until whole.",
        unset="none",
        group="Output",
        flags=("--save-traces", "--trace"),
    ),
    choice: RankerChoice,
    options: StatedOptions,
    engine: Literal["local", "ray"] = ENGINE,
    workers: StatedCluster,
    messages: Messages = MESSAGES,
) -> None:
    """Rerank the top of a TREC run with a language model and write a TREC run.

    Only the top --depth documents of each query are reranked and written, with scores that repeat the rank
    (1 - (rank - 1) / n). Queries are written as they finish; after a failure they are kept in <output>.partial. The
    model's answers are kept in a cache: the same command given again goes on where it stopped.
    """
    progress = messages.start()
    from r1ranker_ir.runs.reranking import rerank_run

    summary = rerank_run(
        candidates,
        choice.source(reranker, options),
        output,
        tag="_".join(reranker.split()),
        traces=save_traces,
        progress=progress,
        cluster=ray_cluster(engine, workers),
        announce=not messages.quiet,
    )
    messages.say(summary_line(summary))


def summary_line(summary: RunSummary) -> str:
    """What a run has cost, in one line."""
    usage = summary.usage
    parts = [
        f"{summary.queries} queries",
        f"{usage.calls} calls",
        *([f"{summary.cached_calls} of them cached"] if summary.cached_calls else []),
        f"{usage.prompt_tokens} tokens in",
        f"{usage.completion_tokens} tokens out",
        f"{summary.repairs} repairs",
        f"{summary.seconds:.1f} seconds",
    ]
    if summary.prompt_tokens_computed < usage.prompt_tokens:
        parts.append(f"{summary.prompt_tokens_computed} of the tokens in computed")
    if summary.cache_memory_peak:
        parts.append(f"{in_units(summary.cache_memory_peak)} of keys and values kept at most")
    if summary.thoughts_closed:
        parts.append(summary.closed_thoughts)
    if summary.choices:
        parts.append(summary.choices)
    if summary.cut_passages:
        parts.append(f"{summary.cut_passages} passages cut")
    if summary.cut_queries:
        parts.append(f"the query cut in {summary.cut_queries} calls")
    return ", ".join(parts)
