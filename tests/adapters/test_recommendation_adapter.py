"""`RecommendationAdapter` on the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import Candidate, InputError, Ranking, RecommendationAdapter

HISTORY = ["Toy Story (1995)", "A Bug&#39;s\nLife (1998)", "Monsters, Inc. (2001)"]
OFFERED: list[str | Candidate] = ["Alien (1979)", Candidate("42", "Finding Nemo (2003)"), "Heat (1995)", "Antz (1998)"]


@pytest.fixture(scope="module")
def recommend() -> Iterator[RecommendationAdapter]:
    yield RecommendationAdapter("r1ranker-iterative-tiny", domain="movie", history_length=2)


def test_items_come_back_in_order_with_reasons(recommend: RecommendationAdapter) -> None:
    before = recommend.summary.queries
    ranking = recommend.rank(history=HISTORY, candidates=OFFERED)
    assert isinstance(ranking, Ranking)
    assert sorted(item.id for item in ranking.best_first) == ["42", "Alien (1979)", "Antz (1998)", "Heat (1995)"]
    assert len(ranking.reasons) == 4 and all(ranking.reasons)
    assert len(ranking.steps) == 3
    assert recommend.summary.queries == before + 1 and recommend.summary.usage.calls >= 3


def test_what_the_model_is_asked(recommend: RecommendationAdapter) -> None:
    [request] = recommend.requests([(HISTORY, OFFERED)])
    assert request.query == "A Bug's Life (1998)\nMonsters, Inc. (2001)"  # the latest, a line each
    assert (request.task, request.aim) == ("item", "the movie that this viewer watches next")
    assert request.candidates[:2] == (Candidate("Alien (1979)", "Alien (1979)"), OFFERED[1])


def test_users_together_are_ranked_as_they_are_alone(recommend: RecommendationAdapter) -> None:
    users = [(HISTORY, OFFERED[:3]), (HISTORY[:1], OFFERED[1:3])]
    together = recommend.rank_all(users)
    assert [ranking.order for ranking in together] == [recommend.rank(*user).order for user in users]


def test_any_checkpoint_with_a_strategy(embedded_checkpoint: Path, recommend: RecommendationAdapter) -> None:
    same = RecommendationAdapter(embedded_checkpoint, strategy="iterative", domain="movie", history_length=2)
    direct = RecommendationAdapter("r1ranker-direct", model=embedded_checkpoint, domain="movie", history_length=2)
    assert same.rank(HISTORY, OFFERED).order == recommend.rank(HISTORY, OFFERED).order
    assert len(direct.rank(HISTORY, OFFERED).steps) == 1


@pytest.mark.parametrize(
    ("history", "candidates", "said"),
    [
        ([], OFFERED, r"users\[0\]: history is empty"),
        ("Toy Story (1995)", OFFERED, r"users\[0\]: history is 'Toy Story \(1995\)': give a list"),
        (HISTORY, Candidate("1", "x"), r"users\[0\]: candidates is Candidate"),
        ([*HISTORY, 7], OFFERED, r"users\[0\]: history\[3\] is 7: give a title or a Candidate"),
        (HISTORY, ["x", " \n"], r"users\[0\]: candidates\[1\] has a blank title"),
    ],
)
def test_users_that_cant_be_ranked(recommend: RecommendationAdapter, history: Any, candidates: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        recommend.rank(history, candidates)


@pytest.mark.parametrize(
    ("reranker", "options", "said"),
    [
        ("r1ranker-iterative-tiny", {"domain": "cost"}, "domain is 'cost': use one of product, movie"),
        ("r1ranker-iterative-tiny", {"history_length": 0}, "history_length is 0: give at least 1"),
        ("some/model", {}, "'some/model' is not a registered name.*To use a model of that name, add a strategy"),
        ("some/model", {"strategy": "direct", "model": "other"}, "names one already, so leave model='other' out"),
        ("r1ranker-direct-tiny", {"strategy": "iterative"}, "is the direct strategy: leave strategy='iterative' out"),
    ],
)
def test_arguments_that_make_no_sense(reranker: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RecommendationAdapter(reranker, **options)
