"""Options that several verbs take and that are not a dataclass's fields."""

from __future__ import annotations

from typing import Any

from r1ranker_ir.option_fields import option

CORPUS = option(
    ...,
    "A folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv or qrels.trec), demo-collection, or an "
    "ir_datasets id.",
    group="What",
)
JUDGED_CORPUS = option(
    ...,
    "Whose judgments count: an ir_datasets id; a BEIR folder; or ranking requests (.jsonl) with their gains.",
    group="What",
)
ONLY_RUN_QUERIES = option(
    False,
    "Count only the judged queries that all runs have; else one that a run lacks counts as 0.",
    group="What",
)
RUN_OUTPUT = option(
    ...,
    "Run file to write, gzip if it ends in .gz; - for standard output. Grows as <output>.partial until it is whole.",
    group="Output",
)
RUN = option(..., "First-stage TREC run, gzip if it ends in .gz; - for standard input.", group="What")
RERANK_DEPTH = option(
    100, "Documents to rerank per query, from the top of the run; those below are not written.", group="What", least=1
)
MISSING = option(
    "error", "What to do about documents of the run that the corpus lacks; either way they are named.", group="What"
)
ON_ERROR = option("fail", "What to do about what can't be used: stop with an error, or leave out and count it.")
SHUFFLE = option(
    None,
    "Shuffle each query's documents, cut at --depth, to see how much the first stage's order matters.",
    unset="keep the run's order",
    group="What",
    metavar="SEED",
)


def measures_option(default: str | None, **offer: Any) -> Any:
    said = "Measures as ir_measures writes them, split by spaces: RR(rel=2)@10, P@5, R@100, …"
    return option(default, said, group="What", **offer)
