"""The Haystack component, in a pipeline that is saved and loaded, on the embedded model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("haystack", reason="Haystack is not installed (extra haystack)")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core.component import component
from haystack.core.errors import DeserializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore

from r1ranker_ir.errors import InputError
from r1ranker_ir.integrations.haystack import R1RankerComponent
from r1ranker_ir.rankers.source import open_ranker
from r1ranker_ir.types import Candidate, RankingRequest

pytestmark = pytest.mark.latest

QUERY = "flea life cycle"
TEXTS = ["Bicycles have wheels.", "The life cycle of a flea lasts weeks.", "Cats sleep.", "Fleas bite cats."]
DOCUMENTS = [Document(id=f"d{n}", content=text, meta={"page": n}, score=0.5) for n, text in enumerate(TEXTS)]
NAME = "r1ranker-iterative-tiny"
OPTIONS: dict[str, Any] = {"device": "cpu", "max_thought_tokens": 8}


@pytest.fixture(scope="module")
def expected() -> list[str]:
    request = RankingRequest(QUERY, tuple(Candidate(f"d{n}", text) for n, text in enumerate(TEXTS)))
    [ranking] = open_ranker(NAME, **OPTIONS).rank([request])
    return [candidate.id for candidate in ranking.best_first]


@pytest.fixture(scope="module")
def ranker() -> R1RankerComponent:
    return R1RankerComponent(NAME, options=OPTIONS)


def test_documents_are_reordered_in_copies(ranker: R1RankerComponent, expected: list[str]) -> None:
    for top_k, length in ((1, 1), (3, 3), (9, 4), (None, 4)):
        kept = ranker.run(QUERY, DOCUMENTS, top_k=top_k)["documents"]
        assert [document.id for document in kept] == expected[:length]
        assert [document.score for document in kept] == [1 - rank / 4 for rank in range(length)]
        assert all(document.meta == {"page": int(document.id[1])} for document in kept)
        assert asyncio.run(ranker.run_async(QUERY, DOCUMENTS, top_k=top_k))["documents"] == kept
    assert [document.score for document in DOCUMENTS] == [0.5] * 4
    assert ranker.run(QUERY, []) == {"documents": []}


def test_a_pipeline_is_saved_and_loaded() -> None:
    store = InMemoryDocumentStore()
    store.write_documents(DOCUMENTS)
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("ranker", R1RankerComponent(NAME, top_k=2, options=OPTIONS, traces=True))
    pipeline.connect("retriever.documents", "ranker.documents")
    asked = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    out = pipeline.run(asked)["ranker"]
    assert [each.id for each in out["documents"]] == out["trace"]["order"][:2] and out["trace"]["query"] == QUERY
    assert asyncio.run(pipeline.run_async(asked))["ranker"] == out
    text = pipeline.dumps()
    with pytest.raises(DeserializationError, match=r"r1ranker_ir\.integrations\.haystack"):
        Pipeline.loads(text)
    again = Pipeline.loads(text, allowed_modules=["r1ranker_ir.*"])
    again.get_component("retriever").document_store = store
    assert again.dumps() == text and again.run(asked)["ranker"] == out


def test_options_are_saved_as_plain_data(tmp_path: Path) -> None:
    made = R1RankerComponent(NAME, top_k=None, options={**OPTIONS, "cache": tmp_path / "answers.sqlite"})
    data = made.to_dict()
    assert data["type"] == "r1ranker_ir.integrations.haystack.R1RankerComponent" in component.registry
    assert data["init_parameters"]["options"]["cache"] == str(tmp_path / "answers.sqlite")
    assert R1RankerComponent.from_dict(data).to_dict() == data
    with pytest.raises(InputError, match=r"options\['template'\] is .*, which can't be saved"):
        R1RankerComponent(NAME, options={"template": object()}).to_dict()


def test_what_makes_no_sense_is_refused(ranker: R1RankerComponent) -> None:
    for top_k in (0, -1):
        with pytest.raises(InputError, match=f"top_k is {top_k}: give at least 1"):
            R1RankerComponent(NAME, top_k=top_k)
        with pytest.raises(InputError, match=f"top_k is {top_k}: give at least 1"):
            ranker.run(QUERY, DOCUMENTS, top_k=top_k)
    with pytest.raises(InputError, match="r1ranker-iterativ"):
        R1RankerComponent("r1ranker-iterativ")
    with pytest.raises(InputError, match="document 'x' has no text: give documents with content"):
        ranker.run(QUERY, [Document(id="x", blob=None)])
    with pytest.raises(InputError, match="blank"):
        ranker.run(" ", DOCUMENTS)
