"""The verb `r1ranker suite`: data sets through a first stage and a reranker, with a folder that says all about it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages, print_wide
from r1ranker_ir.cli.parameters import command_words, refuse_stated, with_fields
from r1ranker_ir.cli.ranker_options import ENGINE, RankerChoice, StatedCluster, StatedOptions, ray_cluster
from r1ranker_ir.eval.suites.results import SuiteSettings
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import argument, option

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
    settings: SuiteSettings,
    list_suites: bool = option(False, "Show suites, sizes and licence steps.", group="What", flags=("--list",)),
    output: Path | None = option(None, "Folder for all results.", unset="runs/<suite>-<reranker>", group="Output"),
    overwrite: bool = option(False, "Replace another command's results there.", group="Output"),
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
    if not settings.reranker:
        raise typer.BadParameter("name one", param_hint="--reranker")
    from r1ranker_ir.eval.suites.suite import run_suite

    ranker = choice.source(settings.reranker, options)
    chosen = _chosen(name, datasets, source)
    of_requests = all(dataset.is_of_requests for dataset in chosen.datasets)
    if settings.router is not None and not of_requests:
        raise typer.BadParameter("a router is measured on files of ranking requests alone", param_hint="--router")
    if of_requests:
        refuse_stated(ctx, _OF_CORPORA)
    label = re.sub(r"[^\w.-]+", "_", settings.reranker).strip("_.") or "reranker"
    folder = output or Path("runs") / f"{chosen.name}-{label}"
    command = command_words(ctx, left_out=_NO_RESULT)
    told = replace(settings, cluster=ray_cluster(engine, workers), command=command)
    results = run_suite(chosen, ranker, folder, told, overwrite=overwrite, progress=progress, say=messages.say)
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
