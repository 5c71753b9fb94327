"""The verb `r1ranker benchmark`: what each way to rank costs on one model, and what it reaches on a judged corpus."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from r1ranker_ir.cli.command_line import command_words
from r1ranker_ir.cli.options import CacheMemoryOption, DeviceOption, QuietOption, VerboseOption
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import echo

_OF_SPEED = ("candidates", "passage_tokens", "order", "repeat", "naive_queries", "template")
_OF_QUALITY = ("run", "depth", "measure")
_NO_RESULT = {"output", "verbose", "quiet"}


def benchmark(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A checkpoint: a folder, a Hugging Face name, or tiny for the embedded model.",
            show_default=False,
        ),
    ] = None,
    config_only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_JSON",
            help="Random weights in place of a checkpoint, in the shape of a configuration: a Hugging Face name or "
            "folder; a JSON file as transformers writes them, or qwen2-25m or qwen2.5-3b, which come with this package "
            "(these with the embedded model's tokenizer).",
            show_default="none",
        ),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Rows, split by spaces: naive, or parts joined by +: a schedule, mark, think=first, think=never, "
            "top-k=5, show-best-first, direct, no-reuse.",
            show_default="all documented ones that the model can do",
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(min=2, help="Passages per list.")] = 20,
    passage_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each passage.")] = 100,
    thought_tokens: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tokens of each thought; none ends before. With --corpus, where a thought is closed.",
            show_default="64; with --corpus the checkpoint's limit",
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many lists; with --corpus, the first N of the run.", show_default="1; with --corpus all"
        ),
    ] = None,
    order: Annotated[
        Literal["first-stage", "random"],
        typer.Option(help="The order in which candidates are made to go: the first stage's last one first, or random."),
    ] = "first-stage",
    naive_queries: Annotated[
        int | None,
        typer.Option(min=1, help="Measure the naive loop on N lists only, and scale the result.", show_default="all"),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Measure each row N times, and show the median of the seconds.")
    ] = 1,
    template: Annotated[
        Path | None,
        typer.Option(help="Prompt template (TOML) for speed.", show_default="the project's, whatever the checkpoint's"),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Measure quality against cost on this judged corpus, as r1ranker rerank takes it; nothing is forced.",
            show_default="speed is measured on made-up lists",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="First-stage TREC run to rerank, with --corpus.", show_default=False)
    ] = None,
    depth: Annotated[int, typer.Option(min=2, help="Documents to rerank per query, with --corpus.")] = 20,
    measure: Annotated[
        str, typer.Option(help="Measures as ir_measures writes them, split by spaces, with --corpus.")
    ] = "nDCG@10",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Calls at once.", show_default="16; with --corpus the checkpoint's")
    ] = None,
    device: DeviceOption = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Floating-point type of the model: float32, bfloat16, float16, or auto, as r1ranker rerank takes it "
            "(random weights are float32 on a CPU, and bfloat16 elsewhere). Several, split by commas, are measured one "
            "after the other and compared."
        ),
    ] = "auto",
    cache_memory: CacheMemoryOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights, texts and order.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for benchmark.json and benchmark.png; of several --dtype, each has a folder in it.",
            show_default="only the table is printed",
        ),
    ] = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure calls, tokens and seconds of each way to rank, on a checkpoint or on random weights.

    Made-up lists are ranked by the real model, which does all its work; only its answers are replaced, so that each
    row excludes the same documents in the same order. With --corpus nothing is replaced, and the measures of a judged
    corpus stand beside the costs.
    """
    from r1ranker_ir.cli.app import print_wide, start

    progress = start(verbose=verbose, quiet=quiet)
    _check_options(ctx, model, config_only, corpus, run)
    from r1ranker_ir.eval.benchmarks.dtypes import dtypes_data, dtypes_sheet, parse_dtypes
    from r1ranker_ir.eval.benchmarks.model import BenchmarkModel, open_model
    from r1ranker_ir.eval.benchmarks.plots import EXTRA, FEATURE, PICTURE, plot_speed
    from r1ranker_ir.eval.benchmarks.report import RESULT_FILE, speed_data, speed_sheet, write_comparison, write_result
    from r1ranker_ir.eval.benchmarks.rows import SpeedResult, SpeedSettings
    from r1ranker_ir.eval.benchmarks.speed import measure_speed
    from r1ranker_ir.eval.benchmarks.variants import DEFAULT_VARIANTS, QUALITY_VARIANTS, parse_variants
    from r1ranker_ir.eval.measuring.measures import parse_measures
    from r1ranker_ir.eval.output.pictures import prepare_folder
    from r1ranker_ir.eval.shootouts.plots import plot_quality
    from r1ranker_ir.eval.shootouts.quality import measure_quality, possible_variants
    from r1ranker_ir.eval.shootouts.report import quality_data, quality_sheet
    from r1ranker_ir.files.locks import folder_lock
    from r1ranker_ir.files.paths import NamedFile, check_outputs, checkpoint_inputs, corpus_inputs
    from r1ranker_ir.prompts.template import load_template
    from r1ranker_ir.runs.reranking import RunSource

    usual = DEFAULT_VARIANTS if corpus is None else QUALITY_VARIANTS
    chosen = parse_variants(usual if variants is None else variants)
    try:
        dtypes = parse_dtypes(dtype)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--dtype") from error
    wording, measures = load_template(template), parse_measures(measure)
    settings = SpeedSettings(
        candidates=candidates,
        passage_tokens=passage_tokens,
        thought_tokens=64 if thought_tokens is None else thought_tokens,
        queries=1 if queries is None or corpus is not None else queries,
        order=order,
        batch_size=16 if batch_size is None else batch_size,
        seed=seed,
        repeat=repeat,
        naive_queries=naive_queries,
        cache_memory=cache_memory,
    )
    # The folder of each dtype's files.
    places = {each: output if output is None or len(dtypes) == 1 else output / each for each in dtypes}
    claim: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if output is not None:
        folders = dict.fromkeys([output, *(place for place in places.values() if place is not None)])
        check_outputs(
            [NamedFile("--output", folder / name) for folder in folders for name in (RESULT_FILE, PICTURE)],
            (
                *corpus_inputs("--corpus", corpus),
                NamedFile("--run", run),
                NamedFile("--template", template),
                *checkpoint_inputs("MODEL", model or config_only),
            ),
        )
        claim = folder_lock(output, "--output")
        for folder in folders:
            prepare_folder(folder, feature=FEATURE, extra=EXTRA)
    command, written = command_words(ctx, left_out=_NO_RESULT), []

    def measured(opened: BenchmarkModel, place: Path | None) -> SpeedResult | None:
        """Measures a model in memory, and prints and writes what came out; its speed is returned, its quality not."""
        speed: SpeedResult | None = None
        if corpus is None or run is None:
            speed = measure_speed(opened, chosen, settings, template=wording, progress=progress)
            sheet, figures, draw = speed_sheet(speed, opened), speed_data(speed), partial(plot_speed, speed)
        else:
            quality = measure_quality(
                opened,
                chosen if variants is not None else possible_variants(str(opened.checkpoint), chosen),
                RunSource(corpus, run, depth, queries),
                measures,
                batch_size=batch_size,
                max_thought_tokens=thought_tokens,
                cache_memory=cache_memory,
                progress=progress,
            )
            sheet, figures, draw = quality_sheet(quality, opened), quality_data(quality), partial(plot_quality, quality)
        print_wide(sheet.table())
        if place is not None:
            written.append(write_result(place, figures, opened, command))
            draw(place / PICTURE)
            written.append(place / PICTURE)
        return speed

    with claim:
        speeds: dict[str, SpeedResult] = {}
        for each in dtypes:
            # Only one of them is in memory at a time.
            speed = measured(open_model(model, config_only, device=device, dtype=each, seed=seed), places[each])
            if speed is not None:
                speeds[each] = speed
        if len(speeds) > 1:
            print_wide(dtypes_sheet(speeds).table())
            if output is not None:
                written.append(write_comparison(output, dtypes_data(speeds), command))
    if output is not None and not quiet:
        for path in written:
            echo(f"wrote {path}", err=True)


def _check_options(
    ctx: typer.Context, model: str | None, config_only: str | None, corpus: str | None, run: str | None
) -> None:
    """Says which options do not go together, before anything is loaded."""
    if (model is None) == (config_only is None):
        raise typer.BadParameter("give one of them: a checkpoint, or --config-only", param_hint="MODEL")
    if corpus is not None and config_only is not None:
        raise typer.BadParameter("random weights rank no better than chance: give a checkpoint", param_hint="--corpus")
    if corpus is not None and run is None:
        raise typer.BadParameter("--corpus needs the first stage's run", param_hint="--run")
    others, why = (
        (_OF_QUALITY, "it needs --corpus, which measures quality")
        if corpus is None
        else (_OF_SPEED, "it is for measuring speed on made-up lists, and --corpus has lists of its own")
    )
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in others and given is not None and given.name == "COMMANDLINE":
            raise typer.BadParameter(why, param_hint=parameter.opts[0])
