"""Routing as an object: which language model should get a question."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r1ranker_ir.adapters.routing.llms import LLMProfile, check_profiles
from r1ranker_ir.adapters.routing.messages import question_of
from r1ranker_ir.adapters.routing.objectives import Objective, objective_of
from r1ranker_ir.adapters.routing.profiles import read_profiles
from r1ranker_ir.errors import InputError
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import open_ranker
from r1ranker_ir.rankers.unsure import MARGIN, UnsureCascade
from r1ranker_ir.types import Ranking, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.adapters.routing.gateway import RankedRouter
    from r1ranker_ir.engine.engine import RunSummary


class RoutingAdapter:
    """Chooses among language models by question; may be used from several threads.

    Args:
        reranker: a registered name, the folder of a distilled router (`r1ranker train router`), or, with `strategy`,
            any checkpoint.
        llms: the language models to choose from, or a file that `read_profiles` reads.
        objective: `performance`, `balance` or `cost`, or the weights of effect and cost. The ranker reads it in words.
        model: a checkpoint in place of a registered name's own.
        strategy: how to use a checkpoint that is no registered name: `iterative` or `direct`.
        unsure: a registered name or a ranker, to be asked where the router is unsure; `None` for nobody.
        margin: the router is unsure where its first language model's chance is less than so much above the second's.
        options: further arguments of `Ranker`.

    Raises:
        InputError: if an argument can't be used.
        CheckpointError: if the model can't be loaded.
    """

    def __init__(
        self,
        reranker: str | os.PathLike[str] = "r1ranker-iterative",
        *,
        llms: Iterable[LLMProfile] | str | os.PathLike[str],
        objective: str | tuple[float, float] | Objective = "performance",
        model: str | os.PathLike[str] | None = None,
        strategy: str | None = None,
        unsure: str | os.PathLike[str] | Ranker | None = None,
        margin: float = MARGIN,
        **options: Any,
    ) -> None:
        self.llms = check_profiles(llms) if not isinstance(llms, str | os.PathLike) else read_profiles(os.fspath(llms))
        self.objective = objective_of(objective)
        first = open_ranker(reranker, model=model, strategy=strategy, **options)
        self.ranker: Ranker | UnsureCascade = first
        if unsure is not None:
            second = unsure if isinstance(unsure, Ranker) else open_ranker(unsure)
            self.ranker = UnsureCascade(first, second, margin)
        self._candidates = tuple(llm.candidate() for llm in self.llms)

    @property
    def summary(self) -> RunSummary:
        """Questions, calls, tokens, repairs and seconds so far."""
        return self.ranker.summary

    def request(self, query: str, query_id: str = "") -> RankingRequest:
        """Puts a question as the ranker is asked it.

        Args:
            query: the question.
            query_id: a name for it.

        Returns:
            The request; a candidate's id is the name of a language model.

        Raises:
            InputError: if the question is blank or no text.
        """
        if not isinstance(query, str):
            raise InputError(f"the question is {query!r}: give a text")
        return RankingRequest(query, self._candidates, "model", query_id, self.objective.aim)

    def rank(self, query: str) -> Ranking:
        """Ranks the language models for a question.

        Args:
            query: the question.

        Returns:
            The ranking: `best_first` and `reasons`, and how it came about.

        Raises:
            InputError: if the question is blank or no text.
            R1RankerError: if the ranker's model or its server fails.
        """
        return self.rank_all([query])[0]

    def rank_all(self, queries: Sequence[str]) -> list[Ranking]:
        """Ranks the language models for several questions together, which is faster than one after the other.

        Args:
            queries: the questions.

        Returns:
            A ranking a question, each the same as `rank` gives.

        Raises:
            InputError: if a question is blank or no text.
            R1RankerError: if the ranker's model or its server fails.
        """
        if isinstance(queries, str):
            raise InputError("queries is a text: give a list of questions, or use rank")
        return self.ranker.rank([self.request(query) for query in queries])

    def order(self, query: str) -> tuple[LLMProfile, ...]:
        """All language models, the best for the question first; arguments and errors as of `rank`."""
        return tuple(self.llms[place] for place in self.rank(query).order)

    async def order_async(self, query: str) -> tuple[LLMProfile, ...]:
        """As `order`, while the event loop goes on."""
        ranking = await self.ranker.rank_async(self.request(query))
        return tuple(self.llms[place] for place in ranking.order)

    def choose(self, query: str) -> LLMProfile:
        """The language model to call for the question; arguments and errors as of `rank`."""
        return self.order(query)[0]

    def fallbacks(self, query: str) -> tuple[LLMProfile, ...]:
        """The language models to call should the chosen one fail, in this order; arguments and errors as of `rank`."""
        return self.order(query)[1:]

    def model_for(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Names the language model to call for a chat: a plain function for gateways that take one.

        Args:
            messages: the chat in OpenAI's form; the user's last text is the question.

        Returns:
            The name of the language model.

        Raises:
            InputError: if the user has said nothing.
            R1RankerError: if the ranker's model or its server fails.
        """
        return self.choose(question_of(messages)).name

    def as_litellm_router(
        self, model_list: Sequence[Mapping[str, Any]] | None = None, *, name: str = "r1ranker", **options: Any
    ) -> RankedRouter:
        """Makes a LiteLLM router that calls the best language model for each chat, and the next ones if that fails.

        Args:
            model_list: LiteLLM's list of deployments; their `model_name`s are the names of the language models. Without
                it each language model by a name that LiteLLM knows, such as `openai/gpt-4o-mini`.
            name: what callers ask for in place of a model to have one chosen; other names are LiteLLM's business.
            options: further arguments of `litellm.Router`.

        Returns:
            The router, a `litellm.Router`.

        Raises:
            InputError: if a language model has no deployment, `name` is that of one, or LiteLLM refuses the list.
            MissingExtraError: if LiteLLM is not installed.
        """
        if model_list is None:
            model_list = [{"model_name": llm.name, "litellm_params": {"model": llm.name}} for llm in self.llms]
        from r1ranker_ir.adapters.routing.gateway import RankedRouter

        return RankedRouter(self, model_list, name=name, **options)
