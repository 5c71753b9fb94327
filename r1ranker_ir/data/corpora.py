"""Corpora: documents, queries and judgments from ir_datasets or from a folder in BEIR layout."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from r1ranker_ir.data.qrels import check_grade, read_beir_qrels, read_trec_qrels
from r1ranker_ir.data.request_corpus import RequestCorpus, holds_requests
from r1ranker_ir.errors import DataFileError, InputError, R1RankerError
from r1ranker_ir.files.json_lines import parse_json_line, placed_json_lines
from r1ranker_ir.files.offsets import OffsetIndex, file_state, line_number
from r1ranker_ir.files.records import Id, OpenRecord, Words, checked_lines, checked_record

if TYPE_CHECKING:
    from ir_measures import Qrel

LAYOUT = "corpus.jsonl, queries.jsonl, and qrels/test.tsv or qrels.trec"
TEST_SPLIT = "test"
DEMO_COLLECTION = Path(__file__).parents[1] / "demo_collection"
"""The packaged collection, which goes by the name `demo-collection` where no folder has it."""

_HOST = re.compile(r"HTTPS?ConnectionPool\(host=\\*'([^'\\]+)")


class _Query(OpenRecord):
    id: Annotated[Id, Field(alias="_id")]
    text: Words


class _Document(OpenRecord):
    id: Annotated[Id, Field(alias="_id")]
    text: str
    title: str | None = None

    @property
    def shown(self) -> str:
        return document_text(self.title or "", self.text)


class Corpus(Protocol):
    """A collection to search and to evaluate on; its name, for messages, is the ir_datasets id or the folder."""

    name: str

    @property
    def collection(self) -> str:
        """What the ids belong to; equal for the splits of one collection."""
        ...

    def queries(self) -> dict[str, str]:
        """The text of each query by id, in the order of the source."""
        ...

    def qrels(self) -> list[Qrel]:
        """The relevance judgments."""
        ...

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        """The text of the documents with these ids; ids that the corpus lacks are left out."""
        ...

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Yields id and text of every document, in the order of the source, without loading them all."""
        ...


def open_corpus(name_or_folder: str | Path, split: str | None = None) -> Corpus:
    """Opens a folder in BEIR layout, a file of ranking requests, or an ir_datasets id such as `beir/scifact/test`.

    A folder that exists wins over an id. Only folders have a `split` whose judgments can be chosen, such as `train`.
    `demo-collection` is the packaged one.
    """
    folder = Path(name_or_folder).expanduser()
    if str(name_or_folder) == DEMO_COLLECTION.name.replace("_", "-") and not folder.exists():
        folder = DEMO_COLLECTION
    if folder.is_dir():
        return FolderCorpus(folder, split or TEST_SPLIT)
    if folder.is_file() and not holds_requests(folder):
        raise InputError(
            f"corpus {str(name_or_folder)!r} is a file: give the folder that holds {LAYOUT}; of files, only those of "
            f"ranking requests (JSON Lines, .jsonl) can be measured on"
        )
    corpus = RequestCorpus(folder) if folder.is_file() else IrDatasetsCorpus(str(name_or_folder))
    if split is not None:
        raise InputError(
            f"split {split!r} was given beside {corpus.name!r}, which is no folder: only folders have splits; an id of "
            f"ir_datasets carries its own, such as beir/scifact/{split}"
        )
    return corpus


def has_queries(corpus: Corpus) -> bool:
    """Whether a corpus has queries of its own; one that does not say so has some."""
    return bool(getattr(corpus, "has_queries", True))


def document_text(title: str, text: str) -> str:
    """Joins title and text with a space, unless the text opens with the title already."""
    opening, shown = _folded(text), _folded(title)
    if opening.startswith(shown) and not opening[len(shown) : len(shown) + 1].isalnum():
        return text.strip()
    return f"{title.strip()} {text.strip()}".strip()


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


class FolderCorpus:
    """A corpus in BEIR layout: JSON Lines of documents and queries, judgments as BEIR's TSV or as TREC qrels.

    The folder holds `corpus.jsonl` (`_id`, `text`, optional `title`), `queries.jsonl` (`_id`, `text`) and, for each
    split, `qrels/<split>.tsv`; `qrels.trec` counts as the test split.
    """

    def __init__(self, folder: Path, split: str = TEST_SPLIT) -> None:
        self.name = str(folder)
        self.collection = str(folder.resolve())
        self._folder = folder
        self._split = split
        self._index: tuple[tuple[int, int], OffsetIndex] | None = None
        self._path = folder / "corpus.jsonl"
        if not self._path.is_file():
            raise InputError(f"folder {self.name!r} has no corpus.jsonl: a corpus folder holds {LAYOUT}")

    @property
    def has_queries(self) -> bool:
        return (self._folder / "queries.jsonl").is_file()

    @property
    def split(self) -> str:
        """The split whose judgments count."""
        return self._split

    def queries(self) -> dict[str, str]:
        path = self._folder / "queries.jsonl"
        if not path.is_file():
            raise InputError(f"folder {self.name!r} has no queries.jsonl: a corpus folder holds {LAYOUT}")
        queries: dict[str, str] = {}
        for number, query in checked_lines(_Query, path):
            if query.id in queries:
                raise DataFileError(f"{path}:{number}: query id {query.id!r} occurs twice: ids must be unique")
            queries[query.id] = query.text
        return queries

    def splits(self) -> tuple[str, ...]:
        """The splits that have judgments, by name."""
        trec = [TEST_SPLIT] if (self._folder / "qrels.trec").is_file() else []
        return tuple(sorted({*trec, *(path.stem for path in (self._folder / "qrels").glob("*.tsv"))}))

    def qrels(self) -> list[Qrel]:
        """The judgments of `qrels/<split>.tsv`; for the test split of `qrels.trec` where that is missing."""
        beir, trec = self._folder / "qrels" / f"{self._split}.tsv", self._folder / "qrels.trec"
        if beir.is_file():
            return read_beir_qrels(beir)
        if self._split == TEST_SPLIT and trec.is_file():
            return read_trec_qrels(trec)
        add = f"qrels/{self._split}.tsv" + (" or qrels.trec" if self._split == TEST_SPLIT else "")
        found = f", or use another split: {', '.join(self.splits())}" if self.splits() else ""
        raise InputError(f"folder {self.name!r} has no judgments of split {self._split!r}: add {add}{found}")

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        # The first call passes over the file to learn where each document stands, and keeps 16 bytes per document.
        wanted = dict.fromkeys(ids)
        if not wanted:
            return {}
        found = dict[str, str]()
        with self._path.open("rb") as file:
            index = self._offsets(file)
            for start in sorted({start for doc_id in wanted for start in index.starts_of(doc_id)}):
                file.seek(start)
                row = parse_json_line(file.readline(), str(self._path), first=start == 0)
                document = checked_record(_Document, row, str(self._path))
                if document.id in found:
                    raise self._repeated(line_number(file, start), document.id)
                if document.id in wanted:
                    found[document.id] = document.shown
        return {doc_id: found[doc_id] for doc_id in wanted if doc_id in found}

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for number, document in checked_lines(_Document, self._path):
            if document.id in seen:
                raise self._repeated(number, document.id)
            seen.add(document.id)
            yield document.id, document.shown

    def _offsets(self, file: IO[bytes]) -> OffsetIndex:
        """Where each document stands in the file, which may have been changed since it was last looked at."""
        state = file_state(file)
        if self._index is None or self._index[0] != state:
            places = (
                (checked_record(_Document, line.record, f"{self._path}:{line.number}").id, line.offset)
                for line in placed_json_lines(self._path)
            )
            self._index = state, OffsetIndex(places)
        return self._index[1]

    def _repeated(self, number: int, doc_id: str) -> DataFileError:
        return DataFileError(f"{self._path}:{number}: document id {doc_id!r} occurs twice: ids must be unique")


class IrDatasetsCorpus:
    """A corpus of the ir_datasets catalogue, which downloads and caches what it serves."""

    def __init__(self, dataset_id: str) -> None:
        import ir_datasets

        self.name = dataset_id
        try:
            self._dataset: Any = ir_datasets.load(dataset_id)
        except KeyError:
            close = difflib.get_close_matches(dataset_id, list(ir_datasets.registry), n=3)
            hint = f" (close ids: {', '.join(close)})" if close else ""
            raise InputError(
                f"corpus {dataset_id!r} is neither a folder that exists nor an ir_datasets id{hint}: give a folder "
                f"with {LAYOUT}, or an id of the ir_datasets catalogue"
            ) from None

    @property
    def has_queries(self) -> bool:
        return bool(self._dataset.has("queries"))

    def queries(self) -> dict[str, str]:
        with self._reading("queries"):
            return {
                query.query_id: str(query.default_text() if hasattr(query, "default_text") else query.text)
                for query in self._dataset.queries_iter()
            }

    def qrels(self) -> list[Qrel]:
        from ir_measures import Qrel

        with self._reading("qrels"):
            judgments = list(self._dataset.qrels_iter())
        if judgments and not hasattr(judgments[0], "relevance"):
            fields = ", ".join(getattr(judgments[0], "_fields", ()))
            raise InputError(f"the judgments of {self.name!r} carry no single grade (fields: {fields}): use another id")
        for judged in judgments:
            check_grade(judged.relevance, self.name)
        return [Qrel(judged.query_id, judged.doc_id, judged.relevance) for judged in judgments]

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        wanted = list(dict.fromkeys(ids))
        with self._reading("docs"):
            found = self._dataset.docs_store().get_many(wanted)
        return {doc_id: self._text(found[doc_id]) for doc_id in wanted if doc_id in found}

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        with self._reading("docs"):
            for document in self._dataset.docs_iter():
                yield document.doc_id, self._text(document)

    @property
    def collection(self) -> str:
        """The highest id of the catalogue that shares these documents, such as `beir/scifact` for its splits."""
        import ir_datasets

        return str(ir_datasets.corpus_id(self.name))

    @contextmanager
    def _reading(self, kind: str) -> Iterator[None]:
        named = {"docs": "documents", "queries": "queries", "qrels": "judgments (qrels)"}
        if not self._dataset.has(kind):
            offered = [named[other] for other in named if self._dataset.has(other)] or ["nothing that is used here"]
            raise InputError(
                f"ir_datasets' {self.name!r} has no {named[kind]}, it offers {', '.join(offered)}: use an id that has "
                f"them, often one below it such as {self.name + '/test'!r} (the catalogue lists them)"
            )
        # ir_datasets raises whatever its downloader, archive reader or parser raised.
        try:
            yield
        except R1RankerError:
            raise
        except Exception as error:
            # Where servers do not answer, requests and ir_datasets use many words.
            hosts = dict.fromkeys(_HOST.findall(str(error)))
            reason = f"no answer from {', '.join(hosts)}" if hosts else f"{type(error).__name__}: {error}"
            raise InputError(
                f"ir_datasets could not read the {kind} of {self.name!r} ({reason}): check the network, the disk, and "
                f"IR_DATASETS_HOME"
            ) from error

    def _text(self, document: Any) -> str:
        given = (getattr(document, field, "") for field in ("title", "text"))
        title, text = (value if isinstance(value, str) else "" for value in given)
        if hasattr(document, "default_text"):
            default = str(document.default_text())
            # Cranfield and others repeat the title at the head of the text, and their default text holds it twice.
            return document_text(title, text) if default == f"{title} {text}" else default
        if hasattr(document, "text"):
            return document_text(title, text)
        fields = ", ".join(getattr(document, "_fields", ()))
        raise InputError(f"the documents of {self.name!r} have no text (fields: {fields}): use another id")
