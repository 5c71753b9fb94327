"""Ranking requests with known answers, made of what users chose."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from r1ranker_ir.adapters.domains import RECOMMENDATION_DOMAINS, aim_of
from r1ranker_ir.adapters.problems import LeftOutError, Problems
from r1ranker_ir.adapters.recommendation.baselines import Scorer, choice_counts
from r1ranker_ir.adapters.recommendation.interactions import Interactions, UserHistory, unknown_item
from r1ranker_ir.adapters.recommendation.protocol import RecommendationProtocol, users_in_order
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.types import Candidate, RankingRequest

_REPEATED = {
    "drop": "users left out who chose their target before: it would stand in their history (--repeats)",
    "hide": "users who chose their target before; it was taken out of their history (--repeats)",
    "keep": "users who chose their target before: of their candidates, it alone may stand in their history (--repeats)",
}
_NOTHING_ELSE = "users left out who chose their target before, and too little else (--repeats, --min-history)"


@dataclass(frozen=True)
class CandidateLists:
    """Candidates from a recommender's run (users as queries, items as documents), instead of sampled ones.

    A target that a list lacks is put into it at a random place (`add_target`), or the user is left out.
    """

    run: Run
    name: str
    add_target: bool = False


def recommendation_requests(
    interactions: Interactions,
    protocol: RecommendationProtocol,
    problems: Problems,
    *,
    domain: str | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    lists: CandidateLists | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[JudgedRequest]:
    """Makes a request of each user: the history's titles, and gain 1 for the target.

    Sampled candidates are in random order, those of `lists` in theirs, without what the user has chosen already; they
    carry the scores of other recommenders (`scorers`). `counts` is told of what is not a problem and should be known.
    """
    aim = aim_of(domain or interactions.domain, RECOMMENDATION_DOMAINS)
    counts = Counter() if counts is None else counts
    titles = interactions.titles
    sampler = _Sampler(titles, choice_counts(interactions) if protocol.negatives == "popularity" else None)
    made = 0
    for user in users_in_order(interactions.histories, protocol):
        if made == protocol.users:
            return
        rng = random.Random(json.dumps([protocol.seed, user.user]))
        with problems.leaving_out():
            history = _shown_history(user, titles, protocol, counts)
            if lists is None:
                candidates = sampler.candidates(user, protocol.candidates, rng)
            else:
                candidates = _listed(user, lists, protocol.candidates, titles, rng, problems, counts)
            scores = {}
            for name, scorer in (scorers or {}).items():
                if (found := scorer(user.user, history, candidates)) is None:
                    where, lacking = f"user {user.user!r}", "its run does not name the user"
                    raise LeftOutError(where, f"user has no scores of {name}", lacking)
                scores[name] = tuple(found)
            made += 1
            shown = tuple(Candidate(item, titles[item]) for item in candidates)
            query = "\n".join(titles[item] for item in history)
            gains = tuple(float(item == user.target) for item in candidates)
            request = RankingRequest(query, shown, "item", user.user, aim)
            yield JudgedRequest(request, gains, interactions.source, scores)


def _shown_history(
    user: UserHistory, titles: Mapping[str, str], protocol: RecommendationProtocol, counts: Counter[str]
) -> tuple[str, ...]:
    """The latest choices before the target that may be shown.

    The other candidates are ones that the user never chose: a target that was chosen before would be the only one that
    stands in the history.
    """
    if len(user.known) < protocol.min_history:
        raise LeftOutError(user.where, "short history", f"{len(user.known)} choices before the target")
    of_target = titles[user.target].casefold()
    others = tuple(item for item in user.known if titles[item].casefold() != of_target)
    known = user.known
    if len(others) < len(known):
        if protocol.repeats == "hide" and len(others) < protocol.min_history:
            counts[_NOTHING_ELSE] += 1
            raise LeftOutError
        counts[_REPEATED[protocol.repeats]] += 1
        if protocol.repeats == "drop":
            raise LeftOutError
        known = others if protocol.repeats == "hide" else known
    return known[-protocol.history :]


class _Sampler:
    """Draws items without replacement, alike or by weight; items without a weight are never drawn."""

    def __init__(self, titles: Mapping[str, str], weights: Mapping[str, int] | None) -> None:
        self._titles = titles
        self._items = list(titles) if weights is None else [item for item in titles if weights.get(item, 0) > 0]
        self._cumulative = None if weights is None else list(accumulate(weights[item] for item in self._items))
        self._texts = {titles[item].casefold() for item in self._items}

    def candidates(self, user: UserHistory, count: int, rng: random.Random) -> list[str]:
        """The target among items with titles that the user has not chosen, in random order: its place tells nothing."""
        taken = {self._titles[item].casefold() for item in (*user.known, user.target)}
        if len(self._texts) - len(self._texts & taken) < count - 1:
            needed = f"{count - 1} others with titles of their own are needed: add items, or ask for fewer candidates"
            raise LeftOutError(user.where, "too few items to draw from", needed)
        candidates = [user.target]
        while len(candidates) < count:
            [item] = rng.choices(self._items, cum_weights=self._cumulative)
            text = self._titles[item].casefold()
            if text not in taken:
                taken.add(text)
                candidates.append(item)
        rng.shuffle(candidates)
        return candidates


def _listed(
    user: UserHistory,
    lists: CandidateLists,
    depth: int,
    titles: Mapping[str, str],
    rng: random.Random,
    problems: Problems,
    counts: Counter[str],
) -> list[str]:
    """The top of a user's list, in its order, without what the user has chosen already or nobody knows."""
    entries = lists.run.get(user.user)
    if entries is None:
        raise LeftOutError(f"user {user.user!r}", "user has no list", f"{lists.name} does not name the user")
    chosen, candidates = set(user.known) - {user.target}, []
    for item in (entry.doc_id for entry in entries):
        if item in chosen:
            counts[f"items of {lists.name} that the user has chosen already"] += 1
        elif item not in titles:
            unknown_item(problems, f"{lists.name}, user {user.user!r}", item)
        else:
            candidates.append(item)
    del candidates[depth:]
    if user.target not in candidates:
        counts[f"lists of {lists.name} that lack the target"] += 1
        if not lists.add_target:
            raise LeftOutError
        del candidates[depth - 1 :]
        candidates.insert(rng.randint(0, len(candidates)), user.target)
    if len(candidates) < 2:
        raise LeftOutError(f"user {user.user!r}", "fewer than 2 candidates", f"{lists.name} has too few known items")
    return candidates
