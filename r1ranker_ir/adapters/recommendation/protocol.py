"""Whose next choice is to be guessed, and how: the protocol of R1-Ranker (arXiv 2506.21638), and variants.

A user's choices in the order of time, the last of them left out as the target; the 20 before it as the history; the
target among 19 sampled items; users split 80/20 into train and test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.adapters.recommendation.interactions import UserHistory
from r1ranker_ir.files.digests import share_of
from r1ranker_ir.option_fields import check_offered, option

TEST_SHARE = 0.2


@dataclass(frozen=True)
class RecommendationProtocol:
    """How requests are made of users' histories; each field says what it is for.

    A user's id alone decides to which split it belongs; a user's draws depend on the seed and the id alone.
    """

    history: int = option(20, "Choices before the target that are shown, the latest.", least=1)
    min_history: int = option(1, "Choices before the target that a user must have to be used.", least=1)
    candidates: int = option(20, "Length of a list, its target included; of lists from a run, its depth.", least=2)
    negatives: Literal["uniform", "popularity"] = option(
        "uniform", "Draw the other candidates from all items alike, or by how many users chose them."
    )
    split: Literal["all", "train", "test"] = option("all", "Which users: all, 80% for training, or 20% for tests.")
    users: int | None = option(None, "Draw N users.", unset="all", least=1)
    seed: int = option(0, "Seed of every draw.")
    repeats: Literal["drop", "hide", "keep"] = option(
        "drop", "Users who chose their target before: leave them out, hide it in the history, or keep it there."
    )

    def __post_init__(self) -> None:
        check_offered(self)


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
