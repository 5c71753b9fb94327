"""Options that several verbs take and that are not a dataclass's fields."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

CorpusOption = Annotated[
    str,
    typer.Option(
        help="An ir_datasets id, or a folder in BEIR layout: corpus.jsonl, queries.jsonl, and qrels/test.tsv or "
        "qrels.trec. A folder that exists wins.",
        show_default=False,
        rich_help_panel="What",
    ),
]
JudgedCorpusOption = Annotated[
    str,
    typer.Option(
        help="Whose judgments count: an ir_datasets id; a BEIR folder; or a file of ranking requests (.jsonl), "
        "such as a suite's requests.jsonl, whose gains are the judgments.",
        show_default=False,
        rich_help_panel="What",
    ),
]
OnlyRunQueriesOption = Annotated[
    bool,
    typer.Option(
        "--only-run-queries",
        help="Count only the judged queries that all given runs have results for, as after rerank --queries; else a "
        "query that a run lacks counts as 0.",
        rich_help_panel="What",
    ),
]
OutputOption = Annotated[
    str,
    typer.Option(
        help="Run file to write, gzip if it ends in .gz; - for standard output. Grows as <output>.partial until it "
        "is whole.",
        show_default=False,
        rich_help_panel="Output",
    ),
]
QueriesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first N queries of the corpus.", show_default="all", rich_help_panel="What"),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more on standard error.", rich_help_panel="Output")
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Only warnings and errors on standard error: no progress, no summary.",
        rich_help_panel="Output",
    ),
]
RunOption = Annotated[
    str,
    typer.Option(
        help="First-stage TREC run, gzip if it ends in .gz; - for standard input.",
        show_default=False,
        rich_help_panel="What",
    ),
]
RerankDepthOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Documents to rerank per query, from the top of the run; those below are not written.",
        rich_help_panel="What",
    ),
]
MissingOption = Annotated[
    Literal["error", "skip"],
    typer.Option(
        help="What to do about documents of the run that the corpus lacks; either way they are named.",
        rich_help_panel="What",
    ),
]
ShuffleOption = Annotated[
    int | None,
    typer.Option(
        metavar="SEED",
        help="Shuffle each query's documents (after the cut at --depth) before reranking, to see how much the "
        "first stage's order matters.",
        show_default="keep the run's order",
        rich_help_panel="What",
    ),
]
MeasuresOption = Annotated[
    str,
    typer.Option(
        help="Measures as ir_measures writes them, split by spaces: RR(rel=2)@10, P@5, R@100, …", rich_help_panel="What"
    ),
]
