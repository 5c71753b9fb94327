"""Options that several verbs take and that are not a dataclass's fields."""

from __future__ import annotations

from typing import Any

from r1ranker_ir.option_fields import option

CORPUS = option(
    ...,
    "An ir_datasets id, demo-collection, or a folder in BEIR layout: corpus.jsonl, queries.jsonl, and qrels/test.tsv "
    "or qrels.trec. A folder that exists wins.",
    group="What",
)
JUDGED_CORPUS = option(
    ...,
    "Whose judgments count: an ir_datasets id; a BEIR folder; or a file of ranking requests (.jsonl), such as "
    "a suite's requests.jsonl, whose gains are the judgments.",
    group="What",
)
ONLY_RUN_QUERIES = option(
    False,
    "Count only the judged queries that all given runs have results for, as after rerank --queries; else a "
    "query that a run lacks counts as 0.",
    group="What",
    flags=("--only-run-queries",),
)
RUN_OUTPUT = option(
    ...,
    "Run file to write, gzip if it ends in .gz; - for standard output. Grows as <output>.partial until it is whole.",
    group="Output",
)
QUERIES = option(None, "Only the first N queries of the corpus.", unset="all", group="What", least=1)
VERBOSE = option(False, "Say more on standard error.", group="Output", flags=("--verbose", "-v"))
QUIET = option(
    False,
    "Only warnings and errors on standard error: no progress, no summary.",
    group="Output",
    flags=("--quiet", "-q"),
)
RUN = option(..., "First-stage TREC run, gzip if it ends in .gz; - for standard input.", group="What")
RERANK_DEPTH = option(
    100, "Documents to rerank per query, from the top of the run; those below are not written.", group="What", least=1
)
MISSING = option(
    "error", "What to do about documents of the run that the corpus lacks; either way they are named.", group="What"
)
SHUFFLE = option(
    None,
    "Shuffle each query's documents (after the cut at --depth) before reranking, to see how much the first "
    "stage's order matters.",
    unset="keep the run's order",
    group="What",
    metavar="SEED",
)


def measures_option(default: str) -> Any:
    return option(
        default, "Measures as ir_measures writes them, split by spaces: RR(rel=2)@10, P@5, R@100, …", group="What"
    )
