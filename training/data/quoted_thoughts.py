"""Thoughts that can be checked: per candidate the words of it that bear on the query, quoted, and a grade.

A line reads `[3] "the words" 7`. A passage that lacks the quoted words is found by reading the thought, and so is an
answer that does not follow from the grades.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .records import Sample
from .teacher import Teacher

HIGHEST = 9
"""Grades are digits, so that one token says them."""

_WORD = re.compile(r"\w+")
_SHOWN_OTHERWISE = frozenset('<>[]"')
_SHORT = 3  # letters: shorter words are mostly articles and prepositions


@dataclass(frozen=True)
class Quoting:
    """How thoughts quote and grade: words per quote, and who grades; without a teacher the gains alone do."""

    words: int = 6
    teacher: Teacher | None = None

    def grades(self, sample: Sample) -> tuple[float, ...]:
        """Grades of a sample's candidates, 0 to 9; a thought says the nearest digits, which the rest orders further.

        Those of the teacher, with the greatest gain in full; without one 9 · gain / greatest gain.
        """
        gains = sample.record.gains
        most = max(gains) or 1.0
        if self.teacher is None:
            return tuple(HIGHEST * gain / most for gain in gains)
        return self.teacher.grades(sample, HIGHEST, most)

    def thought(self, sample: Sample, grades: Sequence[float]) -> str:
        """The thought that says the grades, each behind a quote."""
        query, candidates = sample.record.request.query, sample.record.request.candidates
        quotes = [quote_of(query, candidate.text, self.words) for candidate in candidates]
        said = zip(quotes, map(round, grades), strict=True)
        return written([Remark(place, *each) for place, each in enumerate(said)])


@dataclass(frozen=True)
class Remark:
    """What a thought says of the candidate at a place, from 0."""

    place: int
    quote: str
    grade: int


def quote_of(query: str, text: str, words: int) -> str:
    """The `words` successive words of a text that name most of the query's words; the first of equals.

    Words that a prompt shows otherwise than they stand in the text are not quoted where that can be helped.
    """
    asked, parts = _stems(query), text.split()
    named = [_stems(part) & asked for part in parts]

    def worth(start: int) -> tuple[bool, float]:
        within = slice(start, start + words)
        stems = set().union(*named[within])
        return not any(_SHOWN_OTHERWISE & set(part) for part in parts[within]), sum(
            1.1 if len(stem) > _SHORT else 0.1 for stem in stems
        )

    best = max(range(max(1, len(parts) - words + 1)), key=worth)
    return "".join(each for each in " ".join(parts[best : best + words]) if each not in _SHOWN_OTHERWISE)


def written(remarks: Sequence[Remark]) -> str:
    """The thought: one line per remark."""
    return "\n".join(f'[{each.place + 1}] "{each.quote}" {each.grade}' for each in remarks)


def _stems(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower())}
