"""One ranking as HTML for notebooks: the order, and behind a click what each call showed, thought and answered."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.runs.trace_view import after_thought, flags_of, one_line, outcome_of, summary_of
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Step

if TYPE_CHECKING:
    from r1ranker_ir.runs.traces import TracedRanking

PASSAGE_CHARACTERS = 300
"""How much of a passage is shown."""
_ANSWER_CHARACTERS = 20_000
_LEFT = ' style="text-align:left;vertical-align:top"'
_WRAPPED = ' style="text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere"'


def ranking_html(traced: TracedRanking) -> str:
    """A ranking as HTML that needs no script, style sheet or network; all texts are escaped."""
    ranking, request = traced.ranking, traced.ranking.request
    placed = zip(ranking.best_first, ranking.order, strict=True)
    rows = [(str(rank), each.id, str(was + 1), each.text) for rank, (each, was) in enumerate(placed, start=1)]
    steps = "".join(
        _step(traced, step, f"Step {number} of {len(ranking.steps)}")
        for number, step in enumerate(ranking.steps, start=1)
    )
    notes = "".join(f"<p>{_text(f'! {note}')}</p>" for note in traced.notes)
    # Jupyter would take dollar signs in a passage for formulas.
    return (
        '<div class="r1ranker-ranking tex2jax_ignore mathjax_ignore">'
        f"<p><b>{_text(request.query)}</b></p>{notes}"
        f"{_table(('rank', 'id', 'was', 'text'), rows)}"
        f"<details><summary>{_text(summary_of(traced))}</summary>{steps}</details></div>"
    )


def _step(traced: TracedRanking, step: Step, heading: str) -> str:
    candidates, asks = traced.ranking.request.candidates, asked_by(traced.strategy)
    rows = []
    for number, position in enumerate(step.shown, start=1):
        chance = (step.probabilities or {}).get(position)
        each, said = candidates[position], "" if chance is None else f"{chance:.3f}"
        rows.append((f"[{number}]", each.id, said, outcome_of(step, position, asks), each.text))
    named = ", ".join(candidates[position].id for position in step.outcome)
    parts = [f"<p>! {_text(flag)}</p>" for flag in flags_of(step)]
    parts.append(_table(("", "id", "probability", "outcome", "text"), rows))
    parts.extend(_block(label, text) for label, text in (("Thought", step.thought), ("Answer", after_thought(step))))
    return f"<details><summary>{_text(f'{heading}: {named}')}</summary>{''.join(parts)}</details>"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col"{_LEFT}>{name}</th>' for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td{_LEFT}>{_text(cell)}</td>' for cell in cells)}<td{_WRAPPED}>{_text(text)}</td></tr>"
        for *cells, text in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _block(label: str, text: str) -> str:
    shown = html.escape(visible("\n".join(_cut(text.strip(), _ANSWER_CHARACTERS).splitlines())))
    style = "white-space:pre-wrap;overflow-wrap:anywhere"
    return f'<p><b>{label}</b></p><div dir="auto" style="{style}">{shown}</div>' if shown else ""


def _text(text: str) -> str:
    """A text on one line, apart from the direction in which its surroundings are written."""
    return f'<bdi dir="auto">{html.escape(one_line(_cut(text, PASSAGE_CHARACTERS)))}</bdi>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
