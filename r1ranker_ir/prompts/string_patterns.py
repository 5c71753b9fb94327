"""Regular expressions for large sets of strings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

# Deeper nesting than this is left to `re`'s own branches: its parser works by recursion.
_DEEPEST = 40


def any_of(strings: Iterable[str]) -> str:
    """A pattern that matches the longest of several strings, none empty, that stands at a place.

    It looks at a common beginning once: a vocabulary may hold thousands of `<unused7>`, and a text as many `<`.
    """
    return _branches(sorted(set(strings)), 0)


def _branches(strings: list[str], depth: int) -> str:
    """The same for sorted strings, of which the first may be empty."""
    if depth > _DEEPEST:
        return "|".join(re.escape(each) for each in sorted(strings, key=len, reverse=True))
    ends = strings[0] == ""
    groups = (list(group) for _, group in groupby(strings[ends:], key=lambda each: each[0]))
    branches = []
    for group in groups:
        beginning = _common_beginning(group[0], group[-1])
        rest = [each[len(beginning) :] for each in group]
        branches.append(re.escape(beginning) + ("" if rest == [""] else f"(?:{_branches(rest, depth + 1)})"))
    # The empty one comes last: the longest string that matches is tried first.
    return "|".join([*branches, *([""] if ends else [])])


def _common_beginning(first: str, second: str) -> str:
    """What two strings begin with; of the first and the last of sorted ones, what all begin with."""
    same = next((place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), None)
    return first[:same] if same is not None else min(first, second, key=len)
