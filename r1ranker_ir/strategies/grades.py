"""What a candidate that is shown alone was given."""

from __future__ import annotations

from r1ranker_ir.prompts.answers import read_number
from r1ranker_ir.prompts.prompt import GRADES
from r1ranker_ir.types import Answer

HIGHEST = len(GRADES) - 1
MIDDLE = HIGHEST / 2
"""The grade of a candidate whose answer can't be read."""


def grade_of(answer: Answer) -> tuple[float, bool]:
    """Reads a grade.

    Args:
        answer: to a call of `Prompt.grade_one`.

    Returns:
        The expected grade where the answer has probabilities, else the whole number that was answered; and whether
        there was none in range, so that it is the middle one.
    """
    if answer.probabilities is not None:
        return sum(chance * GRADES.index(name) for name, chance in answer.probabilities.items()), False
    if answer.choice is not None:
        return float(GRADES.index(answer.choice[0])), False
    number, clean = read_number(answer.text)
    if number is None or number > HIGHEST:
        return MIDDLE, True
    return float(number), not clean
