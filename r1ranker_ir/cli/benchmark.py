"""The verb `r1ranker benchmark`: what each way to rank costs on one model, and what it reaches on a judged corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages, claimed_folder, print_wide
from r1ranker_ir.cli.parameters import StatedOf, command_words, refuse_stated, with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.benchmarks.rows import SpeedSettings
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.rankers.settings import RankerSettings

if TYPE_CHECKING:
    from r1ranker_ir.eval.benchmarks.rows import SpeedResult

Memory = Annotated[Mapping[str, Any], StatedOf(RankerSettings, only=("device", "cache_memory"))]
Speed = Annotated[Mapping[str, Any], StatedOf(SpeedSettings)]

_OF_SPEED = dict.fromkeys(
    ("candidates", "passage_tokens", "order", "repeat", "naive_queries", "template"),
    "it is for measuring speed on made-up lists, and --corpus has lists of its own",
)
_OF_QUALITY = dict.fromkeys(("run", "depth", "measure"), "it needs --corpus, which measures quality")


@with_fields
def benchmark(
    *,
    ctx: typer.Context,
    model: str | None = argument(
        None, "A checkpoint: a folder, a Hugging Face name, or tiny for the embedded model.", metavar="MODEL"
    ),
    config_only: str | None = option(
        None, "Random weights in this shape: a Hugging Face name, folder or JSON file, qwen2-25m or qwen2.5-3b."
    ),
    server: bool = option(
        False, "Measure what waiting costs, on a slow server on loopback and with threads on the embedded model."
    ),
    variants: str | None = option(
        None,
        "Rows, split by spaces: naive, or parts joined by +: a schedule, mark, think=first, think=never, top-k=5, "
        "show-best-first, direct, no-reuse.",
        unset="all documented ones",
    ),
    speed: Speed,
    template: Path | None = option(None, "Prompt template (TOML) for speed.", unset="the project's"),
    corpus: str | None = option(None, "Measure quality, too, on this judged corpus.", unset="speed on made-up lists"),
    run: str | None = option(None, "First-stage TREC run to rerank, with --corpus."),
    depth: int = option(20, "Documents to rerank per query, with --corpus.", least=2),
    measure: str = option("nDCG@10", "Measures as ir_measures writes them, split by spaces, with --corpus."),
    dtype: str = option("auto", "auto, float32, bfloat16 or float16; several, split by commas, are compared."),
    memory: Memory,
    output: Path | None = option(None, "Folder for benchmark.json and benchmark.png.", unset="only the table is shown"),
    messages: Messages = MESSAGES,
) -> None:
    """Measure calls, tokens and seconds of each way to rank, on a checkpoint or on random weights.

    Made-up lists are ranked by the real model, which does all its work; only its answers are replaced, so that each
    row excludes the same documents in the same order. With --corpus nothing is replaced, and the measures of a judged
    corpus stand beside the costs.
    """
    progress = messages.start()
    if server:
        if model is not None or config_only is not None or corpus is not None:
            raise typer.BadParameter("it has a server and a model of its own: give neither", param_hint="--server")
        from r1ranker_ir.eval.benchmarks.serving import Waiting, measure_server, measure_threads, serving_sheet

        queries, candidates = speed.get("queries", 64), speed.get("candidates", SpeedSettings.candidates)
        rows = measure_server(Waiting(), queries=queries, tasks=min(queries, 32), candidates=candidates)
        print_wide(serving_sheet([*rows, measure_threads()]).table())
        return
    if (model is None) == (config_only is None):
        raise typer.BadParameter("give one of them: a checkpoint, or --config-only", param_hint="MODEL")
    if corpus is not None and config_only is not None:
        raise typer.BadParameter("random weights rank no better than chance: give a checkpoint", param_hint="--corpus")
    if corpus is not None and run is None:
        raise typer.BadParameter("--corpus needs the first stage's run", param_hint="--run")
    refuse_stated(ctx, _OF_QUALITY if corpus is None else _OF_SPEED)
    from r1ranker_ir.eval.benchmarks import report
    from r1ranker_ir.eval.benchmarks.model import BenchmarkModel, open_model, parse_dtypes
    from r1ranker_ir.eval.benchmarks.speed import measure_speed
    from r1ranker_ir.eval.benchmarks.variants import DEFAULT_VARIANTS, QUALITY_VARIANTS, parse_variants
    from r1ranker_ir.eval.measuring.measures import parse_measures
    from r1ranker_ir.eval.shootouts.quality import measure_quality, possible_variants
    from r1ranker_ir.eval.shootouts.report import plot_shootout, quality_data, shootout_sheet
    from r1ranker_ir.files.paths import NamedFile, checkpoint_inputs, corpus_inputs
    from r1ranker_ir.prompts.template import load_template
    from r1ranker_ir.runs.reranking import RunSource

    usual = DEFAULT_VARIANTS if corpus is None else QUALITY_VARIANTS
    chosen = parse_variants(usual if variants is None else variants)
    try:
        dtypes = parse_dtypes(dtype)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--dtype") from error
    wording, measures = load_template(template), parse_measures(measure)
    settings = SpeedSettings(**speed, cache_memory=memory.get("cache_memory"))
    command, written = command_words(ctx, left_out={"output", "verbose", "quiet"}), list[Path]()

    def place(dtype: str) -> Path | None:
        return output if output is None or len(dtypes) == 1 else output / dtype

    def show(
        opened: BenchmarkModel, dtype: str, sheet: Any, figures: Any, draw: Callable[..., Any], found: Any
    ) -> None:
        print_wide(sheet.table())
        if (folder := place(dtype)) is not None:
            written.append(report.write_result(folder, {"model": opened.described(), **figures}, command))
            draw(found, folder / report.PICTURE)
            written.append(folder / report.PICTURE)

    def measured(dtype: str) -> SpeedResult | None:
        opened = open_model(model, config_only, dtype=dtype, device=memory.get("device"), seed=settings.seed)
        if corpus is None or run is None:
            row = measure_speed(opened, chosen, settings, template=wording, progress=progress)
            show(opened, dtype, report.speed_sheet(row, opened), report.speed_data(row), report.plot_speed, row)
            return row
        quality = measure_quality(
            opened,
            chosen if variants is not None else possible_variants(str(opened.checkpoint), chosen),
            RunSource(corpus, run, depth, speed.get("queries")),
            measures,
            batch_size=speed.get("batch_size"),
            max_thought_tokens=speed.get("thought_tokens"),
            cache_memory=memory.get("cache_memory"),
            progress=progress,
        )
        show(opened, dtype, shootout_sheet(quality), quality_data(quality), plot_shootout, quality)
        return None

    read = (
        *corpus_inputs("--corpus", corpus),
        NamedFile("--run", run),
        NamedFile("--template", template),
        *checkpoint_inputs("MODEL", model or config_only),
    )
    folders = [folder for each in dtypes if (folder := place(each)) is not None]
    with claimed_folder(output, (report.RESULT_FILE, report.PICTURE), read, report.FEATURE, folders):
        # One model at a time is in memory.
        speeds = {each: row for each in dtypes if (row := measured(each)) is not None}
        if len(speeds) > 1:
            print_wide(report.dtypes_sheet(speeds).table())
            if output is not None:
                written.append(report.write_result(output, {"dtypes": report.dtypes_data(speeds)}, command))
    messages.say(*(f"wrote {path}" for path in written))
