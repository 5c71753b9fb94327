"""One ranking of a trace as data of the page: its calls, where each candidate settles, and what thoughts quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r1ranker_ir.eval.pages.chunks import utf16_length
from r1ranker_ir.eval.pages.quotes import Passages
from r1ranker_ir.eval.pages.settings import TEXT_CHARACTERS
from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.runs.trace_view import after_thought, flags_of, outcome_of, summary_of
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Ranking, Step


def shown_text(text: str, most: int = TEXT_CHARACTERS) -> str:
    """A text as it is shown: control characters as escapes, long ones cut, which is said."""
    cut = text if len(text) <= most else f"{text[:most]} … [cut here: {len(text):,} characters in all]"
    return visible("\n".join(cut.splitlines()))


def traced_data(
    traced: TracedRanking, places: Mapping[int, int], texts: Mapping[int, str], most: int = TEXT_CHARACTERS
) -> dict[str, Any]:
    """A ranking as plain data.

    Args:
        traced: the ranking.
        places: the number of each of its candidates on the page, by position in its request.
        texts: the candidates' texts as the page shows them, by their numbers there.
        most: how many characters of a thought are shown.
    """
    ranking, asks = traced.ranking, asked_by(traced.strategy)
    passages = Passages(ranking.request.query, {place: texts[place] for place in places.values()})
    settled, left = settling(ranking, asks)
    votes = any(step.confidence is not None for step in ranking.steps)
    return {
        "summary": visible(summary_of(traced)),
        "notes": [visible(note) for note in traced.notes],
        "before": [places[position] for position in range(len(ranking.order))],
        "after": [places[position] for position in ranking.order],
        "settled": {places[position]: number for position, number in settled.items()},
        "left": [places[position] for position in left],
        "moves": asks == "order" and not votes,
        "steps": [_step(step, asks, places, passages, texts, most) for step in ranking.steps],
    }


def settling(ranking: Ranking, asks: str | None) -> tuple[dict[int, int], list[int]]:
    """The last call, from 1, that could have answered each candidate (0 for none); and those that were excluded."""
    last = dict.fromkeys(range(len(ranking.order)), 0)
    for number, step in enumerate(ranking.steps, start=1):
        last.update(dict.fromkeys((each for each in step.shown if each not in step.marked), number))
    if asks != "worst":
        return last, []
    end = len(ranking.steps)
    # Of several votes, the outcome is not each call's own.
    left = [
        position
        for position, number in last.items()
        if number
        and (position in (step := ranking.steps[number - 1]).outcome or (step.confidence is not None and number < end))
    ]
    return last, left


def _step(
    step: Step, asks: str | None, places: Mapping[int, int], passages: Passages, texts: Mapping[int, str], most: int
) -> dict[str, Any]:
    thought = shown_text(step.thought.strip(), most)
    quotes = passages.quoted_by(thought, (places[position] for position in step.shown))
    chances = step.probabilities
    return {
        "shown": [places[position] for position in step.shown],
        "outcome": [places[position] for position in step.outcome],
        "said": [outcome_of(step, position, asks) for position in step.shown],
        "chances": None if chances is None else _rounded([chances.get(position) for position in step.shown]),
        "thought": thought,
        "answer": shown_text(after_thought(step), most),
        "flags": flags_of(step),
        "tokens": [step.usage.prompt_tokens, step.usage.completion_tokens],
        "quotes": [
            [each.candidate, *(utf16_length(texts[each.candidate][:end]) for end in (each.start, each.end))]
            for each in quotes
        ],
    }


def _rounded(chances: Sequence[float | None]) -> list[float | None]:
    return [None if chance is None else round(chance, 4) for chance in chances]
