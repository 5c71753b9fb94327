"""The rankers as classes of the `rerankers` package."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rerankers.documents import Document
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults, Result

from r1ranker_ir.cancelling import in_thread
from r1ranker_ir.checkpoints import OFFLINE_HINT, TINY_NAMES
from r1ranker_ir.documents import Entry, read_documents, read_list
from r1ranker_ir.doors import Derived
from r1ranker_ir.errors import CheckpointError, InputError, PairScoreError, R1RankerError
from r1ranker_ir.family import FAMILY, family_options
from r1ranker_ir.quoting import quoted
from r1ranker_ir.registry import REGISTERED, is_registered, refuse_unknown, resolve
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

if TYPE_CHECKING:
    from r1ranker_ir.langchain import R1RankerCompressor


class TracedResult(Result):  # type: ignore[misc]  # rerankers has no types
    """One ranked document.

    Attributes:
        document: the caller's `Document`, the very same object, or a new one around the caller's text.
        rank: place in the ranking; 1 is the best.
        score: 1 − (rank − 1) / n for n documents. It only says the rank again: not a probability, not comparable
            between queries.
        doc_id: the document's id, also where it was generated (the position in the input) or came from `doc_ids`.
        metadata: the document's metadata, also where they came from `metadata`.
    """

    def __init__(self, entry: Entry, rank: int, of: int) -> None:
        super().__init__(entry.document, score=1 - (rank - 1) / of, rank=rank)
        self.doc_id = entry.doc_id
        self.metadata = entry.metadata

    def __getattr__(self, item: str) -> Any:
        # Without this, copying and unpickling ask a still empty object for its document, endlessly.
        if item == "document" or item.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {item!r}")
        try:
            return super().__getattr__(item)
        except AttributeError:
            if item not in self.__dict__.get("metadata", ()):
                raise
            return self.metadata[item]


class TracedResults(RankedResults):  # type: ignore[misc]  # rerankers has no types
    """The ranked documents of one query, and how the model came to the order.

    Attributes:
        results: every document once, best first.
        query: the query.
        has_scores: always true; see `TracedResult.score` for what a score means.
        ranking: the whole outcome in terms of positions in the input.
    """

    results: list[TracedResult]

    def __init__(self, ranking: Ranking, entries: Sequence[Entry]) -> None:
        results = [TracedResult(entries[place], rank, len(entries)) for rank, place in enumerate(ranking.order, 1)]
        super().__init__(results=results, query=ranking.request.query, has_scores=True)
        self.ranking = ranking

    @property
    def trace(self) -> tuple[Step, ...]:
        """One step a model call, in their order: thought, probabilities, outcome and usage of each."""
        return self.ranking.steps

    @property
    def usage(self) -> Usage:
        """Calls and tokens spent on this query."""
        return self.ranking.usage

    @property
    def repairs(self) -> int:
        """How many of the model's answers could not be used as they stood."""
        return self.ranking.repairs

    def get_result_by_docid(self, doc_id: Any) -> TracedResult | None:
        """Returns the best result with that id.

        Args:
            doc_id: an id as in the results' `doc_id`, so generated ones are found too.

        Returns:
            The result, or `None` if no document has the id.
        """
        return next((result for result in self.results if result.doc_id == doc_id), None)

    def get_score_by_docid(self, doc_id: Any) -> float | None:
        """Returns the score of the best result with that id.

        Args:
            doc_id: an id as in the results' `doc_id`.

        Returns:
            The score, or `None` if no document has the id.
        """
        result = self.get_result_by_docid(doc_id)
        return None if result is None else result.score


class R1RankerReranker(BaseRanker):  # type: ignore[misc]  # rerankers has no types
    """What the rerankers share; itself it ranks by any strategy.

    Args:
        model_name_or_path: a registered name (`r1ranker-iterative`, …), a Hugging Face causal language model, or
            a folder with one.
        verbose: taken because `rerankers` passes it; nothing is printed either way.
        model: a checkpoint in place of a registered name's default one.
        backend: what runs the model, `transformers` or `openai`.
        strategy: the ranking program; needed where neither the class nor a registered name says it.
        **options: further arguments of `r1ranker_ir.ranker.Ranker` and of the backend.

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
        from r1ranker_ir.ranker import Ranker

        if "api_provider" in options:
            raise InputError(
                f"rerankers takes the model name {options['api_provider']!r} for a provider's API, whatever the "
                f"model_type: a folder of that name has to be written as './{options['api_provider']}'"
            )
        self.verbose = verbose
        self.strategy = self._choose_strategy(os.fspath(model_name_or_path), strategy)
        self.checkpoint = self._choose_checkpoint(os.fspath(model_name_or_path), model)
        try:
            self.ranker = Ranker(self.checkpoint, strategy=self.strategy, backend=backend, **options)
        except (CheckpointError, KeyError) as error:
            # A KeyError would be swallowed by rerankers, which takes it for a missing dependency.
            raise CheckpointError(_explain(self.checkpoint, error)) from error

    def _choose_strategy(self, name: str, wanted: str | None) -> str:
        own = type(self).strategy
        if not own and is_registered(name):
            own = REGISTERED[name.lower()].strategy
        if not own and wanted is None:
            offered = ", ".join(STRATEGIES)
            raise InputError(f"{type(self).__name__} has no strategy of its own: give strategy=, one of {offered}")
        if own and wanted not in (None, own):
            other = RERANKERS.get(str(wanted))
            instead = f"use {other.__name__}" if other is not None else f"use one of {', '.join(RERANKERS)}"
            raise InputError(
                f"{type(self).__name__} is the {own} strategy, not {quoted(wanted)}: {instead}, or drop strategy="
            )
        return own or str(wanted)

    def _choose_checkpoint(self, name: str, model: str | os.PathLike[str] | None) -> str:
        if is_registered(name):
            checkpoint, strategy = resolve(name, model)
            if strategy != self.strategy:
                raise InputError(f"{name!r} is the {strategy} strategy, not the {self.strategy} one: drop model_type=")
            return checkpoint
        if model is not None and os.fspath(model) != name:
            raise InputError(
                f"two models were given, {name!r} and model={os.fspath(model)!r}: "
                f"use model= with the name 'r1ranker-{self.strategy}', or drop it"
            )
        if not name.strip():
            raise InputError("the model's name is blank: give a registered name, a Hugging Face name or a folder")
        refuse_unknown(name)
        return name

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
            doc_ids: one id a document; ids may repeat. Without it a document's position stands in. A `Document`
                keeps its own id, and a different one in `doc_ids` is an error.
            metadata: one mapping a document, with the same rule.

        Returns:
            Every document once, best first. No documents give no results; neither they nor a single one need a call.

        Raises:
            InputError: if an argument can't be used; the message names it and the position.
            R1RankerError: if the model or its server fails.
        """
        entries = read_documents(docs, doc_ids, metadata)
        return self._rank([self._read_request(query, entries, "query")], [entries])[0]

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
            docs_per_query: one list of documents a query.
            doc_ids: one list of ids (or `None`) a query.
            metadata: one list of mappings (or `None`) a query.

        Returns:
            The results, one a query in the order of the queries, each the same as `rank` gives.

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
            requests.append(self._read_request(query, entries, f"queries[{index}]"))
            entry_lists.append(entries)
        return self._rank(requests, entry_lists)

    async def rank_async(
        self,
        query: str,
        docs: str | Document | Iterable[str | Document],
        doc_ids: Iterable[str | int] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> TracedResults:
        """Ranks in another thread, so that the event loop goes on meanwhile; as `rank` in everything else.

        When the task is cancelled, no further calls are made, and a server's requests under way are dropped.

        Args:
            query: see `rank`.
            docs: see `rank`.
            doc_ids: see `rank`.
            metadata: see `rank`.

        Returns:
            What `rank` returns.

        Raises:
            R1RankerError: as `rank` does.
        """
        return await in_thread(self.rank, query, docs, doc_ids, metadata)

    def score(self, query: str, doc: str) -> float:
        """Refuses: a list ranker compares documents with each other and has no score for one pair.

        Args:
            query: unused.
            doc: unused.

        Raises:
            PairScoreError: always.
        """
        raise PairScoreError(
            f"{type(self).__name__} compares documents with each other, so one query and document pair has no score: "
            "call rank() with all the documents"
        )

    def as_langchain_compressor(self, k: int | None = 10) -> R1RankerCompressor:
        """Wraps this ranker for LangChain's contextual compression.

        Args:
            k: how many documents to keep, best first; `None` keeps all.

        Returns:
            A `BaseDocumentCompressor` of langchain-core.

        Raises:
            MissingExtraError: if langchain-core can't be imported.
        """
        from r1ranker_ir.langchain import R1RankerCompressor

        return R1RankerCompressor(reranker=self, k=k)

    def _read_request(self, query: Any, entries: Sequence[Entry], name: str) -> RankingRequest:
        if not isinstance(query, str):
            described = "None" if query is None else f"a {type(query).__name__}"
            raise InputError(f"{name} is {described}: give a text")
        if not query.strip():
            raise InputError(f"{name} is blank: give at least one word")
        return RankingRequest(query, tuple(Candidate(str(entry.doc_id), entry.document.text) for entry in entries))

    def _rank(self, requests: Sequence[RankingRequest], entry_lists: Sequence[Sequence[Entry]]) -> list[TracedResults]:
        try:
            rankings = self.ranker.rank(requests)
        except R1RankerError as error:
            # What was paid for is not lost with the others.
            pairs = zip(error.rankings, entry_lists, strict=False)
            error.results = [None if ranking is None else TracedResults(ranking, own) for ranking, own in pairs]
            raise
        return [TracedResults(ranking, entries) for ranking, entries in zip(rankings, entry_lists, strict=True)]


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

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
        verbose: int = 1,
        *,
        model: str | os.PathLike[str] | None = None,
        backend: str = "transformers",
        **options: Any,
    ) -> None:
        own = family_options(self.system, options)
        super().__init__(model_name_or_path, verbose, model=model, backend=backend, **own)

    def _choose_checkpoint(self, name: str, model: str | os.PathLike[str] | None) -> str:
        if name.lower() != self.system:
            if model is not None and os.fspath(model) != name:
                raise InputError(
                    f"two models were given, {name!r} and model={os.fspath(model)!r}: use model= with the name "
                    f"{self.system!r}, or drop it"
                )
            return super()._choose_checkpoint(name, None)
        checkpoint = model if model is not None else FAMILY[self.system].checkpoint
        if checkpoint is None:
            raise InputError(f"{name!r} names no model: give its name in place of it, and model_type={name!r}")
        return os.fspath(checkpoint)


_OF_SYSTEMS: dict[str, type[FamilyReranker]] = {}


def _of_systems() -> Mapping[str, type[FamilyReranker]]:
    for name, member in FAMILY.items():
        if name not in _OF_SYSTEMS:
            said = {"system": name, "strategy": member.strategy, "__doc__": member.summary, "__module__": __name__}
            title = member.reranker or f"{_in_one_word(name)}Reranker"
            _OF_SYSTEMS[name] = type(title, (FamilyReranker,), said)
    return {name: _OF_SYSTEMS[name] for name in FAMILY}


FAMILY_RERANKERS: Mapping[str, type[FamilyReranker]] = Derived(_of_systems)
"""System to its class, such as `RankR1Reranker`: these are attributes of this module as well."""

_OF_STRATEGIES: dict[str, type[R1RankerReranker]] = {
    reranker.strategy: reranker
    for reranker in (IRankerReranker, DRankerReranker, SetwiseReranker, PointwiseReranker, LikelihoodReranker)
}


def _of_strategies() -> Mapping[str, type[R1RankerReranker]]:
    for name, strategy in STRATEGIES.items():
        if name not in _OF_STRATEGIES:
            said = {"strategy": name, "__doc__": strategy.summary, "__module__": __name__}
            _OF_STRATEGIES[name] = type(f"{_in_one_word(name)}Reranker", (R1RankerReranker,), said)
    return {name: _OF_STRATEGIES[name] for name in STRATEGIES}


def _in_one_word(name: str) -> str:
    return "".join(part.capitalize() for part in re.split(r"\W+", name))


RERANKERS: Mapping[str, type[R1RankerReranker]] = Derived(_of_strategies)
"""Strategy to its class; those of strategies that have none of their own are made."""


def __getattr__(name: str) -> Any:
    if name.endswith("Reranker"):
        for made in (FAMILY_RERANKERS, RERANKERS):
            for reranker in made.values():
                if reranker.__name__ == name:
                    return reranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _read_per_query(values: Any, queries: int, name: str, *, optional: bool = False) -> list[Any]:
    if values is None and optional:
        return [None] * queries
    lists = read_list(values, name, "lists, one a query")
    if len(lists) != queries:
        raise InputError(f"{name} has length {len(lists)}, but queries has length {queries}: give one list a query")
    return lists


def _explain(checkpoint: str, error: Exception) -> str:
    """The message of an error in loading, with what is missing in it of: which checkpoint, why, and what to try."""
    message = f"KeyError: {error}" if isinstance(error, KeyError) else str(error)
    if checkpoint not in message:
        message = f"checkpoint {checkpoint!r} can't be loaded: {message}"
    if TINY_NAMES[0] not in message:
        message = f"{message.rstrip('.')}. {OFFLINE_HINT}"
    return message
