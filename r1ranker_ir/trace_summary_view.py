"""A trace's summary, printed for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from r1ranker_ir.terminal_text import visible
from r1ranker_ir.trace_summary import PlaceShare, Spread, TraceSummary

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN_PLACES = 20


def print_summary(console: Console, summary: TraceSummary) -> None:
    """Prints a summary.

    Args:
        console: where it goes.
        summary: of a trace.
    """
    for line in summary_lines(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_lines(summary: TraceSummary) -> Iterator[str]:
    """Says in lines what a trace shows.

    Args:
        summary: of a trace.

    Yields:
        Lines, with blank ones between the parts.
    """
    made = ", ".join(f"{count} {name}" for name, count in summary.strategies.items())
    yield (
        f"{summary.rankings} rankings of {summary.queries} queries ({made}), {_spread(summary.candidates)} candidates "
        f"each"
    )
    usage = summary.usage
    yield (
        f"{usage.calls} calls ({_spread(summary.calls)} per ranking), {usage.prompt_tokens:,} tokens in, "
        f"{usage.completion_tokens:,} tokens out"
    )
    for count, words in (
        (summary.ended_by_budget, "rankings ended by their budget"),
        (summary.cut_passages, "passages cut"),
        (summary.cut_queries, "calls with a cut query"),
    ):
        if count:
            yield f"{count} {words}"
    for note in (*summary.notes, *summary.signs.values()):
        # A trace may have passed through strangers' hands: a note stays one line, and what a terminal would obey is
        # shown as an escape.
        shown = visible(" ".join(note.split()))
        yield f"! {shown[:1].upper()}{shown[1:].rstrip('.')}."
    yield from _answers(summary)
    yield from _repairs(summary)
    yield from _thoughts(summary)
    yield from _agreement(summary)


def _answers(summary: TraceSummary) -> Iterator[str]:
    yield ""
    if summary.places:
        yield "Answered places in the prompt (of an order: the place of its best)"
        yield from _table(
            ("place", "answers", "share", "if named evenly"),
            [_place_row(each) for each in summary.places[:_SHOWN_PLACES]],
        )
        if len(summary.places) > _SHOWN_PLACES:
            rest = sum(each.named for each in summary.places[_SHOWN_PLACES:])
            yield f"  {rest} answers name later places, up to {len(summary.places)}"
    if summary.grades:
        total = sum(summary.grades.values())
        yield "Grades"
        yield from _table(
            ("grade", "answers", "share"),
            [(str(grade), str(count), f"{count / total:.1%}") for grade, count in summary.grades.items()],
        )
    if not summary.places and not summary.grades:
        yield "No answer names a place: nothing was asked, queries were scored, or every answer was repaired."


def _place_row(share: PlaceShare) -> tuple[str, ...]:
    return (
        f"[{share.place}]",
        f"{share.named} of {share.able}",
        f"{share.named / share.able:.1%}",
        f"{share.expected / share.able:.1%}",
    )


def _repairs(summary: TraceSummary) -> Iterator[str]:
    yield ""
    if not summary.repairs:
        yield f"Repairs: none of {summary.answers} answers"
        return
    share = summary.unread / summary.answers
    yield f"Repairs: {summary.unread} of {summary.answers} answers ({share:.1%}), which name no place above"
    yield from (f"  {count} {kind}" for kind, count in summary.repairs.items())


def _thoughts(summary: TraceSummary) -> Iterator[str]:
    yield ""
    apart = [
        f"{count} {words}"
        for count, words in (
            (summary.without_thought, "calls without a thought"),
            (summary.given_thoughts, "calls with a thought that was given or left out"),
        )
        if count
    ]
    more = f"; {', '.join(apart)}" if apart else ""
    if summary.thought_words is None:
        yield f"Thoughts: none{more}"
    else:
        yield f"Thoughts: {summary.thoughts}, of {_spread(summary.thought_words)} words{more}"
        yield from (f"  {count} {ending}" for ending, count in summary.endings.items())
    if summary.completion_tokens is not None:
        yield f"Tokens written per call: {_spread(summary.completion_tokens)}"


def _agreement(summary: TraceSummary) -> Iterator[str]:
    found = summary.agreement
    yield ""
    if found is None:
        yield "Agreement with the orders that went in: there was nothing to order"
        return
    yield (
        f"Agreement with the orders that went in: {found.unchanged} of {found.lists} unchanged "
        f"({found.unchanged / found.lists:.1%}), the first stayed first in {found.first_kept}; mean Kendall's tau "
        f"{found.tau:+.3f}, mean rank-biased overlap {found.overlap:.3f}"
    )


def _spread(spread: Spread) -> str:
    if spread.least == spread.most:
        return f"{spread.least:g}"
    return f"{spread.least:g} to {spread.most:g} (median {spread.median:g}, mean {spread.mean:.1f})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        yield "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def measures_lines(before: Mapping[str, float], after: Mapping[str, float], counted: int, judged: int) -> Iterator[str]:
    """Says what reranking has changed in measures.

    Args:
        before: measure to its mean over the orders that went in.
        after: over those that came out.
        counted: how many queries count.
        judged: how many of the corpus are judged.

    Yields:
        Lines, a blank one first.
    """
    yield ""
    yield f"Measures over {counted} of {judged} judged queries, those of the trace"
    rows = [
        (name, f"{value:.4f}", f"{after[name]:.4f}", f"{after[name] - value:+.4f}") for name, value in before.items()
    ]
    yield from _table(("measure", "before", "after", "difference"), rows)
