"""Reading identifiers from free text, for backends that can't constrain the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Form = Literal["one", "order"]
"""Whether one identifier is asked for, or all in order."""

_ANSWER_BLOCK = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"</think>", re.IGNORECASE)
_BRACKETED = re.compile(r"\[\s*(\d+)\s*\]")
_NUMBER = re.compile(r"\d+")


@lru_cache(maxsize=256)
def identifiers(count: int) -> tuple[str, ...]:
    """The identifiers of a prompt with that many candidates: `[1]`, `[2]`, …"""
    return tuple(f"[{number}]" for number in range(1, count + 1))


def answer_text(output: str) -> str | None:
    """What stands in the last answer block; without one, what follows the thought.

    `None` where the thought never ended, because a number in a thought is not an answer.
    """
    parts = _THOUGHT_END.split(output)
    after = parts[-1]
    blocks = _ANSWER_BLOCK.findall(after) or (_ANSWER_BLOCK.findall(output) if len(parts) == 1 else [])
    if blocks:
        return str(blocks[-1])
    if len(parts) > 1:
        return after
    return None if "<think>" in output.lower() else output


@dataclass(frozen=True)
class Reading:
    """The 0-based indices of the identifiers answered, each once and in range, and whether the answer was just that."""

    indices: tuple[int, ...]
    clean: bool


def read_answer(output: str, count: int, form: Form) -> Reading:
    """Reads identifiers; bracketed ones are preferred, bare numbers are taken otherwise."""
    text = answer_text(output)
    if text is None:
        return Reading((), False)
    numbers = _BRACKETED.findall(text) or _NUMBER.findall(text)
    # A number of more than a few digits is never an identifier, and int() refuses enormous ones.
    found = [int(number) - 1 if len(number) <= 6 else -1 for number in numbers]
    valid = tuple(index for index in dict.fromkeys(found) if 0 <= index < count)
    wanted = 1 if form == "one" else count
    return Reading(valid[:wanted], len(found) == len(valid) == wanted)


def read_number(output: str) -> tuple[int | None, bool]:
    """Reads the one whole number that an output answers with, if any, and whether it was the only one."""
    text = answer_text(output) or ""
    numbers = _BRACKETED.findall(text) or _NUMBER.findall(text)
    if not numbers or len(numbers[0]) > 6:
        return None, False
    return int(numbers[0]), len(numbers) == 1


def complete_order(indices: Sequence[int], count: int) -> tuple[int, ...]:
    """Appends what an order lacks, in input order."""
    present = set(indices)
    return (*indices, *(index for index in range(count) if index not in present))
