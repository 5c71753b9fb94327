"""Which candidates of a first stage's run are reranked, and how the command line names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from r1ranker_ir.option_fields import option

if TYPE_CHECKING:
    from r1ranker_ir.runs.requests import RunRequests

DEPTH = option(100, "Documents to rerank and write per query, from the top.", group="What", least=1)
MISSING = option("error", "What to do about documents that the corpus lacks; they are named.", group="What")
SHUFFLE = option(
    None, "Shuffle each query's documents, cut at --depth.", unset="keep their order", group="What", metavar="SEED"
)
CORPUS = option(
    ...,
    "A folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv or qrels.trec), demo-collection, or an "
    "ir_datasets id.",
    group="What",
)
RUN = option(..., "First-stage TREC run, gzip if it ends in .gz; - for standard input.", group="What")


@dataclass(frozen=True)
class RunSource:
    """Candidates, named so that another process can find them too; each field says what it is for."""

    corpus: str = CORPUS
    run: str = RUN
    depth: int = DEPTH
    queries: int | None = option(None, "Only the first N queries that both have.", unset="all", group="What", least=1)
    missing: Literal["error", "skip"] = MISSING
    shuffle: int | None = SHUFFLE

    def requests(self) -> RunRequests:
        """Opens the files and gives the requests, to be read chunk by chunk; see `requests_of_run`."""
        from r1ranker_ir.data.corpora import open_corpus
        from r1ranker_ir.data.long_runs import open_run
        from r1ranker_ir.runs.requests import requests_of_run

        corpus, limits = open_corpus(self.corpus), {"queries": self.queries, "shuffle": self.shuffle}
        return requests_of_run(corpus, open_run(self.run), self.depth, missing=self.missing, **limits)
