"""A Lucene index of a corpus, as Pyserini's indexer writes it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.files.locks import output_lock
from r1ranker_ir.files.partial import set_aside
from r1ranker_ir.quoting import shown_ids
from r1ranker_ir.retrieval.java import first_line
from r1ranker_ir.retrieval.lucene import load_pyserini

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus

logger = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 1000


@dataclass(frozen=True)
class IndexSummary:
    """How many documents are in an index, and the ids of those without text, which Lucene leaves out."""

    documents: int
    empty: tuple[str, ...]


def build_index(
    corpus: Corpus, folder: str | os.PathLike[str], *, threads: int = 1, progress: bool = False
) -> IndexSummary:
    """Indexes the documents of a corpus: positions, document vectors (for RM3) and the texts.

    The index grows in `<folder>.partial`, which gets its name when it is whole and is removed after a failure.
    """
    target = Path(folder).expanduser()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{str(folder)!r} exists and is not an empty folder: choose another place for the index")
    if threads < 1:
        raise InputError(f"threads is {threads}: use at least 1")
    load_pyserini()
    # Absolute, since Java looks from the folder in which it was started, wherever Python has gone since.
    growing = target.absolute().with_name(f"{target.name}.partial")
    with output_lock(target, "place for the index"):
        try:
            if (aside := set_aside(growing)) is not None:
                logger.warning("%s was left behind by an earlier run: it is now %s", growing, aside)
            summary = _write(corpus, growing, threads, progress)
            if target.exists():
                target.rmdir()
            growing.rename(target)
        except OSError as error:
            raise _not_written(folder, error.strerror) from error
        finally:
            shutil.rmtree(growing, ignore_errors=True)
    if summary.empty:
        logger.warning(
            "%d documents of corpus %s have no text and are not in the index: %s",
            *(len(summary.empty), corpus.name, shown_ids(summary.empty)),
        )
    return summary


def _write(corpus: Corpus, folder: Path, threads: int, progress: bool) -> IndexSummary:
    from jnius import JavaException
    from pyserini.index.lucene import LuceneIndexer, LuceneIndexReader
    from tqdm import tqdm

    empty: list[str] = []

    def with_text() -> Iterator[str]:
        """Documents as Pyserini's JsonCollection has them."""
        for doc_id, text in tqdm(corpus.iterate_documents(), "Indexing documents", unit="doc", disable=not progress):
            if text.strip():
                yield json.dumps({"id": doc_id, "contents": text})
            else:
                empty.append(doc_id)

    records = with_text()
    arguments = ["-index", str(folder), "-storePositions", "-storeDocvectors", "-storeRaw"]
    sent = 0
    try:
        indexer = LuceneIndexer(str(folder), args=arguments, threads=threads)
        try:
            while some := list(islice(records, DOCUMENTS_AT_ONCE)):
                indexer.add_batch_raw(some)
                sent += len(some)
        finally:
            indexer.close()
        kept = LuceneIndexReader(str(folder)).stats()["documents"] if sent else 0
    except JavaException as error:
        raise _not_written(folder, first_line(error)) from error
    if not sent:
        raise InputError(f"corpus {corpus.name!r} holds no documents with text: there is nothing to index")
    if kept != sent:
        # The indexer logs what it can't write and goes on.
        raise _not_written(folder, f"Lucene took {kept} of {sent} documents")
    return IndexSummary(sent, tuple(empty))


def _not_written(folder: str | os.PathLike[str], reason: str | None) -> StorageError:
    return StorageError(
        f"can't write the index {os.fspath(folder)!r} ({reason}): free some room on its disk, or choose another place"
    )
