"""Reading answers as the published systems do, for comparisons with their figures: see `Prompt.read`.

Nothing is lost in any of them: what an answer lacks is appended in input order, and whatever had to be dropped,
appended or guessed makes the reading unclean, which counts as a repair.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from r1ranker_ir.errors import InputError

from .answers import Reading
from .timed_patterns import TimedPattern, checked_pattern

_THOUGHT_END = "</think>"
# What rank_llm takes for digits besides the ten.
_OTHER_DIGITS = str.maketrans(
    "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉０１２３４５６７８９🄀🄁🄂🄃🄄🄅🄆🄇🄈🄉①②③④⑤⑥⑦⑧⑨❶❷❸❹❺❻❼❽❾",
    "0123456789" * 4 + "123456789" * 2,
)
_LONGEST_NUMBER = 6


def checked_answer_pattern(pattern: str) -> str:
    """A template file's pattern whose first group is the answer."""
    if re.compile(checked_pattern(pattern)).groups < 1:
        raise InputError("put the part that answers into a group, such as <answer>(.*?)</answer>")
    return pattern


def answer_pattern(pattern: str, where: str) -> TimedPattern:
    """Such a pattern to be matched; a dot stands for a line break too."""
    return TimedPattern(pattern, where, re.DOTALL)


def _reading(numbers: Iterable[int], count: int, *, clean: bool = True) -> Reading:
    """Drops what comes twice or is out of range."""
    found = list(numbers)
    kept = tuple(number - 1 for number in dict.fromkeys(found) if 1 <= number <= count)
    return Reading(kept, clean and len(kept) == len(found) == count)


def _digit_runs(text: str) -> list[int] | None:
    """The numbers that all digits of a text spell; `None` where one is not a number, such as a stray superscript."""
    runs = "".join(letter if letter.isdigit() else " " for letter in text).split()
    try:
        # A number that long names nothing, and int() refuses enormous ones.
        return [int(run) if len(run) <= _LONGEST_NUMBER else 0 for run in runs]
    except ValueError:
        return None


def _answered(output: str, pattern: TimedPattern) -> str | None:
    """What the first group of a template file's expression finds in the lower-cased output."""
    found = pattern.search(output.lower())
    return None if found is None else found[1]


def read_rank_r1(output: str, identifiers: Sequence[str], pattern: TimedPattern) -> Reading:
    """Rank-R1 (arXiv 2503.06034): what the expression finds must be an identifier."""
    answer = (_answered(output, pattern) or "").strip()
    return Reading((identifiers.index(answer),), True) if answer in identifiers else Reading((), False)


def read_rank_r1_order(output: str, count: int, pattern: TimedPattern) -> Reading:
    """Rank-R1's listwise rankers: all digits of what the expression finds."""
    answer = _answered(output, pattern)
    numbers = None if answer is None else _digit_runs(answer)
    return Reading((), False) if numbers is None else _reading(numbers, count)


def read_reasonrank(output: str, count: int, pattern: TimedPattern) -> Reading:
    """ReasonRank: all digits of what the expression finds, else of what follows the last `<answer>`, else of all.

    Where nothing was answered, the thought's numbers make up the order, as published; it is never clean then.
    """
    found = pattern.search(output.lower())
    answer = None if found is None else found[1]
    numbers = _digit_runs(output.rpartition("<answer>")[2] if answer is None else answer)
    return Reading((), False) if numbers is None else _reading(numbers, count, clean=found is not None)


def read_rankgpt(
    output: str, count: int, *, letters: bool = False, valid: re.Pattern[str] | TimedPattern | None = None
) -> Reading:
    """RankGPT (arXiv 2304.09542) as rank_llm has it: all digits, or letters, of what follows the thought.

    Neighbouring letters are read as one number, as published. `valid` is what a well-formed answer looks like as a
    whole; without it, any form that names all candidates once is clean.
    """
    answer = output.rpartition(_THOUGHT_END)[2].strip()
    text = answer.translate(_OTHER_DIGITS)
    if letters:
        text = "".join(str(ord(letter) - ord("A") + 1) if letter.isalpha() else " " for letter in text)
    numbers = _digit_runs(text)
    if numbers is None:
        return Reading((), False)
    return _reading(numbers, count, clean=valid is None or valid.fullmatch(answer) is not None)
