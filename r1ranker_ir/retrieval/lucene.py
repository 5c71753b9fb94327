"""BM25 by Lucene, through Pyserini: loading it, opening an index, searching.

`k1 = 0.9` and `b = 0.4` are Anserini's and Pyserini's values. Pyserini's English analysis: Porter stemming and Lucene's
33 stop words.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import InputError, MissingExtraError, missing_extra
from r1ranker_ir.files.byte_sizes import in_units
from r1ranker_ir.quoting import quoted
from r1ranker_ir.retrieval.bm25 import K1, B
from r1ranker_ir.retrieval.first_stages import check_depth
from r1ranker_ir.retrieval.hits import check_batch, entries_of_hits
from r1ranker_ir.retrieval.java import environment, first_line, start_jvm

logger = logging.getLogger(__name__)

QUERIES_AT_ONCE = 256
MODULES = ("pyserini.index.lucene", "pyserini.search.lucene")
_EXTRA = "pyserini"
_loading = threading.Lock()


def load_pyserini() -> None:
    """Starts Java if need be and imports Pyserini's Lucene part, leaving logging and the environment as they were."""
    with _loading:
        if all(name in sys.modules for name in MODULES):
            return
        try:
            import jnius_config
            import pyserini

            if not jnius_config.vm_running:
                jars = os.environ.get("ANSERINI_CLASSPATH", Path(pyserini.__file__).parent / "resources" / "jars")
                start_jvm(str(max(Path(jars).glob("anserini-*-fatjar.jar"), key=os.path.getctime)))
            with _import_undone():
                for name in MODULES:
                    importlib.import_module(name)
        except MissingExtraError:
            raise
        except ImportError as error:
            raise missing_extra("searching with Pyserini", _EXTRA, error) from error
        except Exception as error:
            raise MissingExtraError(
                f"Pyserini can't be imported ({type(error).__name__}: {first_line(error)}). If this process started "
                f"Java for something else before, search with Pyserini first or in another process; else install it "
                f'again: pip install "r1ranker-ir[{_EXTRA}]"'
            ) from error


class PyseriniSearcher:
    """Searches a Lucene index with BM25; `search` and `batch_search` are those of Pyserini's `LuceneSearcher`.

    `index` is the folder of a Lucene index, or the name of one of Pyserini's prebuilt inverted indexes, which is
    downloaded on first use to `PYSERINI_CACHE` (`~/.cache/pyserini`); its size is logged before. `lucene` is Pyserini's
    own searcher, for all else that it can do, such as `set_rm3()`.
    """

    def __init__(self, index: str | os.PathLike[str], *, k1: float = K1, b: float = B) -> None:
        if not (k1 >= 0 and 0 <= b <= 1):
            raise InputError(f"k1 is {k1} and b is {b}: k1 is 0 or more, b lies between 0 and 1")
        self.index = os.fspath(index)
        folder = Path(self.index).expanduser()
        _check_index(self.index, folder)
        load_pyserini()
        prebuilt = None if folder.is_dir() else self.index
        if prebuilt is not None:
            folder = _prebuilt_index(prebuilt)
        from jnius import JavaException, autoclass
        from pyserini.search.lucene import LuceneSearcher

        # Lucene refuses queries of more than 1,024 different words, and whole posts as queries (BRIGHT's) have more.
        autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
        try:
            # Java looks from the folder in which it was started, wherever Python has gone since.
            self.lucene: Any = LuceneSearcher(str(folder.absolute()), prebuilt_index_name=prebuilt)
        except JavaException as error:
            raise InputError(
                f"Lucene can't open index {self.index!r} ({first_line(error)}): was it written by another version of "
                f"Lucene, or not to its end? Build it again"
            ) from error
        self.lucene.set_bm25(k1, b)

    def search(self, q: str, k: int = 10, **options: Any) -> list[Any]:
        """Pyserini's hits for one query, best first; `options` are what else `LuceneSearcher.search` takes."""
        check_depth(k)
        with self._searching(quoted(q)):
            return list(self.lucene.search(q, k, **options))

    def batch_search(
        self, queries: Sequence[str], qids: Sequence[str], k: int = 10, threads: int = 1, **options: Any
    ) -> dict[str, list[Any]]:
        """Pyserini's hits by query id, found in threads of Java, which do not change them."""
        check_batch(queries, qids)
        check_depth(k)
        if not queries:
            return {}
        with self._searching(f"{len(queries)} queries"):
            found = self.lucene.batch_search(list(queries), list(qids), k, threads, **options)
        return {qid: list(found[qid]) for qid in qids}

    def run(
        self, queries: Mapping[str, str], depth: int, *, threads: int = 1, progress: bool = False
    ) -> dict[str, tuple[RunEntry, ...]]:
        """The run of a corpus's queries (text by id), with an entry for every query, in their order."""
        from tqdm import tqdm

        check_depth(depth)
        run: dict[str, tuple[RunEntry, ...]] = {}
        remaining = iter(queries.items())
        with tqdm(total=len(queries), desc="Searching", unit="query", disable=not progress) as bar:
            while some := dict(islice(remaining, QUERIES_AT_ONCE)):
                found = self.batch_search(list(some.values()), list(some), depth, threads)
                run |= {query_id: entries_of_hits(hits) for query_id, hits in found.items()}
                bar.update(len(some))
        return run

    def doc(self, docid: str | int) -> Any:
        """Returns Pyserini's `Document` of an id, or `None` if the index has no such document."""
        return self.lucene.doc(docid)

    @contextlib.contextmanager
    def _searching(self, what: str) -> Iterator[None]:
        from jnius import JavaException

        try:
            yield
        except JavaException as error:
            raise InputError(f"Lucene could not search {self.index!r} for {what}: {first_line(error)}") from error


@contextlib.contextmanager
def _import_undone() -> Iterator[None]:
    """Gives an import of Pyserini the OpenAI key that it asks for, and undoes that and its changes to logging."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # Its encoders build a client of OpenAI's when they are imported, which fails without a key. Nothing is sent.
    key = os.environ.get("OPENAI_API_KEY") or "none-needed-to-import-pyserini"
    try:
        with environment(OPENAI_API_KEY=key):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _check_index(index: str, folder: Path) -> None:
    if folder.is_dir():
        if not any(folder.glob("segments_*")):
            raise InputError(
                f"folder {index!r} holds no Lucene index (no file segments_*): give the folder that an indexer "
                f"wrote, or build one with: r1ranker index --corpus … --output {index}"
            )
    elif folder.is_file() or folder.name != index:
        raise InputError(f"there is no index folder {index!r}: check the path, or give a prebuilt index's name")


def _prebuilt_index(name: str) -> Path:
    """Returns the folder of a prebuilt index, downloaded if need be."""
    from pyserini.prebuilt_index_info import TF_INDEX_INFO
    from pyserini.util import check_downloaded, download_prebuilt_index, get_cache_home

    if name not in TF_INDEX_INFO:
        close = difflib.get_close_matches(name, TF_INDEX_INFO, n=3)
        hint = f" (close names: {', '.join(close)})" if close else ""
        raise InputError(
            f"index {name!r} is neither a folder that exists nor one of Pyserini's prebuilt inverted indexes{hint}: "
            f"check the path, see LuceneSearcher.list_prebuilt_indexes(), or give RerankPipeline Pyserini's own "
            f"searcher for an index of another kind"
        )
    if not check_downloaded(name):
        size = in_units(TF_INDEX_INFO[name]["size compressed (bytes)"])
        logger.warning("downloading Pyserini's prebuilt index %s, %s compressed, to %s", name, size, get_cache_home())
    try:
        # Pyserini reports on standard output, where a run may go.
        with contextlib.redirect_stdout(sys.stderr):
            return Path(download_prebuilt_index(name, verbose=False))
    except Exception as error:  # whatever its downloader or archive reader raised
        raise InputError(
            f"Pyserini's prebuilt index {name!r} could not be downloaded to {get_cache_home()!r} "
            f"({type(error).__name__}: {error}; from {', '.join(TF_INDEX_INFO[name]['urls'])}): check the network and "
            f"the disk, or give the folder of an index"
        ) from error
