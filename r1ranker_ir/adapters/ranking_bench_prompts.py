"""The prompts of Ranking-bench's rows, parted at their candidates, so that these can be listed anew."""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1ranker_ir.types import GivenPrompt

_LIST_LINE = re.compile(r"^\[(.*)\][.\s]*$", re.MULTILINE)


def given_prompt(problem: str, names: Sequence[str], texts: Sequence[str]) -> GivenPrompt | None:
    """Parts a row's prompt at its list of candidates; `None` where it has none of the known forms."""
    for span in (_labelled(problem, names, texts), _printed(problem, texts), _numbered(problem, texts)):
        if span is not None:
            start, end = span
            return GivenPrompt(problem[:start], problem[start:end], problem[end:])
    return None


def _labelled(problem: str, names: Sequence[str], texts: Sequence[str]) -> tuple[int, int] | None:
    lines = "\n".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
    start = problem.rfind(lines)
    return None if start < 0 else (start, start + len(lines))


def _printed(problem: str, texts: Sequence[str]) -> tuple[int, int] | None:
    """As Python prints a list."""
    printed = repr(list(texts))
    start = problem.rfind(printed)
    return None if start < 0 else (start + 1, start + len(printed) - 1)


def _numbered(problem: str, texts: Sequence[str]) -> tuple[int, int] | None:
    """As a line of `'3. text'` between brackets, whatever the numbers."""
    pattern = ", ".join(rf"'\d+\. {re.escape(text)}'" for text in texts)
    lines = [line for line in _LIST_LINE.finditer(problem) if re.fullmatch(pattern, line[1])]
    return lines[-1].span(1) if lines else None
