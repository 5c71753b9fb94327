"""What fills a template: query and candidates as plain text, and what may be said of the candidates beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.types import GivenPrompt, RankingRequest


@dataclass(frozen=True)
class Filling:
    """What fills a template's turns, neutralised.

    Args:
        query: the query.
        texts: of the candidates, in the order of the prompt.
        task: of the request.
        aim: of the request; the template's own for the task where it is empty.
        excluded: the identifiers of those excluded, for prompts that name them.
        names: of each candidate its name, or its id; this and what follows is there for templates that show it alone.
        places: of each candidate its place in the request, from 0; the same in every prompt of a ranking.
        scores: what the first stage gave each candidate; `None` where that is unknown.
        examples: worked examples, with an empty line behind them; empty for none.
        about: the candidates that thoughts are about, a line each, for prompts that compare thoughts.
        given: the prompt that came with the request; `None` where none did.
    """

    query: str
    texts: Sequence[str]
    task: str
    aim: str = ""
    excluded: str = ""
    names: Sequence[str] = ()
    places: Sequence[int] = ()
    scores: Sequence[float | None] = ()
    given: GivenPrompt | None = None
    examples: str = ""
    about: str = ""


def details_of(
    request: RankingRequest, shown: Sequence[int], plain: Callable[[str], str], plain_lines: Callable[[str], str]
) -> dict[str, Any]:
    """What a filling says beside the texts of those shown; `plain_lines` neutralises a text that keeps its lines."""
    candidates = [request.candidates[position] for position in shown]
    given = request.given
    if given is not None:
        given = GivenPrompt(plain_lines(given.before), plain_lines(given.candidates), plain_lines(given.behind))
    return {
        "names": [plain(candidate.name or candidate.id) for candidate in candidates],
        "places": tuple(shown),
        "scores": [candidate.score for candidate in candidates],
        "given": given,
    }
