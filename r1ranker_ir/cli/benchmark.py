"""The verb `r1ranker benchmark`: what each way to rank costs on one model, and what it reaches on a judged corpus."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from r1ranker_ir.cli.console import print_wide, start
from r1ranker_ir.cli.options import QUIET, VERBOSE
from r1ranker_ir.cli.parameters import command_words, made_of, refuse_stated, stated_of, with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.rankers.settings import RankerSettings

if TYPE_CHECKING:
    from r1ranker_ir.eval.benchmarks.model import BenchmarkModel
    from r1ranker_ir.eval.benchmarks.rows import SpeedResult
    from r1ranker_ir.runs.reranking import RunSource

    Memory = Mapping[str, Any]
else:
    Memory = stated_of(RankerSettings, only=("device", "cache_memory"))

_OF_SPEED = dict.fromkeys(
    ("candidates", "passage_tokens", "order", "repeat", "naive_queries", "template"),
    "it is for measuring speed on made-up lists, and --corpus has lists of its own",
)
_OF_QUALITY = dict.fromkeys(("run", "depth", "measure"), "it needs --corpus, which measures quality")
_NO_RESULT = {"output", "verbose", "quiet"}


@with_fields
def benchmark(
    *,
    ctx: typer.Context,
    model: str | None = argument(
        None, "A checkpoint: a folder, a Hugging Face name, or tiny for the embedded model.", metavar="MODEL"
    ),
    config_only: str | None = option(
        None,
        "Random weights in place of a checkpoint, in the shape of a configuration: a Hugging Face name or folder; "
        "a JSON file as transformers writes them, or qwen2-25m or qwen2.5-3b, which come with this package (these "
        "with the embedded model's tokenizer).",
        unset="none",
        metavar="NAME_OR_JSON",
    ),
    variants: str | None = option(
        None,
        "Rows, split by spaces: naive, or parts joined by +: a schedule, mark, think=first, think=never, top-k=5, "
        "show-best-first, direct, no-reuse.",
        unset="all documented ones that the model can do",
    ),
    candidates: int = option(20, "Passages per list.", least=2),
    passage_tokens: int = option(100, "Tokens of each passage.", least=1),
    thought_tokens: int | None = option(
        None,
        "Tokens of each thought; none ends before. With --corpus, where a thought is closed.",
        unset="64; with --corpus the checkpoint's limit",
        least=0,
    ),
    queries: int | None = option(
        None, "How many lists; with --corpus, the first N of the run.", unset="1; with --corpus all", least=1
    ),
    order: Literal["first-stage", "random"] = option(
        "first-stage", "The order in which candidates are made to go: the first stage's last one first, or random."
    ),
    naive_queries: int | None = option(
        None, "Measure the naive loop on N lists only, and scale the result.", unset="all", least=1
    ),
    repeat: int = option(1, "Measure each row N times, and show the median of the seconds.", least=1),
    template: Path | None = option(
        None, "Prompt template (TOML) for speed.", unset="the project's, whatever the checkpoint's"
    ),
    corpus: str | None = option(
        None,
        "Measure quality against cost on this judged corpus, as r1ranker rerank takes it; nothing is forced.",
        unset="speed is measured on made-up lists",
    ),
    run: str | None = option(None, "First-stage TREC run to rerank, with --corpus."),
    depth: int = option(20, "Documents to rerank per query, with --corpus.", least=2),
    measure: str = option("nDCG@10", "Measures as ir_measures writes them, split by spaces, with --corpus."),
    batch_size: int | None = option(None, "Calls at once.", unset="16; with --corpus the checkpoint's", least=1),
    dtype: str = option(
        "auto",
        "Floating-point type of the model: float32, bfloat16, float16, or auto, as r1ranker rerank takes it "
        "(random weights are float32 on a CPU, and bfloat16 elsewhere). Several, split by commas, are measured one "
        "after the other and compared.",
    ),
    memory: Memory,
    seed: int = option(0, "Seed of random weights, texts and order.", least=0),
    output: Path | None = option(
        None,
        "Folder for benchmark.json and benchmark.png; of several --dtype, each has a folder in it.",
        unset="only the table is printed",
    ),
    verbose: bool = VERBOSE,
    quiet: bool = QUIET,
) -> None:
    """Measure calls, tokens and seconds of each way to rank, on a checkpoint or on random weights.

    Made-up lists are ranked by the real model, which does all its work; only its answers are replaced, so that each
    row excludes the same documents in the same order. With --corpus nothing is replaced, and the measures of a judged
    corpus stand beside the costs.
    """
    progress = start(verbose=verbose, quiet=quiet)
    _check_options(ctx, model, config_only, corpus, run)
    from r1ranker_ir.eval.benchmarks.model import parse_dtypes
    from r1ranker_ir.eval.benchmarks.rows import SpeedSettings
    from r1ranker_ir.eval.benchmarks.variants import DEFAULT_VARIANTS, QUALITY_VARIANTS, parse_variants
    from r1ranker_ir.eval.measuring.measures import parse_measures
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
    settings = made_of(
        ctx,
        SpeedSettings,
        thought_tokens=64 if thought_tokens is None else thought_tokens,
        queries=1 if queries is None or corpus is not None else queries,
        batch_size=16 if batch_size is None else batch_size,
    )
    read = (
        *corpus_inputs("--corpus", corpus),
        NamedFile("--run", run),
        NamedFile("--template", template),
        *checkpoint_inputs("MODEL", model or config_only),
    )
    results = _Results(output, tuple(dtypes), command_words(ctx, left_out=_NO_RESULT))
    measured: Callable[[BenchmarkModel, str], SpeedResult | None]
    if corpus is None or run is None:
        measured = partial(
            _measured_speed, variants=chosen, settings=settings, template=wording, progress=progress, results=results
        )
    else:
        measured = partial(
            _measured_quality,
            variants=chosen,
            all_variants=variants is not None,
            source=RunSource(corpus, run, depth, queries),
            measures=measures,
            results=results,
            batch_size=batch_size,
            max_thought_tokens=thought_tokens,
            cache_memory=memory.get("cache_memory"),
            progress=progress,
        )
    with results.claimed(read):
        _measure_each(measured, partial(_opened, model, config_only, device=memory.get("device"), seed=seed), results)
    if not quiet:
        for path in results.written:
            echo(f"wrote {path}", err=True)


@dataclass
class _Results:
    """Where the results go: a folder, in which each of several dtypes has one; `None` for nowhere but the screen."""

    output: Path | None
    dtypes: tuple[str, ...]
    command: list[str]
    written: list[Path] = field(default_factory=list)

    def place(self, dtype: str) -> Path | None:
        return self.output if self.output is None or len(self.dtypes) == 1 else self.output / dtype

    def claimed(self, read: Any) -> contextlib.AbstractContextManager[None]:
        """Makes the folders and keeps others out of them; refuses to write over what is read."""
        from r1ranker_ir.eval.benchmarks.report import EXTRA, FEATURE, PICTURE, RESULT_FILE
        from r1ranker_ir.eval.output.pictures import prepare_folder
        from r1ranker_ir.files.locks import folder_lock
        from r1ranker_ir.files.paths import NamedFile, check_outputs

        if self.output is None:
            return contextlib.nullcontext()
        places = [place for each in self.dtypes if (place := self.place(each)) is not None]
        folders = dict.fromkeys([self.output, *places])
        check_outputs(
            [NamedFile("--output", folder / name) for folder in folders for name in (RESULT_FILE, PICTURE)], read
        )
        claim = folder_lock(self.output, "--output")
        for folder in folders:
            prepare_folder(folder, feature=FEATURE, extra=EXTRA)
        return claim

    def show(self, opened: BenchmarkModel, dtype: str, sheet: Any, figures: Any, draw: Callable[[Path], Any]) -> None:
        """Prints a table, and writes its figures and its picture."""
        from r1ranker_ir.eval.benchmarks.report import PICTURE, write_result

        print_wide(sheet.table())
        if (place := self.place(dtype)) is not None:
            self.written.append(write_result(place, {"model": opened.described(), **figures}, self.command))
            draw(place / PICTURE)
            self.written.append(place / PICTURE)


def _opened(model: str | None, config_only: str | None, dtype: str, **options: Any) -> BenchmarkModel:
    from r1ranker_ir.eval.benchmarks.model import open_model

    return open_model(model, config_only, dtype=dtype, **options)


def _measure_each(
    measured: Callable[[BenchmarkModel, str], SpeedResult | None],
    opened: Callable[[str], BenchmarkModel],
    results: _Results,
) -> None:
    """Measures with one dtype after the other, and compares their speed; one model at a time is in memory."""
    from r1ranker_ir.eval.benchmarks.report import dtypes_data, dtypes_sheet, write_result

    speeds = {dtype: speed for dtype in results.dtypes if (speed := measured(opened(dtype), dtype)) is not None}
    if len(speeds) > 1:
        print_wide(dtypes_sheet(speeds).table())
        if results.output is not None:
            figures = {"dtypes": dtypes_data(speeds)}
            results.written.append(write_result(results.output, figures, results.command))


def _measured_speed(
    opened: BenchmarkModel,
    dtype: str,
    *,
    variants: Any,
    settings: Any,
    template: Any,
    progress: bool,
    results: _Results,
) -> SpeedResult:
    from r1ranker_ir.eval.benchmarks.report import plot_speed, speed_data, speed_sheet
    from r1ranker_ir.eval.benchmarks.speed import measure_speed

    speed = measure_speed(opened, variants, settings, template=template, progress=progress)
    results.show(opened, dtype, speed_sheet(speed, opened), speed_data(speed), partial(plot_speed, speed))
    return speed


def _measured_quality(
    opened: BenchmarkModel,
    dtype: str,
    *,
    variants: Any,
    all_variants: bool,
    source: RunSource,
    measures: Any,
    results: _Results,
    **options: Any,
) -> None:
    from r1ranker_ir.eval.shootouts.quality import measure_quality, possible_variants
    from r1ranker_ir.eval.shootouts.report import plot_shootout, quality_data, shootout_sheet

    chosen = variants if all_variants else possible_variants(str(opened.checkpoint), variants)
    quality = measure_quality(opened, chosen, source, measures, **options)
    results.show(opened, dtype, shootout_sheet(quality), quality_data(quality), partial(plot_shootout, quality))


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
    refuse_stated(ctx, _OF_QUALITY if corpus is None else _OF_SPEED)
