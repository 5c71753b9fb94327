"""What clients send and get: the forms of Jina, of Cohere (v1 and v2) and of text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from r1ranker_ir.files.records import OpenRecord, Words
from r1ranker_ir.serving.refusals import RefusedRequest

Named = Annotated[str | None, Field(description="A reranker of /v1/models; without it, the first one.")]
Seconds = Annotated[
    float | None,
    Field(gt=0, description="Seconds until the best order so far is wanted, if the service's own limit is later."),
]
Explained = Annotated[bool, Field(description="Also return the trace: each call with its thought and outcome.")]


class RerankV1(OpenRecord):
    """Jina's and Cohere's first form."""

    query: Words
    documents: list[str | dict[str, Any]]
    model: Named = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    rank_fields: Annotated[
        list[str] | None, Field(description="The fields of documents that are objects which are read; default: text.")
    ] = None
    explain: Explained = False
    deadline: Seconds = None


class RerankV2(RerankV1):
    """Cohere's second form."""

    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None


class RerankTexts(OpenRecord):
    """The form of text-embeddings-inference."""

    query: Words
    texts: list[str]
    model: Named = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_text: bool = False
    deadline: Seconds = None


def _form(body: Any) -> str:
    return "documents" if isinstance(body, Mapping) and "documents" in body and "texts" not in body else "texts"


RerankEither = Annotated[
    Annotated[RerankTexts, Tag("texts")] | Annotated[RerankV1, Tag("documents")], Discriminator(_form)
]
"""What servers take at /rerank: text-embeddings-inference `texts`, vLLM and others `documents`."""


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class RerankResult(_Told):
    """A document's index in the request, and its score.

    The score is the probability that it is relevant where the answer says `calibrated`; else 1 − (rank − 1) / n, which
    only says the rank again.
    """

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class Tokens(_Told):
    """Tokens that the model read and wrote, over all calls."""

    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    calls: int


class RerankAnswer(_Told):
    """A ranking in the form of Jina and Cohere; `order` says how it ended."""

    id: str
    model: str
    order: str
    calibrated: bool
    results: list[RerankResult]
    usage: Tokens
    meta: dict[str, Any]
    trace: dict[str, Any] | None = None


class TextScore(_Told):
    """A text's index in the request, and its score."""

    index: int
    score: float
    text: str | None = None


class Failure(_Told):
    """Why there is no ranking."""

    message: str
    detail: str
    error: str
    error_type: str
    id: str


def read_texts(asked: RerankV1) -> list[str]:
    """The texts of documents: those that are objects are read by their fields."""
    return [_text_of(each, asked.rank_fields, place) for place, each in enumerate(asked.documents)]


def _text_of(document: str | dict[str, Any], fields: list[str] | None, place: int) -> str:
    if isinstance(document, str):
        return document
    wanted = fields or ["text"]
    found = {name: document[name] for name in wanted if document.get(name) is not None}
    if not found:
        raise RefusedRequest(f"documents[{place}] has no field {' or '.join(wanted)}: give it, or rank_fields")
    if len(wanted) == 1:
        return str(found[wanted[0]])
    return "\n".join(f"{name}: {value}" for name, value in found.items())
