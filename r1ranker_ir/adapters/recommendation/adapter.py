"""A recommender's reranker: what a user chose and what may be offered, to an order with reasons."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from r1ranker_ir.adapters.domains import RECOMMENDATION_DOMAINS, aim_of
from r1ranker_ir.adapters.recommendation.interactions import clean_title
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import InputError
from r1ranker_ir.rankers.source import open_ranker
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

Item = str | Candidate


class RecommendationAdapter:
    """Orders items for a user by what the user has chosen so far.

    Args:
        reranker: a registered name such as `r1ranker-iterative-tiny`; or, with `strategy=`, any checkpoint.
        domain: what is recommended: `product`, `movie`, `music`, `game` or `book`; the prompt says so.
        history_length: how many choices are shown, the latest; 20 in R1-Ranker's protocol.
        options: `model`, a checkpoint in place of a registered name's own; and further arguments of `Ranker`.

    Raises:
        InputError: if the domain is unknown, or arguments do not go together.
        CheckpointError: if the model can't be loaded or does not offer the strategy.
        MissingExtraError: if the backend's dependencies are not installed.
    """

    def __init__(
        self,
        reranker: str | os.PathLike[str] = "r1ranker-iterative",
        *,
        domain: str = "product",
        history_length: int = 20,
        **options: Any,
    ) -> None:
        if history_length < 1:
            raise InputError(f"history_length is {history_length}: give at least 1")
        self.domain = domain
        self.history_length = history_length
        self._aim = aim_of(domain, RECOMMENDATION_DOMAINS)
        self.ranker = open_ranker(reranker, **options)

    @property
    def summary(self) -> RunSummary:
        """Users, calls, tokens, repairs and seconds so far."""
        return self.ranker.summary

    def rank(self, history: Sequence[Item], candidates: Sequence[Item]) -> Ranking:
        """Orders items for one user.

        Args:
            history: what the user has chosen, oldest first: titles, or `Candidate`s.
            candidates: what may be offered, best first by whatever found it: titles (each its own id), or `Candidate`s.

        Returns:
            The ranking: `best_first` has the candidates, `reasons` the thought that placed each.

        Raises:
            InputError: if there is no history, or a title is blank or no text.
        """
        return self.rank_all([(history, candidates)])[0]

    def rank_all(self, users: Iterable[tuple[Sequence[Item], Sequence[Item]]]) -> list[Ranking]:
        """Orders items for several users, with the model's calls in common batches.

        Args:
            users: history and candidates of each, as `rank` takes them.

        Returns:
            One ranking a user, in the users' order.

        Raises:
            InputError: if one of them has no history, or a title is blank or no text; names the user's place.
        """
        return self.ranker.rank(self.requests(users))

    def requests(self, users: Iterable[tuple[Sequence[Item], Sequence[Item]]]) -> list[RankingRequest]:
        """Turns users into the requests that `rank_all` ranks, for other callers: the engine, or a file.

        Args:
            users: history and candidates of each.

        Returns:
            One request a user; its id is the user's place, from 0.

        Raises:
            InputError: as for `rank_all`.
        """
        return [self._request(place, history, candidates) for place, (history, candidates) in enumerate(users)]

    def _request(self, place: int, history: Sequence[Item], candidates: Sequence[Item]) -> RankingRequest:
        choices = _items(history, f"users[{place}]: history")
        if not choices:
            raise InputError(f"users[{place}]: history is empty: give at least one choice")
        shown = [item.text for item in choices[-self.history_length :]]
        offered = _items(candidates, f"users[{place}]: candidates")
        return RankingRequest("\n".join(shown), offered, "item", str(place), self._aim)


def _items(given: Sequence[Item], where: str) -> tuple[Candidate, ...]:
    if isinstance(given, str | Candidate):
        raise InputError(f"{where} is {given!r}: give a list of titles or Candidates")
    items = []
    for place, item in enumerate(given):
        if not isinstance(item, str | Candidate):
            raise InputError(f"{where}[{place}] is {item!r}: give a title or a Candidate")
        # A history has a choice a line, so a title must be one.
        title = clean_title(item if isinstance(item, str) else item.text)
        if not title:
            raise InputError(f"{where}[{place}] has a blank title: give the text that the model is to read")
        items.append(Candidate(item if isinstance(item, str) else item.id, title))
    return tuple(items)
