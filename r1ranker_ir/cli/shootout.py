"""The verb `r1ranker shootout`: rerankers side by side on equal terms, in one table."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import typer

from r1ranker_ir.cli.console import print_wide, start
from r1ranker_ir.cli.options import CORPUS, MISSING, QUIET, RERANK_DEPTH, RUN, VERBOSE
from r1ranker_ir.cli.parameters import command_words, with_fields
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import option

_NO_RESULT = {"output", "verbose", "quiet"}


@with_fields
def shootout(
    ctx: typer.Context,
    corpus: str = CORPUS,
    run: str = RUN,
    rerankers: str = option(
        ...,
        "YAML file that lists the rerankers, or a packaged one's name: oracle (all strategies, with a noisy oracle "
        "in place of a model) or tiny (the embedded model).",
    ),
    depth: int = RERANK_DEPTH,
    queries: int | None = option(None, "Only the first N judged queries.", unset="all judged ones", least=1),
    measures: str = option("nDCG@10", "Measures as ir_measures writes them, split by spaces; the first one is drawn."),
    max_calls: int | None = option(
        None,
        "Most calls per query for each reranker; when they are spent, its best order so far counts.",
        unset="no limit",
        least=1,
    ),
    max_tokens: int | None = option(
        None, "Most tokens that these calls may read and write.", unset="no limit", least=1
    ),
    seed: int = option(0, "Seed of noise and sampling, where a reranker names none, and of intervals.", least=0),
    missing: Literal["error", "skip"] = MISSING,
    output: Path | None = option(
        None,
        "Folder for shootout.json, shootout.png and runs/, where each run is written once it is finished.",
        unset="only the table is printed",
    ),
    verbose: bool = VERBOSE,
    quiet: bool = QUIET,
) -> None:
    """Rerank the same candidates with several rerankers, and print measures and costs of each in one table.

    All get the same corpus, run, depth, seed and budget; the order of the run itself is a row. Only judged queries are
    ranked. A reranker that fails says why, and the others are run all the same; the exit code is then 1.
    """
    progress = start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.eval.measuring.measures import parse_measures
    from r1ranker_ir.eval.output.manifest import made_with, write_result
    from r1ranker_ir.eval.output.pictures import prepare_folder
    from r1ranker_ir.eval.shootouts.entries import FIRST_STAGE, read_entries, run_file
    from r1ranker_ir.eval.shootouts.report import (
        EXTRA,
        FEATURE,
        PICTURE,
        RESULT_FILE,
        plot_shootout,
        shootout_data,
        shootout_sheet,
    )
    from r1ranker_ir.eval.shootouts.shootout import RUNS, EqualTerms, run_shootout
    from r1ranker_ir.files.locks import folder_lock
    from r1ranker_ir.files.paths import NamedFile, check_outputs
    from r1ranker_ir.runs.inputs import candidate_inputs
    from r1ranker_ir.runs.reranking import RunSource

    source = RunSource(corpus, run, depth, queries, missing)
    terms = EqualTerms(source, parse_measures(measures), max_calls, max_tokens, seed)
    entries = read_entries(rerankers)
    claim: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if output is not None:
        names = [
            RESULT_FILE,
            PICTURE,
            *(f"{RUNS}/{run_file(name)}" for name in (FIRST_STAGE, *(entry.name for entry in entries))),
        ]
        check_outputs(
            [NamedFile("--output", output / name) for name in names],
            (*candidate_inputs(source), NamedFile("RERANKERS", rerankers)),
        )
        prepare_folder(output, feature=FEATURE, extra=EXTRA)
        claim = folder_lock(output, "--output")

    def say(name: str) -> None:
        if not quiet:
            echo(f"{name} …", err=True)

    with claim:
        result = run_shootout(entries, terms, folder=output, progress=progress, say=say)
        print_wide(shootout_sheet(result).table())
        if output is not None:
            written = output / RESULT_FILE
            made = made_with(command_words(ctx, left_out=_NO_RESULT), "transformers", "openai", "matplotlib")
            write_result(written, {**made, **shootout_data(result)})
            plot_shootout(result, output / PICTURE)
    if output is not None and not quiet:
        for path in (output / RESULT_FILE, output / PICTURE):
            echo(f"wrote {path}", err=True)
    for row in result.rows:
        if row.failed:
            echo(f"Error: {row.name}: {row.failed}", err=True)
    if any(row.failed for row in result.rows):
        raise typer.Exit(1)
