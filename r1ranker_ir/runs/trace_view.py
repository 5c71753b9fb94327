"""One ranking of a trace, printed for people: what each call showed, thought and answered, and the order it led to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r1ranker_ir.engine.closed_thoughts import of_one
from r1ranker_ir.engine.summary import HOW_CHOSEN
from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Ranking, Step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from r1ranker_ir.runs.traces import TracedRanking

_LEAST_TEXT = 20
# Spaces that are shown as one, and characters that take no room, may stand between those that are seen.
_CELLS_PER_CHARACTER = 10


@dataclass(frozen=True)
class _Row:
    """A line about one candidate: short cells, then its text."""

    cells: tuple[str, ...]
    text: str
    style: str = ""


def print_ranking(console: Console, traced: TracedRanking, step: int | None = None) -> None:
    """Prints a ranking of a trace."""
    ranking, steps = traced.ranking, traced.ranking.steps
    request = ranking.request
    for label, text in ((f"Query {request.query_id}", request.query), ("Wanted", request.aim)):
        if text:
            _print(console, _styled(f"{_one_line(label)}: ", "bold"), _styled(_one_line(text)))
    _print(console, _styled(_summary(traced), "dim"))
    for note in traced.notes:
        _print(console, _styled(f"  ! {_one_line(note)}", "yellow"))
    for number, each in enumerate(steps, start=1):
        if step in (None, number):
            console.print()
            _print_step(console, traced, each, f"Step {number} of {len(steps)}")
    if step is None:
        console.print()
        _print(console, _styled("Order, best first", "bold"))
        _print_rows(console, _order_rows(ranking))


def _print_step(console: Console, traced: TracedRanking, step: Step, heading: str) -> None:
    usage = step.usage
    said = [f"{usage.prompt_tokens} tokens in, {usage.completion_tokens} out"]
    if step.chosen_by is not None:
        said.append(HOW_CHOSEN[step.chosen_by])
    if step.prompt_hash:
        said.append(f"prompt {_one_line(step.prompt_hash)}")
    _print(console, _styled(heading, "bold"), _styled(f"   {' · '.join(said)}", "dim"))
    for flag in _flags(step):
        _print(console, _styled(f"  ! {flag}", "yellow"))
    _print_rows(console, _shown_rows(traced, step))
    if thought := _lines(step.thought):
        _print_indented(console, "Thought", thought)
    _print_indented(console, "Answer" if step.score is None else "Scored", _lines(_after_thought(step)) or "nothing")


def _flags(step: Step) -> list[str]:
    flags = []
    if step.repaired:
        flags.append("the answer could not be used as it stood and was repaired")
    if step.thought_closed:
        flags.append(of_one(step.closed_at))
    if step.thought_given:
        flags.append("answered with the thought of an earlier call" if step.thought else "answered without a thought")
    if step.cut_passages:
        flags.append(f"{_counted(step.cut_passages, 'passage')} cut to fit the prompt")
    if step.cut_query:
        flags.append("the query was cut")
    if step.confidence is not None:
        flags.append(f"one of several votes, which agree with what they decided by {step.confidence:.0%}")
    return flags


def _shown_rows(traced: TracedRanking, step: Step) -> list[_Row]:
    """The candidates as the prompt held them, with their probabilities and with what became of each."""
    rows, asks = [], asked_by(traced.strategy)
    for place, position in enumerate(step.shown, start=1):
        candidate = traced.ranking.request.candidates[position]
        excluded = asks == "worst" and position in step.outcome
        outcome = "excluded" if excluded else "excluded before" if position in step.marked else ""
        if len(step.outcome) == len(step.shown) > 1:
            outcome = f"{step.outcome.index(position) + 1}."
        elif step.grade is not None:
            outcome = f"grade {step.grade:.1f}"
        elif step.score is not None:
            outcome = f"log-likelihood {step.score:.3f}"
        elif asks == "best" and position in step.outcome:
            outcome = "best"
        chance = (step.probabilities or {}).get(position)
        cells = f"[{place}]", candidate.id, "" if chance is None else f"{chance:.3f}", outcome
        rows.append(_Row(cells, candidate.text, "red" if excluded else ""))
    return rows


def _order_rows(ranking: Ranking) -> list[_Row]:
    """The final order, with the places that the first stage gave."""
    placed = enumerate(ranking.best_first, start=1)
    before = (f"(was {position + 1})" for position in ranking.order)
    return [_Row((f"{place}.", each.id, was), each.text) for (place, each), was in zip(placed, before, strict=True)]


def _print_rows(console: Console, rows: Sequence[_Row]) -> None:
    """Prints rows in columns, each on one line with as much of its text as fits."""
    from rich.cells import cell_len, set_cell_size

    columns = [[_one_line(cell) for cell in column] for column in zip(*(row.cells for row in rows), strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    room = max(_LEAST_TEXT, console.width - 2 - sum(width + 2 for width in widths if width))
    for row, cells in zip(rows, zip(*columns, strict=True), strict=True):
        shown = [set_cell_size(cell, width) for cell, width in zip(cells, widths, strict=True) if width]
        text = _one_line(row.text[: _CELLS_PER_CHARACTER * room])
        if cell_len(text) > room:
            text = set_cell_size(text, room - 1).rstrip() + "…"
        line = "  ".join(["", *shown, text]).rstrip()
        console.print(_styled(line, row.style), no_wrap=True, overflow="ignore", crop=False)


def _summary(traced: TracedRanking) -> str:
    ranking = traced.ranking
    usage = ranking.usage
    parts = [
        f"{traced.strategy}: {_counted(len(ranking.request.candidates), ranking.request.task)}",
        _counted(usage.calls, "call"),
        f"{usage.prompt_tokens} tokens in",
        f"{usage.completion_tokens} tokens out",
        _counted(ranking.repairs, "repair"),
    ]
    return ", ".join([*parts, *(["ended by its budget"] if ranking.budget_reached else [])])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _after_thought(step: Step) -> str:
    """What the model wrote behind its thought."""
    _, closed, answer = step.text.rpartition("</think>")
    return answer if closed else step.text.replace(step.thought, "", 1) if step.thought else step.text


def _print_indented(console: Console, label: str, text: str) -> None:
    from rich.text import Text

    _print(console, _styled(f"  {label}", "bold"))
    for line in Text(text).wrap(console, max(_LEAST_TEXT, console.width - 4)):
        line.rstrip()
        _print(console, _styled("    " if line.plain else ""), line)


def _print(console: Console, *parts: Text) -> None:
    from rich.text import Text

    console.print(Text.assemble(*parts))


def _styled(text: str, style: str = "") -> Text:
    from rich.text import Text

    # A Text, since rich takes square brackets in a str for markup.
    return Text(text, style=style)


def _lines(text: str) -> str:
    """Several lines as they can be shown: without blank ones around them, and with nothing that a terminal obeys."""
    return visible("\n".join(text.strip().splitlines())).expandtabs(4)


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))
