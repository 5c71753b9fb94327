"""What simple recommenders say of a request's candidates, for the table.

They count what users are known to have chosen: never a target, of whatever user and split.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from r1ranker_ir.adapters.recommendation.interactions import Interactions
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import missing_extra

Scorer = Callable[[str, Sequence[str], Sequence[str]], Sequence[float] | None]
"""User, history and candidates (ids) to a score for each candidate, more for better; `None` if it lacks the user."""


def choice_counts(interactions: Interactions) -> Counter[str]:
    """Counts how many users are known to have chosen each item; targets don't count."""
    return Counter(item for history in interactions.histories for item in set(history.known))


def popularity(interactions: Interactions) -> Scorer:
    """Makes the recommender that offers everybody what most users chose."""
    counts = choice_counts(interactions)
    return lambda user, history, candidates: [float(counts[item]) for item in candidates]


def item_knn(interactions: Interactions) -> Scorer:
    """Makes the recommender that offers what was chosen by those who chose the same.

    Of a candidate j, the score is Σᵢ |Uᵢ ∩ Uⱼ| / √(|Uᵢ| |Uⱼ|) over the items i of the history, where Uᵢ are the users
    known to have chosen i: the cosine of two items' users (Sarwar et al., WWW 2001; on choices, without ratings), with
    all items as neighbours.
    """
    try:
        from scipy import sparse
    except ImportError as error:
        raise missing_extra("item-knn", "eval", error) from error
    places = {item: place for place, item in enumerate(interactions.titles)}
    counts = choice_counts(interactions)
    items, users, cells = [], [], []
    for number, history in enumerate(interactions.histories):
        for item in dict.fromkeys(history.known):
            items.append(places[item])
            users.append(number)
            cells.append(1 / math.sqrt(counts[item]))
    # A row an item, of length 1, so that products of rows are cosines.
    rows = sparse.csr_array((cells, (items, users)), shape=(len(places), len(interactions.histories)))

    def scores(user: str, history: Sequence[str], candidates: Sequence[str]) -> list[float]:
        offered, chosen = (rows[[places[item] for item in each]] for each in (candidates, dict.fromkeys(history)))
        return [round(float(score), 6) for score in (offered @ chosen.T).sum(axis=1)]

    return scores


def run_order(run: Run, name: str, counts: Counter[str]) -> Scorer:
    """Scores by place in another recommender's run: the best of n has n, the last 1, and what the run lacks 0."""

    def scores(user: str, history: Sequence[str], candidates: Sequence[str]) -> list[float] | None:
        entries = run.get(user)
        if entries is None:
            return None
        of_items = {entry.doc_id: float(len(entries) - place) for place, entry in enumerate(entries)}
        if lacking := sum(item not in of_items for item in candidates):
            counts[f"candidates that {name} lacks; they count as its last"] += lacking
        return [of_items.get(item, 0.0) for item in candidates]

    return scores
