"""What fills a template: query and candidates as plain text, and what may be said of the candidates beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ranker_ir.types import GivenPrompt, RankingRequest


@dataclass(frozen=True)
class CandidateDetails:
    """Of each candidate that a prompt shows, in its order; texts are neutralised.

    Args:
        names: its name, or its id.
        places: its place in the request, from 0; the same in every prompt of a ranking.
        scores: what the first stage gave it; `None` where that is unknown.
        given: the prompt that came with the request; `None` where none did.
    """

    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    given: GivenPrompt | None = None


NO_DETAILS = CandidateDetails()
"""For templates that show texts alone."""


@dataclass(frozen=True)
class Filling:
    """What fills a template's turns, neutralised.

    Args:
        query: the query.
        texts: of the candidates, in the order of the prompt.
        task: of the request.
        aim: of the request; the template's own for the task where it is empty.
        excluded: the identifiers of those excluded, for prompts that name them.
        details: of the candidates, for templates that show them.
    """

    query: str
    texts: Sequence[str]
    task: str
    aim: str = ""
    excluded: str = ""
    details: CandidateDetails = NO_DETAILS


def details_of(
    request: RankingRequest, shown: Sequence[int], plain: Callable[[str], str], plain_lines: Callable[[str], str]
) -> CandidateDetails:
    """The details of the candidates shown; `plain_lines` neutralises a text that keeps its lines."""
    candidates = [request.candidates[position] for position in shown]
    given = request.given
    if given is not None:
        given = GivenPrompt(plain_lines(given.before), plain_lines(given.candidates), plain_lines(given.behind))
    return CandidateDetails(
        tuple(plain(candidate.name or candidate.id) for candidate in candidates),
        tuple(shown),
        tuple(candidate.score for candidate in candidates),
        given,
    )
