"""A trace's summary, printed for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.runs.trace_summary import Spread, TraceSummary

_SHOWN_PLACES = 20


def summary_lines(summary: TraceSummary) -> Iterator[str]:
    """Says in lines what a trace shows."""
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
        (summary.judgings, "calls that compared thoughts"),
        (summary.passed_over, "thoughts that were passed over"),
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
    for part in (_answers, _repairs, _thoughts, _agreement):
        yield ""
        yield from part(summary)


def _answers(summary: TraceSummary) -> Iterator[str]:
    if summary.places:
        yield "Answered places in the prompt (of an order: the place of its best)"
        rows = []
        for each in summary.places[:_SHOWN_PLACES]:
            shares = (_share(part, each.able) for part in (each.named, each.expected))
            rows.append((f"[{each.place}]", f"{each.named} of {each.able}", *shares))
        yield from _table(("place", "answers", "share", "if named evenly"), rows)
        if len(summary.places) > _SHOWN_PLACES:
            rest = sum(each.named for each in summary.places[_SHOWN_PLACES:])
            yield f"  {rest} answers name later places, up to {len(summary.places)}"
    if summary.grades:
        total = sum(summary.grades.values())
        yield "Grades"
        grades = [(str(grade), str(count), _share(count, total)) for grade, count in summary.grades.items()]
        yield from _table(("grade", "answers", "share"), grades)
    if not summary.places and not summary.grades:
        yield "No answer names a place: nothing was asked, queries were scored, or every answer was repaired."


def _share(part: float, whole: int) -> str:
    return f"{part / whole:.1%}"


def _repairs(summary: TraceSummary) -> Iterator[str]:
    if not summary.repairs:
        yield f"Repairs: none of {summary.answers} answers"
        return
    share = _share(summary.unread, summary.answers)
    yield f"Repairs: {summary.unread} of {summary.answers} answers ({share}), which name no place above"
    yield from (f"  {count} {kind}" for kind, count in summary.repairs.items())


def _thoughts(summary: TraceSummary) -> Iterator[str]:
    more = f"; {summary.without_thought} calls without a thought" if summary.without_thought else ""
    if summary.given_thoughts:
        more += f"{',' if more else ';'} {summary.given_thoughts} calls with a thought that was given or left out"
    if summary.thought_words is None:
        yield f"Thoughts: none{more}"
    else:
        yield f"Thoughts: {summary.thoughts}, of {_spread(summary.thought_words)} words{more}"
        yield from (f"  {count} {ending}" for ending, count in summary.endings.items())
    if summary.completion_tokens is not None:
        yield f"Tokens written per call: {_spread(summary.completion_tokens)}"


def _agreement(summary: TraceSummary) -> Iterator[str]:
    found = summary.agreement
    if found is None:
        yield "Agreement with the orders that went in: there was nothing to order"
        return
    yield (
        f"Agreement with the orders that went in: {found.unchanged} of {found.lists} unchanged "
        f"({_share(found.unchanged, found.lists)}), the first stayed first in {found.first_kept}; mean Kendall's tau "
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
    """Says what reranking has changed in measures."""
    yield ""
    yield f"Measures over {counted} of {judged} judged queries, those of the trace"
    rows = [
        (name, f"{value:.4f}", f"{after[name]:.4f}", f"{after[name] - value:+.4f}") for name, value in before.items()
    ]
    yield from _table(("measure", "before", "after", "difference"), rows)
