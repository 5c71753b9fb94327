"""Unicode normal forms in a time that grows no faster than the text, whatever stands in it."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

# `unicodedata` puts combining marks in order by moving each past its neighbours one by one. That takes a time that
# grows with the square of a run of marks; languages write a handful in a row.
_LONG_RUN = 32


def normalize(form: Literal["NFKC", "NFKD"], text: str) -> str:
    """Normalises a text as `unicodedata.normalize` does, which sees long runs of combining marks in order already."""
    if text.isascii():
        return text
    marks = "".join(sorted(character for character in set(text) if _is_mark(character)))
    if marks:
        text = re.sub(f"[{re.escape(marks)}]{{{_LONG_RUN},}}", _in_order, text)
    return unicodedata.normalize(form, text)


@lru_cache(maxsize=4096)
def _is_mark(character: str) -> bool:
    """Whether a character consists of combining marks alone, once it is decomposed."""
    return all(map(unicodedata.combining, unicodedata.normalize("NFKD", character)))


def _in_order(marks: re.Match[str]) -> str:
    decomposed = "".join(unicodedata.normalize("NFKD", mark) for mark in marks.group())
    return "".join(sorted(decomposed, key=unicodedata.combining))
