"""The LangChain compressor, on the embedded model."""

import asyncio
import importlib
import sys

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError
from rerankers import Reranker

from r1ranker_ir.errors import InputError, MissingExtraError

pytestmark = pytest.mark.latest

QUERY = "flea life cycle"
TEXTS = ["Bicycles have wheels.", "The life cycle of a flea lasts weeks.", "Cats sleep.", "Fleas bite cats."]


@pytest.fixture(scope="module")
def ranker():
    return Reranker("r1ranker-iterative-tiny", verbose=0)


@pytest.fixture
def documents():
    return [Document(page_content=text, id=f"d{n}", metadata={"source": f"s{n}"}) for n, text in enumerate(TEXTS)]


def test_documents_are_reordered_in_copies(ranker, documents):
    compressor = ranker.as_langchain_compressor()
    assert isinstance(compressor, BaseDocumentCompressor) and compressor.k == 10
    kept = compressor.compress_documents(documents, QUERY)
    order = ranker.rank(QUERY, TEXTS).ranking.order
    assert [(each.page_content, each.id, each.metadata) for each in kept] == [
        (TEXTS[place], f"d{place}", {"source": f"s{place}", "relevance_score": 1 - (rank - 1) / 4, "rank": rank})
        for rank, place in enumerate(order, 1)
    ]
    assert [document.metadata for document in documents] == [{"source": f"s{n}"} for n in range(4)]
    for k, length in ((1, 1), (4, 4), (9, 4), (None, 4)):
        best = ranker.as_langchain_compressor(k=k)
        assert best.compress_documents(documents, QUERY) == kept[:length]
        assert asyncio.run(best.acompress_documents(documents, QUERY)) == kept[:length]


def test_equal_texts_keep_their_metadata_and_none_are_none(ranker):
    documents = [Document(page_content="same", metadata={"n": n}) for n in range(3)]
    kept = ranker.as_langchain_compressor().compress_documents(documents, QUERY)
    assert sorted(document.metadata["n"] for document in kept) == [0, 1, 2]
    assert ranker.as_langchain_compressor().compress_documents([], QUERY) == []


def test_what_makes_no_sense_is_refused(ranker, documents):
    from r1ranker_ir.integrations.langchain import R1RankerCompressor

    for k in (0, "many"):
        with pytest.raises(ValidationError, match="k"):
            ranker.as_langchain_compressor(k=k)
    with pytest.raises(ValidationError, match="RanksTexts"):
        R1RankerCompressor(reranker="r1ranker-iterative-tiny")
    with pytest.raises(InputError, match="query is blank"):
        ranker.as_langchain_compressor().compress_documents(documents, " ")


def test_inside_a_compression_retriever(ranker, documents):
    class FixedRetriever(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return documents

    compressor = ranker.as_langchain_compressor(k=2)
    retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=FixedRetriever())
    expected = compressor.compress_documents(documents, QUERY)
    assert retriever.invoke(QUERY) == asyncio.run(retriever.ainvoke(QUERY)) == expected


def test_without_langchain_the_error_says_what_to_install(ranker, monkeypatch):
    monkeypatch.delitem(sys.modules, "r1ranker_ir.integrations.langchain", raising=False)
    monkeypatch.setitem(sys.modules, "langchain_core.documents", None)
    with pytest.raises(MissingExtraError, match=r'pip install "r1ranker-ir\[langchain\]"'):
        ranker.as_langchain_compressor()
    monkeypatch.undo()
    assert importlib.import_module("r1ranker_ir.integrations.langchain").R1RankerCompressor
