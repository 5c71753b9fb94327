"""Ranking requests with known answers, made of what users chose."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from r1ranker_ir.adapters.domains import aim_of, recommendation_domains
from r1ranker_ir.adapters.problems import LeftOutError, Problems
from r1ranker_ir.adapters.recommendation.baselines import Scorer, choice_counts
from r1ranker_ir.adapters.recommendation.interactions import Interactions, UserHistory, unknown_item
from r1ranker_ir.adapters.recommendation.negatives import NegativeSampler
from r1ranker_ir.adapters.recommendation.protocol import RecommendationProtocol, users_in_order
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError
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
    aim = recommendation_aim(interactions.domain if domain is None else domain)
    counts = Counter() if counts is None else counts
    titles = interactions.titles
    sampler = NegativeSampler(titles, choice_counts(interactions) if protocol.negatives == "popularity" else None)
    made = 0
    for user in users_in_order(interactions.histories, protocol):
        if made == protocol.users:
            return
        rng = random.Random(json.dumps([protocol.seed, user.user]))
        with problems.leaving_out():
            history = _shown_history(user, titles, protocol, counts)
            if lists is None:
                candidates = _sampled(user, sampler, protocol.candidates, rng)
            else:
                candidates = _listed(user, _known(user, lists, titles, problems, counts), lists, protocol, rng, counts)
            named = (scorers or {}).items()
            scores = {name: _scores(name, scorer, user, history, candidates) for name, scorer in named}
            made += 1
            shown = tuple(Candidate(item, titles[item]) for item in candidates)
            query = "\n".join(titles[item] for item in history)
            gains = tuple(float(item == user.target) for item in candidates)
            request = RankingRequest(query, shown, "item", user.user, aim)
            yield JudgedRequest(request, gains, interactions.source, scores)


def recommendation_aim(domain: str) -> str:
    """What a domain's best item must be, in words for the prompt."""
    if domain not in recommendation_domains():
        raise InputError(f"domain is {domain!r}: use one of {', '.join(recommendation_domains())}")
    return aim_of(domain)


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


def _sampled(user: UserHistory, sampler: NegativeSampler, count: int, rng: random.Random) -> list[str]:
    """The target among items that the user has not chosen, in random order: its place tells nothing."""
    negatives = sampler.draw(count - 1, (*user.known, user.target), rng)
    if negatives is None:
        needed = f"{count - 1} others with titles of their own are needed: add items, or ask for fewer candidates"
        raise LeftOutError(user.where, "too few items to draw from", needed)
    candidates = [user.target, *negatives]
    rng.shuffle(candidates)
    return candidates


def _known(
    user: UserHistory, lists: CandidateLists, titles: Mapping[str, str], problems: Problems, counts: Counter[str]
) -> list[str]:
    """A user's list, without what the user has chosen already or nobody knows."""
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
    return candidates


def _listed(
    user: UserHistory,
    known: list[str],
    lists: CandidateLists,
    protocol: RecommendationProtocol,
    rng: random.Random,
    counts: Counter[str],
) -> list[str]:
    """The top of a recommender's list, which is good for windows over long ones: its order is kept."""
    candidates = known[: protocol.candidates]
    if user.target not in candidates:
        counts[f"lists of {lists.name} that lack the target"] += 1
        if not lists.add_target:
            raise LeftOutError
        candidates = candidates[: protocol.candidates - 1]
        candidates.insert(rng.randint(0, len(candidates)), user.target)
    if len(candidates) < 2:
        raise LeftOutError(f"user {user.user!r}", "fewer than 2 candidates", f"{lists.name} has too few known items")
    return candidates


def _scores(
    name: str, scorer: Scorer, user: UserHistory, history: Sequence[str], candidates: Sequence[str]
) -> tuple[float, ...]:
    scores = scorer(user.user, history, candidates)
    if scores is None:
        raise LeftOutError(f"user {user.user!r}", f"user has no scores of {name}", "its run does not name the user")
    return tuple(scores)
