"""What a candidate that is shown alone was given."""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1ranker_ir.prompts.answers import answer_text, read_number
from r1ranker_ir.prompts.template import GRADES, YES_OR_NO
from r1ranker_ir.types import Answer

HIGHEST = len(GRADES) - 1
MIDDLE = HIGHEST / 2
"""The grade of a candidate whose answer can't be read."""


def value_of(name: str, answers: Sequence[str]) -> float:
    """What an answer is worth: from 0 for the first of those that may be given to the highest grade for the last."""
    return answers.index(name) * HIGHEST / (len(answers) - 1)


def grade_of(answer: Answer, answers: Sequence[str] = GRADES) -> tuple[float, bool]:
    """Reads the grade that an answer gives, the expected one where it has probabilities, and whether it was repaired.

    `answers` are the call's identifiers: numbers, or two words, whose probabilities decide between equal answers. One
    that can't be read is the middle one.
    """
    if answer.probabilities is not None:
        return sum(chance * value_of(name, answers) for name, chance in answer.probabilities.items()), False
    if answer.choice is not None:
        return value_of(answer.choice[0], answers), False
    if len(answers) == len(YES_OR_NO):
        words = re.compile(rf"\b({'|'.join(map(re.escape, answers))})\b", re.IGNORECASE)
        said = [word.lower() for word in words.findall(answer_text(answer.text) or "")]
        known = [word.lower() for word in answers]
        return (value_of(said[0], known), len(said) > 1) if said else (MIDDLE, True)
    number, clean = read_number(answer.text)
    numbers = [name.strip("[]") for name in answers]
    if str(number) not in numbers:
        return MIDDLE, True
    return value_of(str(number), numbers), not clean


def likeliest_grade(answer: Answer, answers: Sequence[str] = GRADES) -> tuple[float, bool]:
    """As `grade_of`, but with probabilities the likeliest grade times its probability: ERank's score."""
    if answer.probabilities is None:
        return grade_of(answer, answers)
    name, chance = max(answer.probabilities.items(), key=lambda item: item[1])
    return value_of(name, answers) * chance, False
