"""Corpora: documents, queries and judgments from ir_datasets or from a folder in BEIR layout."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from r1ranker_ir.errors import DataFileError, InputError, R1RankerError
from r1ranker_ir.files.json_lines import (
    WHITE_SPACE,
    json_lines,
    parse_json_line,
    placed_json_lines,
    split_columns,
    text_lines,
)
from r1ranker_ir.files.offsets import OffsetIndex, file_state, line_number
from r1ranker_ir.files.plain_data import whole_number_of
from r1ranker_ir.quoting import quoted

if TYPE_CHECKING:
    from ir_measures import Qrel

LAYOUT = "corpus.jsonl, queries.jsonl, and qrels/test.tsv or qrels.trec"
BEIR_QRELS_HEADER = ("query-id", "corpus-id", "score")
TEST_SPLIT = "test"
GREATEST_GRADE = 100_000
"""The largest grade of a judgment: trec_eval keeps a counter for each grade up to it, and runs out of memory."""

_HOST = re.compile(r"HTTPS?ConnectionPool\(host=\\*'([^'\\]+)")


class Corpus(Protocol):
    """A collection to search and to evaluate on.

    Attributes:
        name: the ir_datasets id or the folder, for messages and manifests.
    """

    name: str

    @property
    def collection(self) -> str:
        """What the ids belong to; equal for the splits of one collection."""
        ...

    def queries(self) -> dict[str, str]:
        """Returns the text of each query by id, in the order of the source."""
        ...

    def qrels(self) -> list[Qrel]:
        """Returns the relevance judgments."""
        ...

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        """Returns the text of the documents with these ids; ids that the corpus lacks are left out."""
        ...

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Yields id and text of every document, in the order of the source, without loading them all."""
        ...


def open_corpus(name_or_folder: str | Path, split: str | None = None) -> Corpus:
    """Opens a corpus by its ir_datasets id or its folder; a folder that exists wins over an id."""
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return FolderCorpus(folder, split or TEST_SPLIT)
    if folder.is_file():
        from r1ranker_ir.data.request_corpus import RequestCorpus, holds_requests

        if not holds_requests(folder):
            raise InputError(
                f"corpus {str(name_or_folder)!r} is a file: give the folder that holds {LAYOUT}; of files, only those "
                f"of ranking requests (JSON Lines, .jsonl) can be measured on"
            )
        if split is not None:
            raise InputError(f"split {split!r} was given beside the request file {str(folder)!r}, which has no splits")
        return RequestCorpus(folder)
    corpus = IrDatasetsCorpus(str(name_or_folder))
    if split is not None:
        raise InputError(
            f"split {split!r} was given beside the ir_datasets id {corpus.name!r}: splits are for folders, an id "
            f"carries its own, such as beir/scifact/{split}"
        )
    return corpus


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

    Args:
        folder: holds `corpus.jsonl` (`_id`, `text`, optional `title`), `queries.jsonl` (`_id`, `text`) and
            `qrels/test.tsv` (query, document and grade, with BEIR's header line) or `qrels.trec`.
        split: whose judgments to give: those of `qrels/<split>.tsv`. `qrels.trec` counts as the test split.
    """

    def __init__(self, folder: Path, split: str = TEST_SPLIT) -> None:
        self.name = str(folder)
        self.collection = str(folder.resolve())
        self._folder = folder
        self._split = split
        self._index: tuple[tuple[int, int], OffsetIndex] | None = None
        if not (folder / "corpus.jsonl").is_file():
            raise InputError(f"folder {self.name!r} has no corpus.jsonl: a corpus folder holds {LAYOUT}")

    def queries(self) -> dict[str, str]:
        """Returns the text of each query by id, in file order."""
        path = self._folder / "queries.jsonl"
        if not path.is_file():
            raise InputError(f"folder {self.name!r} has no queries.jsonl: a corpus folder holds {LAYOUT}")
        queries: dict[str, str] = {}
        for number, record in json_lines(path):
            where = f"{path}:{number}"
            query_id = _id_of(record, where)
            text = _text_of(record, "text", where)
            if not text.strip():
                raise DataFileError(f"{path}:{number}: query {query_id!r} is blank: give its text or remove the line")
            if query_id in queries:
                raise DataFileError(f"{path}:{number}: query id {query_id!r} occurs twice: ids must be unique")
            queries[query_id] = text
        return queries

    def splits(self) -> tuple[str, ...]:
        """The splits that have judgments, by name."""
        found = {path.stem for path in (self._folder / "qrels").glob("*.tsv")}
        if (self._folder / "qrels.trec").is_file():
            found.add(TEST_SPLIT)
        return tuple(sorted(found))

    def qrels(self) -> list[Qrel]:
        """Returns the judgments of `qrels/<split>.tsv`; for the test split of `qrels.trec` where that is missing."""
        beir, trec = self._folder / "qrels" / f"{self._split}.tsv", self._folder / "qrels.trec"
        if beir.is_file():
            return _read_qrels(beir, _beir_rows(beir))
        if self._split == TEST_SPLIT and trec.is_file():
            return _read_qrels(trec, _trec_rows(trec))
        add = f"qrels/{self._split}.tsv" + (" or qrels.trec" if self._split == TEST_SPLIT else "")
        found = f", or use another split: {', '.join(self.splits())}" if self.splits() else ""
        raise InputError(f"folder {self.name!r} has no judgments of split {self._split!r}: add {add}{found}")

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        """Returns the text of the documents with these ids.

        The first call passes over the file to learn where each document stands, and keeps 16 bytes a document.
        """
        wanted = dict.fromkeys(ids)
        if not wanted:
            return {}
        path, found = self._folder / "corpus.jsonl", dict[str, str]()
        with path.open("rb") as file:
            index = self._offsets(file)
            for start in sorted({start for doc_id in wanted for start in index.starts_of(doc_id)}):
                file.seek(start)
                record = parse_json_line(file.readline(), str(path), first=start == 0)
                doc_id, text = _document_of(record or {}, str(path))
                if doc_id in wanted:
                    if doc_id in found:
                        raise self._repeated(line_number(file, start), doc_id)
                    found[doc_id] = text
        return {doc_id: found[doc_id] for doc_id in wanted if doc_id in found}

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Yields id and text of every document, in file order."""
        seen: set[str] = set()
        for number, doc_id, text in self._records():
            if doc_id in seen:
                raise self._repeated(number, doc_id)
            seen.add(doc_id)
            yield doc_id, text

    def _offsets(self, file: IO[bytes]) -> OffsetIndex:
        """Where each document stands in the file, which may have been changed since it was last looked at."""
        state = file_state(file)
        if self._index is None or self._index[0] != state:
            path = self._folder / "corpus.jsonl"
            lines = placed_json_lines(path)
            places = ((_document_of(line.record, f"{path}:{line.number}")[0], line.offset) for line in lines)
            self._index = state, OffsetIndex(places)
        return self._index[1]

    def _records(self) -> Iterator[tuple[int, str, str]]:
        path = self._folder / "corpus.jsonl"
        for number, record in json_lines(path):
            yield number, *_document_of(record, f"{path}:{number}")

    def _repeated(self, number: int, doc_id: str) -> DataFileError:
        path = self._folder / "corpus.jsonl"
        return DataFileError(f"{path}:{number}: document id {doc_id!r} occurs twice: ids must be unique")


class IrDatasetsCorpus:
    """A corpus of the ir_datasets catalogue, which downloads and caches what it serves.

    Args:
        dataset_id: such as `cranfield` or `msmarco-passage/trec-dl-2019/judged`.
    """

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

    def queries(self) -> dict[str, str]:
        """Returns the text of each query by id, as the dataset words it for searching."""
        self._require("queries")
        with self._reading("queries"):
            return {query.query_id: _query_text(query) for query in self._dataset.queries_iter()}

    def qrels(self) -> list[Qrel]:
        """Returns the dataset's judgments."""
        from ir_measures import Qrel

        self._require("qrels")
        with self._reading("qrels"):
            judgments = list(self._dataset.qrels_iter())
        if judgments and not hasattr(judgments[0], "relevance"):
            fields = ", ".join(getattr(judgments[0], "_fields", ()))
            raise InputError(f"the judgments of {self.name!r} carry no single grade (fields: {fields}): use another id")
        for judged in judgments:
            if abs(judged.relevance) > GREATEST_GRADE:
                raise DataFileError(f"{self.name}: {_beyond(judged.relevance)}")
        return [Qrel(judged.query_id, judged.doc_id, judged.relevance) for judged in judgments]

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        """Returns the text of the documents with these ids from ir_datasets' document store, built on first use."""
        wanted = list(dict.fromkeys(ids))
        self._require("docs")
        with self._reading("docs"):
            found = self._dataset.docs_store().get_many(wanted)
        return {doc_id: self._text(found[doc_id]) for doc_id in wanted if doc_id in found}

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Yields id and text of every document, in the dataset's order."""
        self._require("docs")
        with self._reading("docs"):
            for document in self._dataset.docs_iter():
                yield document.doc_id, self._text(document)

    @property
    def collection(self) -> str:
        """The highest id of the catalogue that shares these documents, such as `beir/scifact` for its splits."""
        import ir_datasets

        return str(ir_datasets.corpus_id(self.name))

    def _require(self, kind: str) -> None:
        named = {"docs": "documents", "queries": "queries", "qrels": "judgments (qrels)"}
        if not self._dataset.has(kind):
            offered = [named[other] for other in named if self._dataset.has(other)] or ["nothing that is used here"]
            raise InputError(
                f"ir_datasets' {self.name!r} has no {named[kind]}, it offers {', '.join(offered)}: use an id that has "
                f"them, often one below it such as {self.name + '/test'!r} (the catalogue lists them)"
            )

    @contextmanager
    def _reading(self, kind: str) -> Iterator[None]:
        # ir_datasets raises whatever its downloader, archive reader or parser raised.
        try:
            yield
        except R1RankerError:
            raise
        except Exception as error:
            raise InputError(
                f"ir_datasets could not read the {kind} of {self.name!r} ({_reason(error)}): check the network, the "
                f"disk, and IR_DATASETS_HOME"
            ) from error

    def _text(self, document: Any) -> str:
        title, text = (_string_of(document, field) for field in ("title", "text"))
        if hasattr(document, "default_text"):
            default = str(document.default_text())
            # Cranfield and others repeat the title at the head of the text, and their default text holds it twice.
            return document_text(title, text) if default == f"{title} {text}" else default
        if hasattr(document, "text"):
            return document_text(title, text)
        fields = ", ".join(getattr(document, "_fields", ()))
        raise InputError(f"the documents of {self.name!r} have no text (fields: {fields}): use another id")


def _reason(error: Exception) -> str:
    """What went wrong, in few words where it is that servers do not answer: requests and ir_datasets use many."""
    hosts = dict.fromkeys(_HOST.findall(str(error)))
    return f"no answer from {', '.join(hosts)}" if hosts else f"{type(error).__name__}: {error}"


def _string_of(record: Any, field: str) -> str:
    value = getattr(record, field, "")
    return value if isinstance(value, str) else ""


def _query_text(query: Any) -> str:
    return str(query.default_text() if hasattr(query, "default_text") else query.text)


def _document_of(record: dict[str, Any], where: str) -> tuple[str, str]:
    doc_id = _id_of(record, where)
    title = _text_of(record, "title", where) if record.get("title") is not None else ""
    return doc_id, document_text(title, _text_of(record, "text", where))


def _id_of(record: dict[str, Any], where: str) -> str:
    value = record.get("_id")
    if value is None:
        raise DataFileError(f"{where}: field '_id' is missing: each line needs one")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataFileError(f"{where}: field '_id' is {quoted(value)}: a string that is not empty is needed")
    return str(value)


def _text_of(record: dict[str, Any], field: str, where: str) -> str:
    value = record.get(field)
    if value is None:
        raise DataFileError(f"{where}: field {field!r} is missing: each line needs one (it may be empty)")
    if not isinstance(value, str):
        raise DataFileError(f"{where}: field {field!r} is {quoted(value)}: a string is needed")
    return value


def _beir_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    for number, line in text_lines(path):
        cells = tuple(cell.strip(WHITE_SPACE) for cell in line.split("\t"))
        if len(cells) != 3:
            raise DataFileError(
                f"{path}:{number}: {len(cells)} columns: query id, document id and grade are needed, split by tabs"
            )
        if number == 1 and cells == BEIR_QRELS_HEADER:
            continue
        yield number, *cells


def _trec_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    for number, line in text_lines(path):
        cells = split_columns(line)
        if len(cells) != 4:
            raise DataFileError(f"{path}:{number}: {len(cells)} columns: query id, 0, document id and grade are needed")
        yield number, cells[0], cells[2], cells[3]


def _read_qrels(path: Path, rows: Iterator[tuple[int, str, str, str]]) -> list[Qrel]:
    from ir_measures import Qrel

    grades: dict[tuple[str, str], int] = {}
    for number, query_id, doc_id, cell in rows:
        grade = _grade_of(cell, f"{path}:{number}")
        if grades.setdefault((query_id, doc_id), grade) != grade:
            raise DataFileError(
                f"{path}:{number}: document {doc_id!r} of query {query_id!r} is judged {grade} here and "
                f"{grades[query_id, doc_id]} above: keep one judgment"
            )
    return [Qrel(query_id, doc_id, grade) for (query_id, doc_id), grade in grades.items()]


def _grade_of(cell: str, where: str) -> int:
    try:
        # int() refuses thousands of digits with an error of its own kind.
        grade = whole_number_of(cell)
    except ValueError:
        raise DataFileError(f"{where}: grade {quoted(cell)} is not a whole number") from None
    if abs(grade) > GREATEST_GRADE:
        raise DataFileError(f"{where}: {_beyond(cell)}")
    return grade


def _beyond(grade: int | str) -> str:
    return f"grade {quoted(grade)} is beyond ±{GREATEST_GRADE}: give grades such as 0 to 3"
