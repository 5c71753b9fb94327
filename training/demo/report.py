"""What the training demo shows at its end: measures of all its models, and one step as two of them take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.training.data.prompting import sample_of
from r1ranker_ir.training.data.sample_files import read_samples
from r1ranker_ir.training.jobs.comparison import TrainedRun
from r1ranker_ir.types import Ranking, Step

if TYPE_CHECKING:
    from rich.console import Console

# Lists that an example is sought in, and how many candidates are easy to survey.
_LISTS, _EASY_LENGTH = 24, 3
_LETTERS = 130
_ACCURACY = "accuracy@"

_CAVEAT = """\
GRPO takes away a habit that SFT has put in: this shows the method at work. The embedded model matches words, not
meaning, and its figures say nothing about larger models."""
_LEGEND = """\
A line of the thought names a candidate, then each word of the query with + if the candidate has it (+ + for a rare
word) and - if not, how many + that makes (=3), and how early the first word stands (@1 is earliest, @9 nowhere).
Behind the semicolon stands the worst candidate so far: on the last line the one that the thought leads to."""


@dataclass(frozen=True)
class StepPair:
    """One step of an elimination as two models take it, the same candidates shown."""

    record: JudgedRequest
    before: Step
    after: Step

    def spares_best(self, step: Step) -> bool:
        """Whether a step excludes none of the best-judged candidates shown."""
        gains = [self.record.gains[place] for place in step.shown]
        return self.record.gains[step.outcome[0]] < max(gains)

    @property
    def clearness(self) -> tuple[bool, bool, bool, int]:
        """How well the pair shows what has been learned; the greatest is the best example.

        Whether a wrong exclusion has become a right one, whether it went by position, whether the thought has stayed
        the same, and how far the list is from an easy length.
        """
        learned = self.spares_best(self.after) and not self.spares_best(self.before)
        by_position = self.before.outcome[0] == self.before.shown[-1]
        same_thought = self.before.thought.split() == self.after.thought.split()
        return learned, by_position, same_thought, -abs(len(self.before.shown) - _EASY_LENGTH)


def print_measures(console: Console, weak: TrainedRun, trained: TrainedRun) -> None:
    """Prints held-out measures of the embedded model, the weak start and the trained ranker."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("held out", no_wrap=True)
    for heading in ("embedded model", "weak start", "after GRPO", "over the start", "over the embedded"):
        table.add_column(heading, justify="right")
    for name, words in _shown_measures(trained).items():
        embedded, before, after = weak.before.get(name), trained.before.get(name), trained.after.get(name)
        cells = ("–" if value is None else f"{value:.4f}" for value in (embedded, before, after))
        table.add_row(words, *cells, _gain(before, after), _gain(embedded, after))
    console.print(table)
    for name, run in (("SFT", weak), ("GRPO", trained)):
        tokens = "" if run.generated_tokens is None else f", {run.generated_tokens} tokens generated"
        print_line(console, f"{name}: {run.seconds or 0:.0f} seconds{tokens}")
    print_line(console, f"\n{_CAVEAT}\n")


def gains_line(weak: TrainedRun, trained: TrainedRun) -> str:
    """Says what the whole demo has gained on held-out queries."""
    name, words = next(iter(_shown_measures(trained).items()))
    embedded, before, after = weak.before.get(name), trained.before.get(name), trained.after.get(name)
    shown = " to ".join("–" if value is None else f"{value:.4f}" for value in (before, after))
    return (
        f"{words} on held-out queries: {shown}, {_gain(before, after)} over the start that was weakened on purpose, "
        f"and {_gain(embedded, after)} over the embedded model that all began with"
    )


def _gain(before: float | None, after: float | None) -> str:
    return f"{100 * (after - before) / before:+.1f}%" if before and after is not None else "–"


def _shown_measures(run: TrainedRun) -> dict[str, str]:
    """The names of measures with what they are called in the table."""
    lengths = sorted(int(name.removeprefix(_ACCURACY)) for name in run.after if name.startswith(_ACCURACY))
    accuracies = {f"{_ACCURACY}{length}": f"right exclusions of {length} candidates" for length in lengths}
    return {"RR": "MRR", "nDCG@10": "nDCG@10"} | accuracies


def find_example(held_out: str | Path, before: str | Path, after: str | Path) -> StepPair:
    """Looks for a step that two models take differently, the first one wrongly and by position."""
    from r1ranker_ir.rankers.ranker import Ranker

    rows = read_samples([held_out])
    records = [sample_of(row).record for row in rows.select(range(min(len(rows), _LISTS)))]
    requests = [record.request for record in records]
    first, second = (
        Ranker(folder, strategy="iterative", max_repair_rate=1.0).rank(requests) for folder in (before, after)
    )
    return max(_step_pairs(records, first, second), key=lambda pair: pair.clearness)


def _step_pairs(
    records: Sequence[JudgedRequest], first: Sequence[Ranking], second: Sequence[Ranking]
) -> Iterator[StepPair]:
    """Yields the steps in which both models were shown the same candidates, such as the first one of each list."""
    for record, one, other in zip(records, first, second, strict=True):
        answers = {step.shown: step for step in other.steps}
        for step in one.steps:
            if step.shown in answers:
                yield StepPair(record, step, answers[step.shown])


def print_example(console: Console, pair: StepPair) -> None:
    """Prints the candidates, then each model's thought and answer."""
    console.rule("one step of an elimination, before and after")
    record = pair.record
    print_line(console, f"Query: {record.request.query}\n")
    best = max(record.gains[place] for place in pair.before.shown)
    for number, place in enumerate(pair.before.shown, start=1):
        text = " ".join(record.request.candidates[place].text.split())
        text = text if len(text) <= _LETTERS else text[: _LETTERS - 1].rstrip() + "…"
        print_line(console, f"  [{number}] {text}{' (relevant)' if record.gains[place] == best else ''}")
    print_line(console, f"\n{_LEGEND}")
    for name, step in (("weak start", pair.before), ("after GRPO", pair.after)):
        print_line(console, f"\n{name}:")
        for line in step.thought.strip().splitlines():
            print_line(console, f"    {line}")
        print_line(console, f"  excludes [{step.shown.index(step.outcome[0]) + 1}]: {_verdict(pair, step)}")


def _verdict(pair: StepPair, step: Step) -> str:
    gains = {pair.record.gains[place] for place in step.shown}
    verdict = "right" if pair.spares_best(step) or len(gains) == 1 else "wrong, it is relevant"
    if step.repaired:
        return f"{verdict} (the answer was repaired)"
    last = step.outcome[0] == step.shown[-1]
    return f"{verdict}, and the last one shown" if last and verdict != "right" else verdict


def print_line(console: Console, line: str) -> None:
    """Prints text as it is: no markup in its square brackets, and no line breaks put into commands."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
