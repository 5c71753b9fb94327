"""The verbs `r1ranker search` and `r1ranker index`: first stages."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import RUN_OUTPUT, first_stages_help
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.option_fields import option
from r1ranker_ir.runs.run_source import CORPUS

logger = logging.getLogger(__name__)


@with_fields
def search(
    corpus: str = CORPUS,
    output: str = RUN_OUTPUT,
    first_stage: str = option("bm25s", f"What searches: {first_stages_help()}"),
    depth: int = option(100, "Most documents per query.", least=1),
    queries: int | None = option(None, "Only the first N queries.", unset="all", group="What", least=1),
    messages: Messages = MESSAGES,
) -> None:
    """Search a corpus with BM25 and write a TREC run.

    BM25 has k1 0.9 and b 0.4, English stemming and stop words. Queries that share no word with any document get no
    line and are reported.
    """
    progress = messages.start()
    from itertools import islice

    from r1ranker_ir.data import corpora
    from r1ranker_ir.data.trec_runs import RunWriter
    from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs, folder_inputs
    from r1ranker_ir.retrieval.first_stages import parse_first_stage, retrieve

    stage = parse_first_stage(first_stage)
    sources = folder_inputs("--first-stage", stage.source, ("",)) if stage.source else ()
    read = (*corpus_inputs("--corpus", corpus), *sources)
    check_outputs((NamedFile("--output", output),), read, announce=not messages.quiet)
    writer = RunWriter(output, tag=stage.declared.tag or stage.kind)
    started = time.perf_counter()
    opened = corpora.open_corpus(corpus)
    topics = dict(islice(opened.queries().items(), queries))
    run = retrieve(stage, opened, depth, topics, progress=progress)
    with writer:
        for query_id, entries in run.items():
            if entries:
                writer.write(query_id, entries)
    without = [query_id for query_id, entries in run.items() if not entries]
    if without:
        logger.warning("%d queries match no document and are not in the run: %s", len(without), ", ".join(without))
    documents, seconds = sum(map(len, run.values())), time.perf_counter() - started
    messages.say(f"{writer.queries} queries, {documents} documents, {seconds:.1f} seconds")


@with_fields
def index(
    corpus: str = CORPUS,
    output: Path = option(..., "Folder for the index; must not exist, or be empty."),
    threads: int = option(1, "Threads that index.", least=1),
    messages: Messages = MESSAGES,
) -> None:
    """Build a Lucene index of a corpus with Pyserini, to search with --first-stage pyserini:FOLDER.

    The words are analysed as Pyserini's English indexes are: Porter stemming, Lucene's stop words. Documents without
    text are left out and reported.
    """
    progress = messages.start()
    from r1ranker_ir.data import corpora
    from r1ranker_ir.retrieval.lucene_index import build_index

    started = time.perf_counter()
    summary = build_index(corpora.open_corpus(corpus), output, threads=threads, progress=progress)
    messages.say(f"{summary.documents} documents, {time.perf_counter() - started:.1f} seconds")
