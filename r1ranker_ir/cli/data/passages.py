"""The verb `r1ranker data passages`: ranking requests of a corpus, its judgments and a first-stage run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from r1ranker_ir.cli.console import start
from r1ranker_ir.cli.options import CorpusOption, QuietOption, RunOption, VerboseOption
from r1ranker_ir.files.terminal_text import echo


def passages(
    corpus: CorpusOption,
    run: RunOption,
    output: Annotated[Path, typer.Option(help="JSON Lines file of ranking requests to write.", show_default=False)],
    candidates: Annotated[
        int, typer.Option(min=2, help="Passages of a request: one relevant, the others of the run.")
    ] = 5,
    negatives: Annotated[
        Literal["random", "top"], typer.Option(help="Random ones of the run's top, or those that it ranks highest.")
    ] = "random",
    depth: Annotated[int, typer.Option(min=1, help="Documents of the run that count as its top.")] = 100,
    min_gain: Annotated[int, typer.Option(min=1, help="Least grade of a relevant passage.")] = 1,
    split: Annotated[
        str | None, typer.Option(help="Whose judgments a folder gives; ids carry their split.", show_default="test")
    ] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Only the first N queries.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    on_error: Annotated[
        Literal["fail", "skip"],
        typer.Option(help="What to do about queries with too few passages: stop, or leave out and count them."),
    ] = "fail",
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make ranking requests of passages: one relevant passage among others that a first stage found.

    r1ranker suite measures on the file, and r1ranker data --requests makes training samples of it.
    """
    start(verbose=verbose, quiet=quiet)
    from r1ranker_ir.adapters.passages import PassageProtocol, passage_requests
    from r1ranker_ir.adapters.problems import Problems
    from r1ranker_ir.data.corpora import open_corpus
    from r1ranker_ir.data.request_files import write_requests
    from r1ranker_ir.data.trec_runs import read_run
    from r1ranker_ir.errors import InputError
    from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs

    check_outputs((NamedFile("--output", output),), (*corpus_inputs("--corpus", corpus), NamedFile("--run", run)))
    protocol = PassageProtocol(candidates, negatives, depth, min_gain, queries, seed)
    problems, counts = Problems(on_error), Counter[str]()
    requests = list(passage_requests(open_corpus(corpus, split), read_run(run), protocol, problems, counts))
    if not requests:
        raise InputError(
            f"no request could be made of corpus {corpus!r} and run {run!r}: {_line(counts)}; {problems.line()}"
        )
    write_requests(output, requests)
    if not quiet:
        echo(
            f"{output}: {len(requests)} requests with {candidates} passages each; {_line(counts)}; {problems.line()}",
            err=True,
        )


def _line(counts: Counter[str]) -> str:
    reasons = ", ".join(f"{count} × {reason}" for reason, count in counts.most_common())
    return f"{sum(counts.values())} queries passed over" + (f" ({reasons})" if reasons else "")
