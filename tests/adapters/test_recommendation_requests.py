"""Requests made of users' choices: the protocol, the draws, the baselines, and lists from a recommender."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.baselines import item_knn, popularity, run_order
from r1ranker_ir.adapters.recommendation.interactions import Interactions, UserHistory
from r1ranker_ir.adapters.recommendation.protocol import RecommendationProtocol
from r1ranker_ir.adapters.recommendation.requests import CandidateLists, recommendation_requests
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import DataFileError, InputError

ITEMS = [f"i{number}" for number in range(40)]
TITLES = {item: f"Title {item}" for item in ITEMS}


@st.composite
def sources(draw: st.DrawFn) -> Interactions:
    """Users with 1 to 8 choices and a next item, or without one that is kept apart."""
    apart = draw(st.booleans())
    chosen = st.lists(st.sampled_from(ITEMS[:15]), min_size=2, max_size=9)
    users = draw(st.dictionaries(st.text("abc1 é", min_size=1, max_size=4), chosen, min_size=1, max_size=12))
    histories = (
        UserHistory(user, tuple(items[:-1]), items[-1]) if apart else UserHistory(user, tuple(items))
        for user, items in users.items()
    )
    return Interactions("some", tuple(histories), TITLES)


def requests_of(source: Interactions, protocol: RecommendationProtocol, **options: Any) -> list[JudgedRequest]:
    return list(recommendation_requests(source, protocol, Problems(), **options))


def scorers_of(source: Interactions) -> dict[str, Any]:
    return {"popularity": popularity(source), "item-knn": item_knn(source)}


# --- the protocol ---------------------------------------------------------------------------------------------------


@given(source=sources(), negatives=st.sampled_from(["uniform", "popularity"]), seed=st.integers(0, 3))
def test_a_request_is_the_next_choice_among_others(source: Interactions, negatives: Any, seed: int) -> None:
    protocol = RecommendationProtocol(history=3, candidates=5, negatives=negatives, seed=seed, repeats="keep")
    problems = Problems("skip")
    made = list(recommendation_requests(source, protocol, problems, domain="game"))
    by_user = {each.user: each for each in source.histories}
    assert len(made) + sum(problems.counts.values()) == len(by_user)
    assert set(problems.counts) <= {"too few items to draw from"}
    assert negatives == "popularity" or not problems.counts
    for judged in made:
        user, request = by_user[judged.request.query_id], judged.request
        ids = [candidate.id for candidate in request.candidates]
        assert request.query.split("\n") == [TITLES[item] for item in user.known[-3:]]
        assert (request.task, judged.source) == ("item", "some")
        assert request.aim == "the video game or accessory that this player buys next"
        assert [item for item, gain in zip(ids, judged.gains, strict=True) if gain] == [user.target]
        assert len(set(ids)) == 5 and not (set(ids) - {user.target}) & set(user.known)
        assert [candidate.text for candidate in request.candidates] == [TITLES[item] for item in ids]


@given(source=sources(), history=st.integers(1, 9), min_history=st.integers(1, 3))
def test_repeats_give_no_target_away(source: Interactions, history: int, min_history: int) -> None:
    made = {}
    modes: tuple[Literal["drop", "hide", "keep"], ...] = ("drop", "hide", "keep")
    for repeats in modes:
        protocol = RecommendationProtocol(history, min_history, candidates=4, repeats=repeats)
        counts = Counter[str]()
        requests = recommendation_requests(source, protocol, Problems("skip"), counts=counts)
        made[repeats] = {judged.request.query_id: judged for judged in requests}
        enough = [each for each in source.histories if len(each.known) >= min_history]
        repeated = [each for each in enough if each.target in each.known]
        assert sum(counts.values()) == len(repeated)
        if repeats != "keep":
            for judged in made[repeats].values():
                [target] = judged.best
                assert judged.request.candidates[target].text not in judged.request.query.split("\n")
    for user in source.histories:
        if user.target not in user.known:
            assert made["drop"].get(user.user) == made["hide"].get(user.user) == made["keep"].get(user.user)
        else:
            assert user.user not in made["drop"]
            if hidden := made["hide"].get(user.user):
                others = [item for item in user.known if item != user.target]
                assert hidden.request.query.split("\n") == [TITLES[item] for item in others[-history:]]
                assert hidden.request.candidates == made["keep"][user.user].request.candidates


@given(source=sources(), order=st.randoms())
def test_the_order_of_users_changes_no_request(source: Interactions, order: random.Random) -> None:
    histories = list(source.histories)
    order.shuffle(histories)
    turned = replace(source, histories=tuple(histories))
    protocol = RecommendationProtocol(candidates=4, users=5)
    assert requests_of(turned, protocol) == requests_of(source, protocol)


def source_of_many(count: int = 600) -> Interactions:
    rng = random.Random(0)
    histories = (UserHistory(f"u{number}", tuple(rng.sample(ITEMS, 4))) for number in range(count))
    return Interactions("many", tuple(histories), TITLES)


def test_the_targets_place_tells_nothing() -> None:
    places = Counter(judged.best[0] for judged in requests_of(source_of_many(), RecommendationProtocol(candidates=6)))
    assert set(places) == set(range(6))
    assert all(70 < count < 130 for count in places.values())  # 100 each; the seed is fixed


def test_users_are_split_by_their_ids_alone_and_a_smaller_draw_begins_a_larger_one() -> None:
    source = source_of_many()

    def drawn(**options: Any) -> list[str]:
        return [each.request.query_id for each in requests_of(source, RecommendationProtocol(**options))]

    train, test, every = set(drawn(split="train", seed=1)), set(drawn(split="test", seed=2)), set(drawn())
    assert train | test == every and not train & test
    assert 90 < len(test) < 150  # 120
    few, more, other = drawn(users=10), drawn(users=30), drawn(users=10, seed=1)
    assert few == more[:10] and len(set(more)) == 30
    assert other != few and few != [f"u{number}" for number in range(10)]


def test_users_that_cant_be_used_are_named_and_replaced_in_a_draw() -> None:
    source = source_of_many(20)
    short = tuple(UserHistory(f"s{number}", ("i1", "i2"), where=f"user 's{number}'") for number in range(20))
    mixed = replace(source, histories=(*short, *source.histories))
    protocol = RecommendationProtocol(min_history=2, users=15)
    problems = Problems("skip")
    made = list(recommendation_requests(mixed, protocol, problems))
    assert len(made) == 15 and all(judged.request.query_id.startswith("u") for judged in made)
    assert set(problems.counts) == {"short history"}
    with pytest.raises(DataFileError, match=r"user 's\d+': short history: 1 choices before the target"):
        requests_of(mixed, protocol)


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ({"history": 0}, {}, "history is 0: give at least 1"),
        ({"candidates": 1}, {}, "candidates is 1: give at least 2"),
        ({"users": 0}, {}, "users is 0"),
        ({}, {"domain": "cost"}, "domain is 'cost': use one of product, movie"),
    ],
)
def test_protocols_that_make_no_sense(values: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        requests_of(source_of_many(2), RecommendationProtocol(**values), **options)


# --- draws ----------------------------------------------------------------------------------------------------------


def drawn(titles: dict[str, str], *known: str, candidates: int, negatives: Any, others: Any = ()) -> list[set[str]]:
    """What is drawn beside the target, by 400 seeds, for a user who chose `known`."""
    source = Interactions("s", (UserHistory("u", known), *others), titles)
    found = []
    for seed in range(400):
        protocol = RecommendationProtocol(candidates=candidates, negatives=negatives, seed=seed, users=None)
        [judged] = (each for each in requests_of(source, protocol) if each.request.query_id == "u")
        found.append({candidate.id for candidate in judged.request.candidates} - {known[-1]})
    return found


def test_items_of_the_same_title_are_drawn_once() -> None:
    titles = {"1": "Go", "2": "go", "3": "Chess", "4": "CHESS", "5": "Poker", "6": "Darts"}
    for items in drawn(titles, "1", "6", candidates=3, negatives="uniform"):
        assert sorted(titles[item].casefold() for item in items) == ["chess", "poker"]
    with pytest.raises(DataFileError, match="too few items to draw from: 3 others with titles of their own"):
        drawn(titles, "1", "6", candidates=4, negatives="uniform")


def test_popular_items_are_drawn_more_often() -> None:
    others = [UserHistory(f"v{number}", ("d", "b" if number else "a", "d"), "c") for number in range(10)]
    first = Counter(
        next(iter(items))
        for items in drawn(
            {item: item for item in "abcd"}, "d", "c", candidates=2, negatives="popularity", others=others
        )
    )
    assert set(first) == {"a", "b"}  # c was never chosen, d by this user
    assert 0.85 < first["b"] / 400 < 0.95


# --- baselines ------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(source=sources())
def test_baselines_count_users_as_one_does_by_hand(source: Interactions) -> None:
    users = {item: {each.user for each in source.histories if item in each.known} for item in ITEMS}
    for judged in requests_of(source, RecommendationProtocol(candidates=4), scorers=scorers_of(source)):
        history = {title.removeprefix("Title ") for title in judged.request.query.split("\n")}
        for place, candidate in enumerate(judged.request.candidates):
            mine = users[candidate.id]
            cosines = sum(len(mine & users[item]) / math.sqrt(len(mine) * len(users[item])) for item in history if mine)
            assert judged.scores["popularity"][place] == len(mine)
            assert judged.scores["item-knn"][place] == pytest.approx(cosines, abs=2e-6)


@given(source=sources(), data=st.data())
def test_targets_of_any_user_change_no_score(source: Interactions, data: st.DataObject) -> None:
    def score_all(targets: list[str]) -> list[list[float]]:
        histories = zip(source.histories, targets, strict=True)
        known = tuple(UserHistory(each.user, each.known, target) for each, target in histories)
        changed = replace(source, histories=known)
        return [list(scorer(each.user, each.known, ITEMS)) for scorer in scorers_of(changed).values() for each in known]

    count = len(source.histories)
    other = data.draw(st.lists(st.sampled_from(ITEMS), min_size=count, max_size=count))
    assert score_all(other) == score_all([each.target for each in source.histories])


def test_scores_of_another_recommender() -> None:
    source = Interactions("s", (UserHistory("u", ("i1", "i2", "i3")), UserHistory("v", ("i4", "i5"))), TITLES)
    run = {"u": (RunEntry("i3", 0.5), RunEntry("i9", 0.25))}
    counts, problems = Counter[str](), Problems("skip")
    protocol = RecommendationProtocol(candidates=20)
    [judged] = recommendation_requests(source, protocol, problems, scorers={"sasrec": run_order(run, "sasrec", counts)})

    ids = [candidate.id for candidate in judged.request.candidates]
    of_items = dict(zip(ids, judged.scores["sasrec"], strict=True))
    assert of_items["i3"] == 2.0
    assert {score for item, score in of_items.items() if item != "i3"} <= {0.0, 1.0}
    assert problems.counts == {"user has no scores of sasrec": 1}
    [(what, count)] = counts.items()
    assert what.startswith("candidates that sasrec lacks") and count in (18, 19)


# --- lists from a recommender ---------------------------------------------------------------------------------------


def test_lists_of_a_recommender_keep_their_order() -> None:
    histories = (
        UserHistory("hit", ("i1", "i2", "i3")),
        UserHistory("miss", ("i1", "i2", "i4")),
        UserHistory("unnamed", ("i1", "i2")),
        UserHistory("again", ("i5", "i6", "i5")),
    )
    source = Interactions("s", histories, TITLES)
    entries = tuple(RunEntry(item, -float(rank)) for rank, item in enumerate(["i9", "i1", "i8", "x", "i3", "i7", "i5"]))
    run = dict.fromkeys(["hit", "miss", "again"], entries)
    counts, problems = Counter[str](), Problems("skip")
    protocol = RecommendationProtocol(candidates=5, repeats="keep")
    lists = CandidateLists(run, "sasrec")
    [judged] = recommendation_requests(source, protocol, problems, lists=lists, counts=counts)
    assert judged.request.query_id == "hit"
    assert [each.id for each in judged.request.candidates] == ["i9", "i8", "i3", "i7", "i5"]
    assert problems.counts == {"user has no list": 1, "unknown item id": 3}
    assert counts == {
        "lists of sasrec that lack the target": 2,
        "items of sasrec that the user has chosen already": 2,
        "users who chose their target before: of their candidates, it alone may stand in their history (--repeats)": 1,
    }


def test_targets_are_added_to_lists_on_request() -> None:
    source = source_of_many(200)
    run = {each.user: tuple(RunEntry(f"i{rank}", -float(rank)) for rank in range(12)) for each in source.histories}
    options: dict[str, Any] = {"scorers": {"first": run_order(run, "first", Counter())}}
    protocol = RecommendationProtocol(candidates=6)
    added = requests_of(source, protocol, lists=CandidateLists(run, "first", add_target=True), **options)
    found = requests_of(source, protocol, lists=CandidateLists(run, "first"), **options)
    assert len(added) == 200 and 0 < len(found) < 60
    assert {len(judged.request.candidates) for judged in added} == {6}
    assert all(len(judged.best) == 1 for judged in added)
    at_places = Counter(judged.best[0] for judged in added if judged not in found)
    assert set(at_places) == set(range(6))
    for judged in added:
        others = [score for place, score in enumerate(judged.scores["first"]) if not judged.gains[place]]
        assert others == sorted(others, reverse=True)


def test_lists_with_nothing_to_order() -> None:
    source = Interactions("s", (UserHistory("u", ("i1", "i2")),), TITLES)
    lists = CandidateLists({"u": (RunEntry("i1", 2.0), RunEntry("i2", 1.0))}, "one")
    with pytest.raises(DataFileError, match="user 'u': fewer than 2 candidates: one has too few known items"):
        requests_of(source, RecommendationProtocol(), lists=lists)
