"""The rankers as a Haystack component."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import Any

from r1ranker_ir.errors import InputError, missing_extra

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise missing_extra("the Haystack component", "haystack", error) from error

from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, place_score


@component
class R1RankerComponent:
    """Reorders documents for a query and keeps the best `top_k` (`None` for all), in a pipeline that can be saved.

    Documents are copies with a new score: 1 for the best, in equal steps down to 1/n. The model is loaded by
    `warm_up`, which pipelines call, or by the first `run`.

    Args:
        name: a registered name (`r1ranker-iterative`, …), a published system's, or with `strategy` any model.
        model: a checkpoint in place of the name's own.
        strategy: the ranking program, for a model that is named itself.
        top_k: how many documents are kept; `run` may say another number.
        options: further arguments of `r1ranker_ir.Ranker`, such as `{"schedule": "halving"}`.
        traces: put out `trace` as well: what `r1ranker trace` reads of a query.

    Raises:
        InputError: if the arguments make no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | None = None,
        strategy: str | None = None,
        top_k: int | None = 10,
        options: dict[str, Any] | None = None,
        traces: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.strategy = strategy
        self.top_k = _checked(top_k)
        self.options = dict(options or {})
        self.traces = traces
        self._source = find_ranker(name, model, strategy, self.options)
        self._ranker: Ranker | None = None
        self._opening = Lock()

    def warm_up(self) -> None:
        self._opened()

    def to_dict(self) -> dict[str, Any]:
        own = {"name": self.name, "model": self.model, "strategy": self.strategy, "top_k": self.top_k}
        told: dict[str, Any] = default_to_dict(self, **own, options=_plain(self.options), traces=self.traces)
        return told

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> R1RankerComponent:
        made: R1RankerComponent = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document], trace=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Ranks documents.

        Args:
            query: the information need.
            documents: texts, best first by the retriever.
            top_k: how many are kept, in place of the component's own number.

        Returns:
            `documents`, best first, and with `traces` the `trace`.

        Raises:
            InputError: if the query is blank or a document has no text.
            R1RankerError: if the model or its server fails.
        """
        [ranking] = self._opened().rank([_request(query, documents)])
        return self._output(ranking, documents, top_k)

    @component.output_types(documents=list[Document], trace=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Ranks documents while the event loop goes on; as `run` in everything else."""
        ranking = await self._opened().rank_async(_request(query, documents))
        return self._output(ranking, documents, top_k)

    def _opened(self) -> Ranker:
        with self._opening:
            if self._ranker is None:
                self._ranker = self._source.open()
            return self._ranker

    def _output(self, ranking: Ranking, documents: list[Document], top_k: int | None) -> dict[str, Any]:
        best = ranking.order[: self.top_k if top_k is None else _checked(top_k)]
        count = len(ranking.order)
        kept = [replace(documents[each], score=place_score(place, count)) for place, each in enumerate(best)]
        ranker = self._opened()
        if not self.traces:
            return {"documents": kept}
        traced = TracedRanking(ranker.strategy, ranking, ranker.notes, ranker.conditions)
        return {"documents": kept, "trace": traced.to_dict()}


def _checked(top_k: int | None) -> int | None:
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}: give at least 1, or None for all")
    return top_k


def _request(query: str, documents: list[Document]) -> RankingRequest:
    for document in documents:
        if document.content is None:
            raise InputError(f"document {quoted(document.id)} has no text: give documents with content")
    return RankingRequest(query, tuple(Candidate(each.id, each.content, each.score) for each in documents))


def _plain(value: Any, name: str = "options") -> Any:
    """Options in values that a saved pipeline can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{name}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{name}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(f"{name} is {quoted(value)}, which can't be saved: give a name, a path or plain data")
