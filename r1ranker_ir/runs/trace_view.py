"""One ranking of a trace, printed for people: what each call showed, thought and answered, and the order it led to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1ranker_ir.engine.closed_thoughts import of_one
from r1ranker_ir.engine.summary import HOW_CHOSEN
from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.strategies.checks import asked_by
from r1ranker_ir.types import Step

if TYPE_CHECKING:
    from rich.console import Console

    from r1ranker_ir.runs.traces import TracedRanking

_LEAST_TEXT = 20


def print_ranking(console: Console, traced: TracedRanking, step: int | None = None) -> None:
    """Prints a ranking of a trace, or one step of it."""
    ranking, request = traced.ranking, traced.ranking.request
    for label, text in ((f"Query {request.query_id}", request.query), ("Wanted", request.aim)):
        if text:
            _print(console, (f"{one_line(label)}: ", "bold"), one_line(text))
    _print(console, (summary_of(traced), "dim"))
    for note in traced.notes:
        _print(console, (f"  ! {one_line(note)}", "yellow"))
    for number, each in enumerate(ranking.steps, start=1):
        if step in (None, number):
            console.print()
            _print_step(console, traced, each, f"Step {number} of {len(ranking.steps)}")
    if step is None:
        console.print()
        _print(console, ("Order, best first", "bold"))
        placed = zip(ranking.best_first, ranking.order, strict=True)
        rows = [(f"{place}.", each.id, f"(was {was + 1})", each.text) for place, (each, was) in enumerate(placed, 1)]
        _print_rows(console, rows)


def _print_step(console: Console, traced: TracedRanking, step: Step, heading: str) -> None:
    said = f"   {step.usage.prompt_tokens} tokens in, {step.usage.completion_tokens} out"
    chosen = f" · {HOW_CHOSEN[step.chosen_by]}" if step.chosen_by is not None else ""
    hashed = f" · prompt {one_line(step.prompt_hash)}" if step.prompt_hash else ""
    _print(console, (heading, "bold"), (said + chosen + hashed, "dim"))
    for flag in flags_of(step):
        _print(console, (f"  ! {flag}", "yellow"))
    candidates, excluded = traced.ranking.request.candidates, []
    rows = []
    for place, position in enumerate(step.shown, start=1):
        outcome = outcome_of(step, position, asked_by(traced.strategy))
        chance = (step.probabilities or {}).get(position)
        excluded.append(outcome == "excluded")
        each = candidates[position]
        rows.append((f"[{place}]", each.id, "" if chance is None else f"{chance:.3f}", outcome, each.text))
    _print_rows(console, rows, ["red" if out else "" for out in excluded])
    if step.thought.strip():
        _print_indented(console, "Thought", step.thought)
    _print_indented(
        console,
        "Scored" if step.score is not None and step.grade is None else "Answer",
        after_thought(step) or "nothing",
    )


def flags_of(step: Step) -> list[str]:
    """What is out of the ordinary about a step, in words."""
    given = "answered with the thought of an earlier call" if step.thought else "answered without a thought"
    passages = "1 passage" if step.cut_passages == 1 else f"{step.cut_passages} passages"
    confidence = step.confidence
    votes = f"one of several votes, which agree with what they decided by {confidence or 0:.0%}"
    compares = (
        f"compares the thoughts of {len(step.judged)} steps before; the chosen one leads by {confidence or 0:.0%}"
    )
    flags = (
        (step.repaired, "the answer could not be used as it stood and was repaired"),
        (step.thought_closed, of_one(step.closed_at)),
        (step.thought_given, given),
        (step.cut_passages, f"{passages} cut to fit the prompt"),
        (step.cut_query, "the query was cut"),
        (confidence is not None, compares if step.judged else votes),
        (step.passed_over, "another vote's thought was chosen"),
    )
    return [flag for holds, flag in flags if holds]


def outcome_of(step: Step, position: int, asks: str | None) -> str:
    """What became of a candidate that a prompt held."""
    if len(step.outcome) == len(step.shown) > 1:
        return f"{step.outcome.index(position) + 1}."
    if step.grade is not None:
        return f"grade {step.grade:.1f}" + ("" if step.score is None else f", {step.score:.1f} by all votes")
    if step.score is not None:
        return f"log-likelihood {step.score:.3f}"
    if position in step.outcome and asks in ("worst", "best"):
        return "excluded" if asks == "worst" else "best"
    return "excluded before" if position in step.marked else ""


def _print_rows(console: Console, rows: Sequence[tuple[str, ...]], styles: Sequence[str] = ()) -> None:
    """Prints rows in columns, each on one line with as much of its last cell as fits; empty columns are left out."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    columns = [column for cells in zip(*rows, strict=True) if any(column := [one_line(cell) for cell in cells])]
    widths = [max(map(cell_len, column)) for column in columns[:-1]]
    room = max(_LEAST_TEXT, console.width - 2 - sum(width + 2 for width in widths))
    for number, (*cells, text) in enumerate(zip(*columns, strict=True)):
        shown = Text(text)
        shown.truncate(room, overflow="ellipsis")
        line = "  ".join(["", *map(set_cell_size, cells, widths), shown.plain]).rstrip()
        console.print(Text(line, styles[number] if styles else ""), no_wrap=True, overflow="ignore", crop=False)


def summary_of(traced: TracedRanking) -> str:
    """Strategy, size and costs of a ranking."""
    ranking, usage = traced.ranking, traced.ranking.usage
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


def after_thought(step: Step) -> str:
    """What the model wrote behind its thought."""
    _, closed, answer = step.text.rpartition("</think>")
    return (answer if closed else step.text.replace(step.thought, "", 1) if step.thought else step.text).strip()


def _print_indented(console: Console, label: str, text: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    _print(console, (f"  {label}", "bold"))
    shown = visible("\n".join(text.strip().splitlines())).expandtabs(4)
    console.print(Padding(Text(shown), (0, 0, 0, 4)))


def _print(console: Console, *parts: str | tuple[str, str]) -> None:
    from rich.text import Text

    # A Text, since rich takes square brackets in a str for markup.
    console.print(Text.assemble(*parts))


def one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    return visible(" ".join(text.split()))
