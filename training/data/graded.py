"""Integer grades: what each candidate of a list is worth by itself, and a question about each of them.

A sample of a strategy that grades holds a whole list, whose gains are grades. Rewards need the list, and each prompt
shows one candidate of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from r1ranker_ir.prompts.template import GRADES
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.grades import HIGHEST

from .records import Sample, sample_strategies, shown_of

MORE_COLUMNS = ("graded", "list")
"""What rows of questions have besides those of a sample file."""


def grades_of(gains: Sequence[float], full: float | None = None) -> tuple[float, ...]:
    """Whole grades in proportion to gains: `full`, by default the greatest gain, is worth 10.

    A gain above 0 is worth at least 1, so that a grade of 0 always means that there is none.
    """
    most = max(gains, default=0.0) if full is None else full
    return tuple(float(max(1, round(HIGHEST * min(1.0, gain / most)))) if gain > 0 else 0.0 for gain in gains)


def graded(sample: Sample, full: float | None = None) -> Sample:
    """A list with grades in place of its gains."""
    return replace(sample, record=replace(sample.record, gains=grades_of(sample.record.gains, full)))


def questions_of(sample: Sample) -> tuple[Sample, ...]:
    """The questions that a sample is made of: itself, or one about each candidate of a list to be graded."""
    if sample.asks != "grade":
        return (sample,)
    return tuple(replace(sample, record=shown_of(sample.record, (place,))) for place in range(len(sample.record.gains)))


def grade_name(grade: float) -> str:
    """How a grade is answered; what lies between two grades is rounded."""
    return GRADES[min(HIGHEST, max(0, round(grade)))]


def rows_of_questions(rows: Any) -> Any:
    """Makes a row of each question of a sample file's rows.

    A row about one candidate shows that one alone; its `gains` are the whole list's, `graded` is the candidate's place
    in it, and `list` a number that the rows of a list share. Where no strategy grades, nothing changes.
    """
    from datasets import Features, Value

    grading = {name for name in sample_strategies() if STRATEGIES[name].asks == "grade"}
    if grading.isdisjoint(rows["strategy"]):
        return rows

    def one_each(several: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        made: dict[str, list[Any]] = {name: [] for name in (*several, *MORE_COLUMNS)}
        for at, number in enumerate(numbers):
            row = {name: column[at] for name, column in several.items()}
            for place in range(len(row["gains"])) if row["strategy"] in grading else (None,):
                shown = {} if place is None else {name: [row[name][place]] for name in ("candidate_ids", "candidates")}
                for name, value in {**row, **shown, "graded": place, "list": number}.items():
                    made[name].append(value)
        return made

    features = Features({**rows.features, **dict.fromkeys(MORE_COLUMNS, Value("int64"))})
    fingerprint = f"{rows._fingerprint[:24]}-questions"
    options = {"batched": True, "batch_size": 100, "with_indices": True, "load_from_cache_file": False}
    return rows.map(one_each, features=features, new_fingerprint=fingerprint, **options)


def due_of(row: Mapping[str, Any]) -> float | None:
    """The grade that the candidate of such a row is worth; `None` for rows that compare candidates."""
    graded = row.get("graded")
    return None if graded is None else float(row["gains"][graded])
