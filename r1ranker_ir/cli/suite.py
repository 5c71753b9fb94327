"""The verb `r1ranker suite`: data sets through a first stage and a reranker, with a folder that says all about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from r1ranker_ir.cli.command_line import command_words
from r1ranker_ir.cli.options import (
    AnswersOption,
    BackendOption,
    BaseUrlOption,
    BatchSizeOption,
    CacheMemoryOption,
    CacheOption,
    CpusPerWorkerOption,
    DeviceOption,
    DtypeOption,
    EngineOption,
    GpusPerWorkerOption,
    LayoutOption,
    MaxCallsOption,
    MaxPassageTokensOption,
    MaxPassageWordsOption,
    MaxQueryTokensOption,
    MaxRepairRateOption,
    MaxThoughtTokensOption,
    MaxTokensOption,
    MissingOption,
    ModelOption,
    NoCacheOption,
    QuietOption,
    RayAddressOption,
    RepairTextOption,
    ScheduleOption,
    SeedOption,
    SettingsFromOption,
    ShowBestFirstOption,
    ShuffleOption,
    ShuffleSeedOption,
    SortOption,
    StrategyOption,
    StrideOption,
    TemperatureOption,
    TemplateOption,
    ThinkOption,
    TopKOption,
    VerboseOption,
    VoteAmongOption,
    VoteByOption,
    VotesOption,
    WindowSizeOption,
    WorkersOption,
)
from r1ranker_ir.cli.rerank import ranker_source, ray_cluster
from r1ranker_ir.files.terminal_text import echo

# What says which documents of a corpus are reranked, and so nothing to ranking requests, which hold their candidates.
_OF_CORPORA = ("first_stage", "depth", "missing")
# Where things go, and what is said meanwhile: it changes no result, so it is no part of the command in a manifest.
_NO_RESULT = {"list_suites", "output", "overwrite", "cache", "no_cache", "cache_memory", "verbose", "quiet"}


def suite(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="trec-dl, beir, bright or ranking-bench; a TOML file like theirs; a file of ranking requests "
            "(.jsonl); a folder in BEIR layout; or an ir_datasets id.",
            show_default=False,
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="As for `r1ranker rerank`: a registered name or, with --strategy, any causal language model.",
            show_default=False,
        ),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            "--datasets",
            "--tasks",
            help="Only these data sets or groups, split by commas; or all.",
            show_default="all of the suite",
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="With ranking-bench: a folder with a file of ranking requests for each task, such as movie.jsonl, or "
            "a file with Ranking-bench's columns.",
            show_default="the Hugging Face hub",
        ),
    ] = None,
    first_stage: Annotated[
        str | None,
        typer.Option(
            help="bm25s; pyserini:bm25, each data set's own prebuilt index; pyserini:INDEX; or run:FILE. In the last "
            "two, {dataset} stands for a data set's name.",
            show_default="pyserini:bm25 for a suite, bm25s for a folder",
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(min=1, help="Documents to rerank per query, from the top of the first stage.")
    ] = 100,
    measures: Annotated[
        str | None,
        typer.Option(
            help="Measures as ir_measures writes them, split by spaces: nDCG@10 RR(rel=2)@10 …",
            show_default="the data set's",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for all results.", show_default="runs/<suite>-<reranker>"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another command's results there.")] = False,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first N judged queries, or requests, of each data set.", show_default="all"),
    ] = None,
    strategy: StrategyOption = None,
    model: ModelOption = None,
    backend: BackendOption = "transformers",
    base_url: BaseUrlOption = None,
    window_size: WindowSizeOption = None,
    stride: StrideOption = None,
    batch_size: BatchSizeOption = None,
    max_passage_tokens: MaxPassageTokensOption = None,
    max_passage_words: MaxPassageWordsOption = None,
    repair_text: RepairTextOption = None,
    max_query_tokens: MaxQueryTokensOption = None,
    max_thought_tokens: MaxThoughtTokensOption = None,
    schedule: ScheduleOption = None,
    layout: LayoutOption = "shrink",
    think: ThinkOption = None,
    top_k: TopKOption = None,
    show_best_first: ShowBestFirstOption = False,
    template: TemplateOption = None,
    answers: AnswersOption = None,
    sort: SortOption = None,
    shuffle_seed: ShuffleSeedOption = None,
    votes: VotesOption = None,
    vote_among: VoteAmongOption = None,
    vote_by: VoteByOption = None,
    max_calls: MaxCallsOption = None,
    max_tokens: MaxTokensOption = None,
    max_repair_rate: MaxRepairRateOption = 0.2,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    cache_memory: CacheMemoryOption = None,
    missing: MissingOption = "error",
    shuffle: ShuffleOption = None,
    settings_from: SettingsFromOption = None,
    save_traces: Annotated[
        bool, typer.Option("--save-traces", help="Keep each query's model calls as JSON Lines, a file a data set.")
    ] = False,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    cpus_per_worker: CpusPerWorkerOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    ray_address: RayAddressOption = None,
    list_suites: Annotated[
        bool, typer.Option("--list", help="Show suites and data sets: sizes, downloads and licence steps.")
    ] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the data sets of a suite: first stage, reranking, measures, and published figures beside ours.

    Ranking requests need no first stage: their candidates are given. One folder takes runs, measures, a manifest and a
    report. The same command given again goes on where it stopped and writes the same files. A data set that fails is
    reported and the others are run; the exit code is 1 then.
    """
    from r1ranker_ir.cli.app import start

    progress = start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.eval.suites.requests import with_source
    from r1ranker_ir.eval.suites.results import SuiteSettings
    from r1ranker_ir.eval.suites.suite import run_suite
    from r1ranker_ir.eval.suites.tables import choose_datasets, open_suite

    if list_suites:
        _print_suites(name)
        return
    if name is None:
        raise typer.BadParameter("name one, or use --list", param_hint="SUITE")
    if reranker is None:
        raise typer.BadParameter("name one", param_hint="--reranker")
    source = ranker_source(
        reranker,
        model=model,
        strategy=strategy,
        backend=backend,
        base_url=base_url,
        device=device,
        dtype=dtype,
        cache_memory=cache_memory,
        cache=cache,
        no_cache=no_cache,
        settings_from=settings_from,
        window_size=window_size,
        stride=stride,
        max_passage_tokens=max_passage_tokens,
        max_passage_words=max_passage_words,
        repair_text=repair_text,
        max_query_tokens=max_query_tokens,
        max_thought_tokens=max_thought_tokens,
        batch_size=batch_size,
        max_repair_rate=max_repair_rate,
        temperature=temperature,
        seed=seed,
        schedule=schedule,
        layout=layout,
        think=think,
        top_k=top_k,
        show_best_first=show_best_first,
        template=template,
        answers=answers,
        sort=sort,
        shuffle_seed=shuffle_seed,
        votes=votes,
        vote_among=vote_among,
        vote_by=vote_by,
        max_calls=max_calls,
        max_tokens=max_tokens,
    )
    chosen = open_suite(name)
    if datasets is not None and datasets.strip() != "all":
        chosen = choose_datasets(chosen, [each.strip() for each in datasets.split(",") if each.strip()])
    if from_ is not None:
        chosen = with_source(chosen, from_)
    if all(dataset.is_of_requests for dataset in chosen.datasets):
        _check_no_options_of_corpora(ctx)
    label = re.sub(r"[^\w.-]+", "_", reranker).strip("_.") or "reranker"
    folder = output or Path("runs") / f"{chosen.name}-{label}"
    results = run_suite(
        chosen,
        source,
        folder,
        SuiteSettings(
            reranker=reranker,
            depth=depth,
            first_stage=first_stage,
            measures=measures,
            queries=queries,
            missing=missing,
            shuffle=shuffle,
            traces=save_traces,
            cluster=ray_cluster(engine, workers, cpus_per_worker, gpus_per_worker, ray_address),
            command=command_words(ctx, left_out=_NO_RESULT),
        ),
        overwrite=overwrite,
        progress=progress,
        say=(lambda message: None) if quiet else (lambda message: echo(message, err=True)),
    )
    failed = [result.dataset.name for result in results if result.failed is not None]
    if not quiet:
        echo(f"{len(results) - len(failed)} of {len(results)} data sets done: {folder / 'README.md'}", err=True)
    if failed:
        raise typer.Exit(1)


def _check_no_options_of_corpora(ctx: typer.Context) -> None:
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in _OF_CORPORA and given is not None and given.name == "COMMANDLINE":
            raise typer.BadParameter(
                "ranking requests hold their candidates, and all of them are ranked: leave it out",
                param_hint=parameter.opts[0],
            )


def _print_suites(name: str | None) -> None:
    """Prints what each data set of the packaged suites, or of one suite, needs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from r1ranker_ir.cli.app import print_wide
    from r1ranker_ir.eval.suites.tables import downloads_of, open_suite, size_of, suite_names

    for suite_name in suite_names() if name is None else (name,):
        opened = open_suite(suite_name)
        table = Table(
            "data set", "corpus", box=box.SIMPLE_HEAD, title=f"{opened.name}: {opened.title}", title_justify="left"
        )
        for column in ("documents", "queries", "download", "BM25 index"):
            table.add_column(column, justify="right", no_wrap=True)
        for dataset in opened.datasets:
            table.add_row(
                Text(dataset.name),
                Text(dataset.origin),
                *("" if count is None else f"{count:,}" for count in (dataset.documents, dataset.queries)),
                " + ".join(downloads_of(dataset)),
                "" if dataset.index_size is None else size_of(dataset.index_size),
            )
        print_wide(table)
        for terms in dict.fromkeys(dataset.terms for dataset in opened.datasets if dataset.terms):
            echo(f"{terms}\n")
