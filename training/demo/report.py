"""What the training demo shows at its end: held-out measures of all its models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.training.jobs.comparison import TrainedRun

if TYPE_CHECKING:
    from rich.console import Console

_ACCURACY = "accuracy@"
_CAVEAT = """\
GRPO takes away a habit that SFT has put in: this shows the method at work. The embedded model matches words, not
meaning, and its figures say nothing about larger models."""
_HEADINGS = ("held out", "embedded model", "weak start", "after GRPO", "over the start", "over the embedded")


def print_measures(console: Console, weak: TrainedRun, trained: TrainedRun) -> None:
    """Prints held-out measures of the embedded model, the weak start and the trained ranker."""
    table = Sheet("", _HEADINGS, tuple(_rows(weak, trained))).table()
    for column in table.columns[1:]:
        column.no_wrap = False  # headings take two lines on a narrow terminal
    console.print(table)
    for name, run in (("SFT", weak), ("GRPO", trained)):
        tokens = run.record.generated_tokens
        generated = "" if tokens is None else f", {tokens} tokens generated"
        print_line(console, f"{name}: {run.record.seconds or 0:.0f} seconds{generated}")
    print_line(console, f"\n{_CAVEAT}\n")


def gains_line(weak: TrainedRun, trained: TrainedRun) -> str:
    """Says what the whole demo has gained on held-out queries."""
    words, _, before, after, over_start, over_embedded = next(_rows(weak, trained))
    return (
        f"{words} on held-out queries: {before} to {after}, {over_start} over the start that was weakened on purpose, "
        f"and {over_embedded} over the embedded model that all began with"
    )


def _rows(weak: TrainedRun, trained: TrainedRun) -> Iterator[tuple[str, ...]]:
    lengths = sorted(int(name.removeprefix(_ACCURACY)) for name in trained.record.after if name.startswith(_ACCURACY))
    accuracies = {f"{_ACCURACY}{length}": f"right exclusions of {length} candidates" for length in lengths}
    for name, words in ({"RR": "MRR", "nDCG@10": "nDCG@10"} | accuracies).items():
        values = [each.get(name) for each in (weak.record.before, trained.record.before, trained.record.after)]
        cells = ("–" if value is None else f"{value:.4f}" for value in values)
        yield (words, *cells, _gain(values[1], values[2]), _gain(values[0], values[2]))


def _gain(before: float | None, after: float | None) -> str:
    return f"{100 * (after - before) / before:+.1f}%" if before and after is not None else "–"


def print_line(console: Console, line: str) -> None:
    """Prints text as it is: no markup in its square brackets, and no line breaks put into commands."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
