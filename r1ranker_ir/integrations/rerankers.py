"""The rankers as classes of the `rerankers` package."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rerankers.documents import Document
from rerankers.models.ranker import BaseRanker

from r1ranker_ir.doors import Derived
from r1ranker_ir.errors import CheckpointError, InputError, PairScoreError, R1RankerError
from r1ranker_ir.integrations.documents import Entry, read_documents, read_list
from r1ranker_ir.integrations.results import TracedResult as TracedResult
from r1ranker_ir.integrations.results import TracedResults as TracedResults
from r1ranker_ir.models.checkpoints import OFFLINE_HINT, TINY_NAMES
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.names import REGISTERED, is_registered
from r1ranker_ir.rankers.source import RankerSource, find_ranker
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.integrations.langchain import R1RankerCompressor


T = TypeVar("T", bound=BaseRanker)


class R1RankerReranker(BaseRanker):  # type: ignore[misc]  # rerankers has no types
    """What the rerankers share; itself it ranks by any strategy.

    Args:
        model_name_or_path: a registered name (`r1ranker-iterative`, …), a Hugging Face causal language model, or
            a folder with one.
        verbose: taken because `rerankers` passes it; nothing is printed either way.
        model: a checkpoint in place of a registered name's default one.
        backend: what runs the model, `transformers` or `openai`.
        strategy: the ranking program; needed where neither the class nor a registered name says it.
        **options: further arguments of `r1ranker_ir.rankers.ranker.Ranker` and of the backend.

    Raises:
        InputError: if the arguments contradict each other.
        CheckpointError: if the checkpoint can't be loaded.
    """

    strategy: str = ""

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
        verbose: int = 1,
        *,
        model: str | os.PathLike[str] | None = None,
        backend: str = "transformers",
        strategy: str | None = None,
        **options: Any,
    ) -> None:
        if "api_provider" in options:
            raise InputError(
                f"rerankers takes the model name {options['api_provider']!r} for a provider's API, whatever the "
                f"model_type: a folder of that name has to be written as './{options['api_provider']}'"
            )
        self.verbose = verbose
        name = os.fspath(model_name_or_path)
        self.strategy = self._choose_strategy(name, strategy)
        source = self._find(name, model, {"backend": backend, **options})
        self.checkpoint = source.model
        try:
            self.ranker = source.open()
        except (CheckpointError, KeyError) as error:
            # A KeyError would be swallowed by rerankers, which takes it for a missing dependency.
            raise CheckpointError(_explain(self.checkpoint, error)) from error

    def _choose_strategy(self, name: str, wanted: str | None) -> str:
        own = type(self).strategy or (REGISTERED[name.lower()].strategy if is_registered(name) else "")
        kind = type(self).__name__
        if not own and wanted is None:
            raise InputError(f"{kind} has no strategy of its own: give strategy=, one of {', '.join(STRATEGIES)}")
        if own and wanted not in (None, own):
            other = RERANKERS.get(str(wanted))
            instead = f"one of {', '.join(RERANKERS)}" if other is None else other.__name__
            raise InputError(f"{kind} is the {own} strategy, not {quoted(wanted)}: use {instead}, or drop strategy=")
        return own or str(wanted)

    def _find(self, name: str, model: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> RankerSource:
        if is_registered(name) and (strategy := REGISTERED[name.lower()].strategy) != self.strategy:
            raise InputError(f"{name!r} is the {strategy} strategy, not the {self.strategy} one: drop model_type=")
        return find_ranker(name, model, self.strategy, given)

    def rank(
        self,
        query: str,
        docs: str | Document | Iterable[str | Document],
        doc_ids: Iterable[str | int] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> TracedResults:
        """Ranks documents for a query; may be called from several threads.

        Args:
            query: the information need.
            docs: texts or `Document` objects, best first by the first stage: ties and repairs fall back to this order.
                They are not changed.
            doc_ids: one id per document; ids may repeat. Without it a document's position stands in. A `Document`
                keeps its own id, and a different one in `doc_ids` is an error.
            metadata: one mapping per document, with the same rule.

        Returns:
            Every document once, best first. No documents give no results; neither they nor a single one need a call.

        Raises:
            InputError: if an argument can't be used; the message names it and the position.
            R1RankerError: if the model or its server fails.
        """
        entries = read_documents(docs, doc_ids, metadata)
        return self._rank([_read_request(query, entries, "query")], [entries])[0]

    def rank_batch(
        self,
        queries: Iterable[str],
        docs_per_query: Iterable[Iterable[str | Document]],
        doc_ids: Iterable[Iterable[str | int] | None] | None = None,
        metadata: Iterable[Iterable[Mapping[str, Any] | None] | None] | None = None,
    ) -> list[TracedResults]:
        """Ranks the documents of several queries at once, which is faster than one query after the other.

        Args:
            queries: the queries.
            docs_per_query: one list of documents per query.
            doc_ids: one list of ids (or `None`) per query.
            metadata: one list of mappings (or `None`) per query.

        Returns:
            The results, one per query in the order of the queries, each the same as `rank` gives.

        Raises:
            InputError: if an argument can't be used; the message names it and the position.
            FailedRankingsError: if some of several queries could not be ranked.
            R1RankerError: if the model or its server fails. In this error and the one above, `results` are those of
                the finished queries, in the order of the queries, with `None` for each other one.
        """
        query_list = read_list(queries, "queries", "queries")
        doc_lists = _read_per_query(docs_per_query, len(query_list), "docs_per_query")
        id_lists = _read_per_query(doc_ids, len(query_list), "doc_ids", optional=True)
        row_lists = _read_per_query(metadata, len(query_list), "metadata", optional=True)
        requests, entry_lists = [], []
        for index, (query, docs, ids, rows) in enumerate(zip(query_list, doc_lists, id_lists, row_lists, strict=True)):
            documents = read_list(docs, f"docs_per_query[{index}]", "texts or Documents")
            entries = read_documents(documents, ids, rows, query_index=index)
            requests.append(_read_request(query, entries, f"queries[{index}]"))
            entry_lists.append(entries)
        return self._rank(requests, entry_lists)

    async def rank_async(
        self,
        query: str,
        docs: str | Document | Iterable[str | Document],
        doc_ids: Iterable[str | int] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> TracedResults:
        """Ranks while the event loop goes on; takes, returns and raises what `rank` does.

        Any number of tasks may wait at once: none has a thread of its own, and those on a model in memory share its
        batches. When a task is cancelled, it makes no further calls, and a server's requests under way are dropped.
        """
        entries = read_documents(docs, doc_ids, metadata)
        return self._results(await self.ranker.rank_async(_read_request(query, entries, "query")), entries)

    def score(self, query: str, doc: str) -> float:
        """Refuses: a list ranker compares documents with each other and has no score for one pair."""
        raise PairScoreError(
            f"{type(self).__name__} compares documents with each other, so one query and document pair has no score: "
            "call rank() with all the documents"
        )

    def as_langchain_compressor(self, k: int | None = 10) -> R1RankerCompressor:
        """Wraps this ranker for LangChain's contextual compression."""
        from r1ranker_ir.integrations.langchain import R1RankerCompressor

        return R1RankerCompressor(reranker=self, k=k)

    def _rank(self, requests: Sequence[RankingRequest], entry_lists: Sequence[Sequence[Entry]]) -> list[TracedResults]:
        try:
            rankings = self.ranker.rank(requests)
        except R1RankerError as error:
            # What was paid for is not lost with the others.
            pairs = zip(error.rankings, entry_lists, strict=False)
            error.results = [None if ranking is None else self._results(ranking, own) for ranking, own in pairs]
            raise
        return [self._results(ranking, entries) for ranking, entries in zip(rankings, entry_lists, strict=True)]

    def _results(self, ranking: Ranking, entries: Sequence[Entry]) -> TracedResults:
        return TracedResults(ranking, entries, self.ranker.strategy, self.ranker.notes, self.ranker.conditions)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{repr(self.ranker).removeprefix(type(self.ranker).__name__)}"


class IRankerReranker(R1RankerReranker):
    """IRanker: the model excludes the least relevant document again and again; the reversed order is the ranking.

    n documents take n − 1 calls. Method: arXiv 2506.21638.
    """

    strategy = "iterative"


class DRankerReranker(R1RankerReranker):
    """DRanker: the model orders a whole window of documents in one answer. Method: arXiv 2506.21638."""

    strategy = "direct"


class SetwiseReranker(R1RankerReranker):
    """Setwise: the model names the best of a set, and sorting calls for it. Method: arXiv 2310.09497."""

    strategy = "setwise"


class PointwiseReranker(R1RankerReranker):
    """Pointwise: the model grades each document by itself; the grades are the order."""

    strategy = "pointwise"


class LikelihoodReranker(R1RankerReranker):
    """Likelihood: documents go by how likely the query is behind each. Method: arXiv 2204.07496."""

    strategy = "likelihood"


class FamilyReranker(R1RankerReranker):
    """A published system, by the name that it has in `family.FAMILY`: its strategy, and its settings as defaults."""

    system: ClassVar[str]

    def _find(self, name: str, model: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> RankerSource:
        if name.lower() != self.system:
            if model is not None and os.fspath(model) != name:
                raise InputError(
                    f"two models were given, {name!r} and model={os.fspath(model)!r}: use model= with the name "
                    f"{self.system!r}, or drop it"
                )
            model = name
        return find_ranker(self.system, model, None, given)


_OWN: dict[str, type[R1RankerReranker]] = {
    reranker.strategy: reranker
    for reranker in (IRankerReranker, DRankerReranker, SetwiseReranker, PointwiseReranker, LikelihoodReranker)
}


@functools.cache
def _class(base: type[T], name: str, doc: str, title: str = "", **said: str) -> type[T]:
    title = title or "".join(part.capitalize() for part in re.split(r"\W+", name)) + "Reranker"
    return type(title, (base,), {**said, "__doc__": doc, "__module__": __name__})


FAMILY_RERANKERS: Mapping[str, type[FamilyReranker]] = Derived(
    lambda: {
        name: _class(FamilyReranker, name, each.summary, each.reranker, system=name, strategy=each.strategy)
        for name, each in FAMILY.items()
    }
)
"""System to its class, such as `RankR1Reranker`: these are attributes of this module as well."""
RERANKERS: Mapping[str, type[R1RankerReranker]] = Derived(
    lambda: {
        name: _OWN.get(name) or _class(R1RankerReranker, name, each.summary, strategy=name)
        for name, each in STRATEGIES.items()
    }
)
"""Strategy to its class; those of strategies that have none of their own are made."""


def __getattr__(name: str) -> Any:
    for reranker in (*FAMILY_RERANKERS.values(), *RERANKERS.values()) if name.endswith("Reranker") else ():
        if reranker.__name__ == name:
            return reranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _read_request(query: Any, entries: Sequence[Entry], name: str) -> RankingRequest:
    if not isinstance(query, str):
        raise InputError(f"{name} is {'None' if query is None else f'a {type(query).__name__}'}: give a text")
    if not query.strip():
        raise InputError(f"{name} is blank: give at least one word")
    return RankingRequest(query, tuple(Candidate(str(entry.doc_id), entry.document.text) for entry in entries))


def _read_per_query(values: Any, queries: int, name: str, *, optional: bool = False) -> list[Any]:
    if values is None and optional:
        return [None] * queries
    lists = read_list(values, name, "lists, one per query")
    if len(lists) != queries:
        raise InputError(f"{name} has length {len(lists)}, but queries has length {queries}: give one list per query")
    return lists


def _explain(checkpoint: str, error: Exception) -> str:
    """The message of an error in loading, with what is missing in it of: which checkpoint, why, and what to try."""
    message = f"KeyError: {error}" if isinstance(error, KeyError) else str(error)
    if checkpoint not in message:
        message = f"checkpoint {checkpoint!r} can't be loaded: {message}"
    if TINY_NAMES[0] not in message:
        message = f"{message.rstrip('.')}. {OFFLINE_HINT}"
    return message
