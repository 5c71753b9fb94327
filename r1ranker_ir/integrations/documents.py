"""What callers of the `rerankers` classes may pass as documents, brought into one form without changing any of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from rerankers.documents import Document

from r1ranker_ir.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One document, the caller's own object or a new one around a text, with the id and metadata of its result."""

    document: Document
    doc_id: Any
    metadata: Mapping[str, Any]


def read_documents(
    docs: Any, doc_ids: Any = None, metadata: Any = None, *, query_index: int | None = None
) -> list[Entry]:
    """Reads the documents of one query.

    `rerankers.utils.prep_docs` is not used: it prints, fails on an empty list and writes into the caller's documents.
    """
    at = "" if query_index is None else f"[{query_index}]"
    docs_name = f"docs_per_query{at}" if at else "docs"
    single = isinstance(docs, str | Document)
    values = [docs] if single else read_list(docs, docs_name, "texts or Documents")
    ids = _read_beside(doc_ids, single, f"doc_ids{at}", values, docs_name)
    rows = _read_beside(metadata, single, f"metadata{at}", values, docs_name)
    for position, (given_id, row) in enumerate(zip(ids, rows, strict=True)):
        if doc_ids is not None and given_id is None:
            raise InputError(f"doc_ids{at}[{position}] is None: give an id, or leave doc_ids out")
        if not isinstance(row, Mapping | None):
            raise InputError(f"metadata{at}[{position}] is {_describe(row)}: give a dict or None")
    return [
        _read_document(*given, position, docs_name if single else f"{docs_name}[{position}]")
        for position, given in enumerate(zip(values, ids, rows, strict=True))
    ]


def read_list(value: Any, name: str, contents: str) -> list[Any]:
    """Reads an argument that has to be an ordered collection; generators are used up."""
    if value is None:
        raise InputError(f"{name} is None: give a list of {contents}")
    if isinstance(value, str | bytes | Mapping | Document) or not isinstance(value, Iterable):
        raise InputError(f"{name} is a {type(value).__name__}: give a list of {contents}")
    if isinstance(value, Set):
        raise InputError(f"{name} is a {type(value).__name__}, which has no order: give a list of {contents}")
    return list(value)


def _read_beside(given: Any, single: bool, name: str, docs: Sequence[Any], docs_name: str) -> Sequence[Any]:
    """Reads `doc_ids` or `metadata`, where a lone document may have a lone value."""
    if given is None:
        return [None] * len(docs)
    if single and (isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)):
        return [given]
    values = read_list(given, name, "values, one per document")
    if len(values) != len(docs):
        raise InputError(f"{name} has length {len(values)}, but {docs_name} has length {len(docs)}: give as many")
    return values


def _read_document(value: Any, given_id: Any, given_row: Mapping[str, Any] | None, position: int, where: str) -> Entry:
    if isinstance(value, str):
        value = Document(value, doc_id=position if given_id is None else given_id, metadata=given_row)
    elif not isinstance(value, Document):
        raise InputError(f"{where} is {_describe(value)}: give a text or a rerankers Document")
    if value.document_type != "text":
        raise InputError(f"{where} is of type {value.document_type!r}: only documents of type 'text' can be ranked")
    if not isinstance(value.text, str):
        raise InputError(f"{where}.text is {_describe(value.text)}: give a str")
    doc_id, metadata = value.doc_id, value.metadata
    if doc_id is None:
        doc_id = position if given_id is None else given_id
    elif given_id is not None and given_id != doc_id:
        raise InputError(f"{where} has the id {doc_id!r}, but doc_ids says {given_id!r}: drop one of them")
    if not metadata:
        metadata = metadata if given_row is None else given_row
    elif given_row is not None and given_row != metadata:
        raise InputError(f"{where} has metadata of its own that differ from those in metadata=: drop one of them")
    return Entry(value, doc_id, metadata)


def _describe(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"
