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

# A yes is as good as a grade can be; its probability decides between two of them.
_VALUES = {name: float(grade) for grade, name in enumerate(GRADES)}
_VALUES |= dict(zip(YES_OR_NO, (0.0, float(HIGHEST)), strict=True))
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def grade_of(answer: Answer, answers: Sequence[str] = GRADES) -> tuple[float, bool]:
    """Reads a grade.

    Args:
        answer: to a call of `Prompt.grade_one`.
        answers: the call's identifiers: grades, or yes and no.

    Returns:
        The expected grade where the answer has probabilities, else the whole number that was answered; and whether
        there was none in range, so that it is the middle one.
    """
    if answer.probabilities is not None:
        return sum(chance * _VALUES[name] for name, chance in answer.probabilities.items()), False
    if answer.choice is not None:
        return _VALUES[answer.choice[0]], False
    if answers == YES_OR_NO:
        said = _YES_OR_NO.findall(answer_text(answer.text) or "")
        return (_VALUES[said[0].lower()], len(said) > 1) if said else (MIDDLE, True)
    number, clean = read_number(answer.text)
    if number is None or number > HIGHEST:
        return MIDDLE, True
    return float(number), not clean
