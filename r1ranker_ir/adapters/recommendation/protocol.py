"""Whose next choice is to be guessed, and how: the protocol of R1-Ranker (arXiv 2506.21638), and variants.

A user's choices in the order of time, the last of them left out as the target; the 20 before it as the history; the
target among 19 sampled items; users split 80/20 into train and test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.adapters.recommendation.interactions import UserHistory
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import share_of

TEST_SHARE = 0.2


@dataclass(frozen=True)
class RecommendationProtocol:
    """How requests are made of users' histories.

    Args:
        history: how many choices before the target are shown, from the latest back.
        min_history: users with fewer choices before the target can't be used.
        candidates: how long a list is, the target included; of lists from a run, how far down they are taken.
        negatives: the other candidates are drawn from all items alike, or by how often users chose them.
        split: requests of 80% of the users for training, of the other 20% for tests, or of all; a user's id alone
            decides which.
        users: how many users are drawn; all, in the source's order, if `None`.
        repeats: what becomes of users who chose the target, or an item of its title, before, so that it can be looked
            up in their history. `drop` leaves them out, `hide` takes it out of their history, `keep` changes nothing.
        seed: of every draw; a user's draws depend on it and the user's id alone.
    """

    history: int = 20
    min_history: int = 1
    candidates: int = 20
    negatives: Literal["uniform", "popularity"] = "uniform"
    split: Literal["all", "train", "test"] = "all"
    users: int | None = None
    seed: int = 0
    repeats: Literal["drop", "hide", "keep"] = "drop"

    def __post_init__(self) -> None:
        for name, bound in {"history": 1, "min_history": 1, "candidates": 2, "users": 1}.items():
            if (value := getattr(self, name)) is not None and value < bound:
                raise InputError(f"{name} is {value}: give at least {bound}")


def users_in_order(histories: Iterable[UserHistory], protocol: RecommendationProtocol) -> list[UserHistory]:
    """A split's users: as given, or in the order of the draw, so that a smaller draw begins a larger one."""
    chosen = [
        each
        for each in histories
        if protocol.split == "all" or (share_of(each.user) < TEST_SHARE) == (protocol.split == "test")
    ]
    if protocol.users is None:
        return chosen
    return sorted(chosen, key=lambda each: (share_of(f"{protocol.seed}:{each.user}"), each.user))
