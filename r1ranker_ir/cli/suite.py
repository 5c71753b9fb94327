"""The verb `r1ranker suite`: data sets through a first stage and a reranker, with a folder that says all about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages, print_wide
from r1ranker_ir.cli.options import MISSING, RERANK_DEPTH, SHUFFLE, measures_option
from r1ranker_ir.cli.parameters import command_words, made_of, refuse_stated, with_fields
from r1ranker_ir.cli.ranker_options import ENGINE, RankerChoice, StatedCluster, StatedOptions, ray_cluster
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import argument, option
from r1ranker_ir.rankers.unsure import MARGIN

if TYPE_CHECKING:
    from r1ranker_ir.eval.suites.tables import Suite

_OF_CORPORA = dict.fromkeys(
    ("first_stage", "depth", "missing"),
    "ranking requests hold their candidates, and all of them are ranked: leave it out",
)
# What changes no result is not part of the command in a manifest.
_NO_RESULT = {"list_suites", "output", "overwrite", "cache", "no_cache", "cache_memory", "verbose", "quiet"}


@with_fields
def suite(
    *,
    ctx: typer.Context,
    name: str | None = argument(
        None,
        "trec-dl, beir, bright or ranking-bench; a TOML file like theirs; ranking requests (.jsonl); a folder in BEIR "
        "layout; or an ir_datasets id.",
        metavar="SUITE",
    ),
    datasets: str | None = option(
        None,
        "Only these data sets or groups, split by commas; or all.",
        unset="all of the suite",
        group="What",
        flags=("--datasets", "--tasks"),
    ),
    source: str | None = option(
        None,
        "With ranking-bench: a folder of ranking requests, such as movie.jsonl, or a file with its columns.",
        unset="the Hugging Face hub",
        group="What",
    ),
    first_stage: str | None = option(
        None,
        "bm25s; pyserini:bm25, each one's prebuilt index; pyserini:INDEX or run:FILE, with {dataset} for its name.",
        unset="pyserini:bm25 for a suite, bm25s for a folder",
        group="What",
    ),
    depth: int = RERANK_DEPTH,
    queries: int | None = option(None, "Only the first N of each data set.", unset="all", group="What", least=1),
    missing: Literal["error", "skip"] = MISSING,
    shuffle: int | None = SHUFFLE,
    measures: str | None = measures_option(None, unset="the data set's"),
    list_suites: bool = option(False, "Show suites, sizes and licence steps.", group="What", flags=("--list",)),
    reranker: str | None = option(None, "As for r1ranker rerank.", group="Model"),
    router: Path | None = option(
        None,
        "Folder of r1ranker train router, measured beside, alone and with the reranker where it is unsure.",
        unset="none",
        group="Model",
    ),
    margin: float = option(
        MARGIN, "The router is unsure where its first two chances differ by less.", group="Model", least=0, most=1
    ),
    output: Path | None = option(None, "Folder for all results.", unset="runs/<suite>-<reranker>", group="Output"),
    overwrite: bool = option(False, "Replace another command's results there.", group="Output"),
    save_traces: bool = option(False, "Keep each query's model calls, a file for each data set.", group="Output"),
    choice: RankerChoice,
    options: StatedOptions,
    engine: Literal["local", "ray"] = ENGINE,
    workers: StatedCluster,
    messages: Messages = MESSAGES,
) -> None:
    """Run the data sets of a suite: first stage, reranking, measures, and published figures beside ours.

    Ranking requests need no first stage: their candidates are given. One folder takes runs, measures, a manifest and a
    report. The same command given again goes on where it stopped and writes the same files. A data set that fails is
    reported and the others are run; the exit code is 1 then.
    """
    progress = messages.start()
    if list_suites:
        _print_suites(name)
        return
    if name is None:
        raise typer.BadParameter("name one, or use --list", param_hint="SUITE")
    if reranker is None:
        raise typer.BadParameter("name one", param_hint="--reranker")
    from r1ranker_ir.eval.suites.results import SuiteSettings
    from r1ranker_ir.eval.suites.suite import run_suite

    ranker = choice.source(reranker, options)
    chosen = _chosen(name, datasets, source)
    if router is not None and not all(dataset.is_of_requests for dataset in chosen.datasets):
        raise typer.BadParameter("a router is measured on files of ranking requests alone", param_hint="--router")
    if all(dataset.is_of_requests for dataset in chosen.datasets):
        refuse_stated(ctx, _OF_CORPORA)
    label = re.sub(r"[^\w.-]+", "_", reranker).strip("_.") or "reranker"
    folder = output or Path("runs") / f"{chosen.name}-{label}"
    settings = made_of(
        ctx,
        SuiteSettings,
        traces=save_traces,
        cluster=ray_cluster(engine, workers),
        command=command_words(ctx, left_out=_NO_RESULT),
    )
    results = run_suite(chosen, ranker, folder, settings, overwrite=overwrite, progress=progress, say=messages.say)
    failed = [result.dataset.name for result in results if result.failed is not None]
    messages.say(f"{len(results) - len(failed)} of {len(results)} data sets done: {folder / 'README.md'}")
    if failed:
        raise typer.Exit(1)


def _chosen(name: str, datasets: str | None, source: str | None) -> Suite:
    """The suite, or those of its data sets that are asked for."""
    from r1ranker_ir.eval.suites.requests import with_source
    from r1ranker_ir.eval.suites.tables import choose_datasets, open_suite

    chosen = open_suite(name)
    if datasets is not None and datasets.strip() != "all":
        chosen = choose_datasets(chosen, [each.strip() for each in datasets.split(",") if each.strip()])
    return chosen if source is None else with_source(chosen, source)


def _print_suites(name: str | None) -> None:
    """Prints the data sets of the packaged suites, or of one suite, and their terms."""
    from r1ranker_ir.eval.output.sheets import NOTHING, Sheet
    from r1ranker_ir.eval.suites.tables import open_suite, suite_names

    for suite_name in suite_names() if name is None else (name,):
        opened = open_suite(suite_name)
        rows = []
        for dataset in opened.datasets:
            counts = (NOTHING if count is None else f"{count:,}" for count in (dataset.documents, dataset.queries))
            rows.append((dataset.name, dataset.origin, *counts))
        headings = ("data set", "corpus", "documents", "queries")
        print_wide(Sheet(f"{opened.name}: {opened.title}", headings, tuple(rows), words=2).table())
        for terms in dict.fromkeys(dataset.terms for dataset in opened.datasets if dataset.terms):
            echo(f"{terms}\n")
