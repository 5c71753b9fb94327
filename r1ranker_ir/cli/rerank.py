"""The verb `r1ranker rerank`: the top of a run through a language model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from r1ranker_ir.backends import BACKENDS
from r1ranker_ir.cli.options import (
    AnswersOption,
    BackendOption,
    BaseUrlOption,
    BatchSizeOption,
    CacheMemoryOption,
    CacheOption,
    CorpusOption,
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
    OutputOption,
    QuietOption,
    RayAddressOption,
    RepairTextOption,
    RerankDepthOption,
    RerankerOption,
    RerankQueriesOption,
    RunOption,
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
    TraceOption,
    VerboseOption,
    VoteAmongOption,
    VoteByOption,
    VotesOption,
    WindowSizeOption,
    WorkersOption,
)
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.byte_sizes import in_units, parse_bytes
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.rankers.systems import FAMILY, family_options
from r1ranker_ir.strategies import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.runs.ray_engine import RayCluster
    from r1ranker_ir.runs.reranking import RankerSource

# Of a server's requests, with a default, so that they have to be left out by name.
_FIELDS = ("temperature", "seed")


def rerank(
    corpus: CorpusOption,
    run: RunOption,
    reranker: RerankerOption,
    output: OutputOption,
    depth: RerankDepthOption = 100,
    queries: RerankQueriesOption = None,
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
    save_traces: TraceOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    cpus_per_worker: CpusPerWorkerOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    ray_address: RayAddressOption = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rerank the top of a TREC run with a language model and write a TREC run.

    Only the top --depth documents of each query are reranked and written, with scores that repeat the rank
    (1 - (rank - 1) / n). Queries are written as they finish; after a failure they are kept in <output>.partial. The
    model's answers are kept in a cache: the same command given again goes on where it stopped.
    """
    from r1ranker_ir.cli.app import start

    progress = start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.runs.reranking import RunSource, rerank_run

    cluster = ray_cluster(engine, workers, cpus_per_worker, gpus_per_worker, ray_address)
    ranker = ranker_source(
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
    summary = rerank_run(
        RunSource(corpus, run, depth, queries, missing, shuffle),
        ranker,
        output,
        tag="_".join(reranker.split()),
        traces=save_traces,
        progress=progress,
        cluster=cluster,
        announce=not quiet,
    )
    if not quiet:
        echo(summary_line(summary), err=True)


def ray_cluster(
    engine: str,
    workers: int | None,
    cpus_per_worker: float | None,
    gpus_per_worker: float | None,
    address: str | None,
) -> RayCluster | None:
    """Puts together what the options of a verb say about Ray.

    Args:
        engine: `local` or `ray`.
        workers: how many processes.
        cpus_per_worker: CPUs of each.
        gpus_per_worker: GPUs of each.
        address: of a Ray that runs already.

    Returns:
        Where the work goes; `None` for this process.

    Raises:
        typer.BadParameter: if options do not go together.
    """
    given = {
        "--workers": workers,
        "--cpus-per-worker": cpus_per_worker,
        "--gpus-per-worker": gpus_per_worker,
        "--ray-address": address,
    }
    if engine == "local":
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter("only --engine ray has workers", param_hint=name)
        return None
    if workers is None:
        raise typer.BadParameter("--engine ray needs a number of them, such as --workers 2", param_hint="--workers")
    from r1ranker_ir.runs.ray_engine import RayCluster

    # Ray would print messages on standard output, where the run may go; it reads this when it is imported.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        return RayCluster(workers, cpus_per_worker, gpus_per_worker or 0, address)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--engine ray") from error


def ranker_source(
    reranker: str,
    *,
    model: str | None,
    strategy: str | None,
    backend: str,
    base_url: str | None,
    device: str | None,
    dtype: str = "auto",
    cache_memory: str | None,
    cache: Path | None,
    no_cache: bool,
    shuffle_seed: str | None = None,
    **options: Any,
) -> RankerSource:
    """Puts together what the options of a verb say about the ranker.

    Args:
        reranker: a registered name, or a model.
        model: a checkpoint in place of a registered name's own.
        strategy: how to use a model that is no registered name.
        backend: `transformers` or `openai`.
        base_url: the server's address, for `openai`.
        device: where the model runs, for `transformers`.
        dtype: the numbers that it computes in, for `transformers`.
        cache_memory: for prompts' keys and values between calls, for `transformers`, such as `4GiB`.
        cache: the file of the completions cache; the default one if `None`.
        no_cache: use none.
        shuffle_seed: a whole number, or `none`; the default one if `None`.
        options: further arguments of `Ranker`; a `temperature` or `seed` of `None` leaves the field of that name out.

    Returns:
        The ranker, not yet opened.

    Raises:
        typer.BadParameter: if options do not go together.
    """
    from r1ranker_ir.cache.completions import default_cache_path
    from r1ranker_ir.runs.reranking import RankerSource

    checkpoint, chosen = choose_checkpoint(reranker, model, strategy)
    asked = None if dtype == "auto" else dtype
    check_backend_options(backend, base_url=base_url, device=device, dtype=asked, cache_memory=cache_memory)
    if cache is not None and no_cache:
        raise typer.BadParameter("choose one of --cache and --no-cache", param_hint="--no-cache")
    try:
        state_bytes = None if cache_memory is None else parse_bytes(cache_memory, "the size")
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--cache-memory") from error
    numbers = None if dtype == "auto" else dtype
    places = {"base_url": base_url, "device": device, "dtype": numbers, "cache_memory": state_bytes}
    kept = None if no_cache else cache or default_cache_path()
    # What is not given is the ranker's default, or the published system's setting.
    given = {name: value for name, value in {**options, **places}.items() if value is not None}
    if shuffle_seed is not None:
        given["shuffle_seed"] = _read_seed(shuffle_seed)
    for name in _FIELDS:
        if name in options and options[name] is None:
            if name not in BACKENDS[backend].capabilities.leaves_out:
                raise typer.BadParameter(f"only a server is asked without a {name}", param_hint=f"--{name}")
            given[name] = None
        if not BACKENDS[backend].capabilities.samples and not given.get(name):
            given.pop(name, None)
    if reranker.lower() in FAMILY:
        given = family_options(reranker.lower(), given)
    return RankerSource(checkpoint, chosen, {"backend": backend, "cache": kept, **given})


def check_backend_options(backend: str, **given: object) -> None:
    """Refuses what is given to a backend and only others take.

    Raises:
        typer.BadParameter: if something is.
    """
    for name, value in given.items():
        takers = [each for each in BACKENDS.values() if name in each.own]
        if value is not None and takers and backend not in {each.name for each in takers}:
            said = " and ".join(each.name for each in takers)
            hint = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"only --backend {said} {takers[0].own[name]}", param_hint=hint)


def _read_seed(text: str) -> int | None:
    from r1ranker_ir.strategies.options import parse_seed

    try:
        return parse_seed(text, "the seed")
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--shuffle-seed") from error


def choose_checkpoint(reranker: str, model: str | None, strategy: str | None) -> tuple[str, str]:
    """Finds checkpoint and strategy for what `--reranker`, `--model` and `--strategy` say.

    Args:
        reranker: a registered name, or a model.
        model: a checkpoint in place of a registered name's own.
        strategy: how to use a model that is no registered name.

    Returns:
        The checkpoint and the strategy.

    Raises:
        typer.BadParameter: if the three do not go together.
    """
    from r1ranker_ir.rankers import registry

    if registry.is_family(reranker):
        return _choose_system(reranker.lower(), model, strategy)
    if not registry.is_registered(reranker):
        try:
            registry.refuse_unknown(reranker)
        except InputError as error:
            raise typer.BadParameter(str(error), param_hint="--reranker") from error
        if strategy is None:
            raise typer.BadParameter(
                f"{registry.unknown_name(reranker)}. To use a model of that name, add --strategy with one of "
                f"{', '.join(STRATEGIES)}",
                param_hint="--reranker",
            )
        if model is not None:
            raise typer.BadParameter(f"--reranker names a model already, {reranker!r}", param_hint="--model")
        return reranker, strategy
    try:
        checkpoint, named = registry.resolve(reranker, model)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error
    if strategy is not None and strategy != named:
        raise typer.BadParameter(f"{reranker!r} is the {named} strategy; drop --strategy", param_hint="--strategy")
    return checkpoint, named


def _choose_system(name: str, model: str | None, strategy: str | None) -> tuple[str, str]:
    """The checkpoint and the strategy of a published system."""
    member = FAMILY[name]
    if strategy is not None and strategy != member.strategy:
        raise typer.BadParameter(
            f"{name!r} is the {member.strategy} strategy; drop --strategy", param_hint="--strategy"
        )
    checkpoint = model or member.checkpoint
    if checkpoint is None:
        raise typer.BadParameter(f"{name!r} works with any chat model: name one", param_hint="--model")
    return checkpoint, member.strategy


def summary_line(summary: RunSummary) -> str:
    """Says what a run has cost.

    Args:
        summary: of the finished run.

    Returns:
        Queries, calls, tokens in and out, repairs and seconds in one line, and what was known from a call before.
    """
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
    if summary.cut_passages:
        parts.append(f"{summary.cut_passages} passages cut")
    if summary.cut_queries:
        parts.append(f"the query cut in {summary.cut_queries} calls")
    return ", ".join(parts)
