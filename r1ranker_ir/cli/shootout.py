"""The verb `r1ranker shootout`: rerankers side by side on equal terms, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from r1ranker_ir.cli.console import MESSAGES, Messages, claimed_folder, print_wide
from r1ranker_ir.cli.parameters import StatedOf, command_words, with_fields
from r1ranker_ir.files.terminal_text import echo
from r1ranker_ir.option_fields import option
from r1ranker_ir.runs.run_source import RunSource
from r1ranker_ir.strategies.options import RankingOptions

StatedSource = Annotated[Mapping[str, Any], StatedOf(RunSource, only=("corpus", "run", "depth", "queries", "missing"))]
StatedBudget = Annotated[Mapping[str, Any], StatedOf(RankingOptions, only=("max_calls", "max_tokens"))]


@with_fields
def shootout(
    *,
    ctx: typer.Context,
    source: StatedSource,
    rerankers: str = option(
        ..., "YAML file of rerankers, or a packaged one: oracle (a noisy oracle), small (SmolLM2) or tiny (embedded)."
    ),
    measures: str = option("nDCG@10", "Measures as ir_measures writes them, split by spaces; the first one is drawn."),
    budget: StatedBudget,
    seed: int = option(0, "Seed of noise and sampling, where a reranker names none, and of intervals.", least=0),
    output: Path | None = option(
        None, "Folder for shootout.json, shootout.png and each finished run.", unset="only the table is printed"
    ),
    messages: Messages = MESSAGES,
) -> None:
    """Rerank the same candidates with several rerankers, and print measures and costs of each in one table.

    All get the same corpus, run, depth, seed and budget; the order of the run itself is a row. Only judged queries are
    ranked. A reranker that fails says why, and the others are run all the same; the exit code is then 1.
    """
    progress = messages.start()
    from r1ranker_ir.eval.measuring.measures import parse_measures
    from r1ranker_ir.eval.output.manifest import made_with, write_result
    from r1ranker_ir.eval.shootouts.entries import FIRST_STAGE, read_entries, run_file
    from r1ranker_ir.eval.shootouts.report import (
        FEATURE,
        PICTURE,
        RESULT_FILE,
        plot_shootout,
        shootout_data,
        shootout_sheet,
    )
    from r1ranker_ir.eval.shootouts.shootout import RUNS, EqualTerms, ShootoutResult, run_shootout
    from r1ranker_ir.files.paths import NamedFile
    from r1ranker_ir.runs.reranking import candidate_inputs

    candidates = RunSource(**source)
    terms = EqualTerms(candidates, parse_measures(measures), seed=seed, **budget)
    entries = read_entries(rerankers)
    runs = [f"{RUNS}/{run_file(name)}" for name in (FIRST_STAGE, *(entry.name for entry in entries))]
    read = (*candidate_inputs(candidates), NamedFile("RERANKERS", rerankers))
    made = made_with(
        command_words(ctx, left_out={"output", "verbose", "quiet"}), "transformers", "openai", "matplotlib"
    )

    def keep(result: ShootoutResult) -> None:
        if output is not None:
            write_result(output / RESULT_FILE, {**made, **shootout_data(result)})

    with claimed_folder(output, (RESULT_FILE, PICTURE, *runs), read, FEATURE):
        result = run_shootout(
            entries, terms, folder=output, progress=progress, say=lambda name: messages.say(f"{name} …"), keep=keep
        )
        print_wide(shootout_sheet(result).table())
        keep(result)
        if output is not None:
            plot_shootout(result, output / PICTURE)
    if output is not None:
        messages.say(f"wrote {output / RESULT_FILE}", f"wrote {output / PICTURE}")
    failed = [row for row in result.rows if row.failed]
    for row in failed:
        echo(f"Error: {row.name}: {row.failed}", err=True)
    if failed:
        raise typer.Exit(1)
