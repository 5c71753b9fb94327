"""Reading answers that name candidates in words: by a label such as `passage 3`, a name, or a whole text."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from .answers import Form, Reading, answer_text

_LIST_NUMBER = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+")
_AROUND = " \t\"'`“”‘’«»[](){}<>.,;:!?*_"
_ORDER_MARK = re.compile(r"\s+>\s+")
# An answer that begins like one name alone counts from this many characters.
_SHORTEST_PART = 3
# What is compared letter by letter; beyond, a text is answered exactly or in part.
_LONGEST_COMPARED = 400
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_LAST_CHARACTERS = 40


def _plain(text: str) -> str:
    """A text without what does not tell names apart: case, entities, compatible forms, marks around it, white space."""
    unescaped = unicodedata.normalize("NFKC", html.unescape(text)).casefold()
    return " ".join(unescaped.split()).strip(_AROUND)


class _Names:
    """The names that can be answered, and their plain forms."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.plain = [_plain(name) for name in names]

    def equal(self, said: str) -> int | None:
        """The one name that is said and nothing else: as it is, or else in its plain form."""
        for forms, form in ((self.names, " ".join(said.split())), (self.plain, _plain(said))):
            found = [index for index, name in enumerate(forms) if name == form]
            if len(found) == 1 and form:
                return found[0]
        # Some put a number in front, such as that of a list; a name may begin with one.
        shorter = _LIST_NUMBER.sub("", said)
        return self.equal(shorter) if shorter != said else None

    def within(self, said: str) -> int | None:
        """The one name that a part is said of, that stands in a sentence, or that is nearly said."""
        sentence = _plain(said)
        found: list[int] = []
        if len(sentence) >= _SHORTEST_PART:
            found = [index for index, name in enumerate(self.plain) if name.startswith(sentence)]
        if sentence and not found:
            rest = sentence
            for index in sorted(range(len(self.plain)), key=lambda index: -len(self.plain[index])):
                # A name inside a longer one, such as "Heat" in "Heat 2", is not what was said.
                rest, times = re.subn(rf"(?<!\w){re.escape(self.plain[index] or '<')}(?!\w)", "\n", rest)
                found += [index] * bool(times)
        if not found and 0 < len(sentence) <= _LONGEST_COMPARED:
            # Numbers tell names apart however alike they are otherwise: a sequel, a year, a size.
            alike = [name for name in self.plain if re.findall(r"\d+", name) == re.findall(r"\d+", sentence)]
            found = [self.plain.index(name) for name in get_close_matches(sentence, alike, 2, 0.9)]
        return found[0] if len(found) == 1 else None


def read_named(output: str, names: Sequence[str], form: Form) -> Reading:
    """Reads which of the names an output answers with: one, or all in order, a line each or with `>` between.

    It is clean if the answer is a name and nothing else, but for case, marks and white space around it, or if it is all
    names in order, each once. A name in a sentence, a part of one name alone, or a name with a slip of the pen is
    taken, and is not clean; what fits several names does not count.
    """
    text = answer_text(output)
    if text is None:
        return Reading((), False)
    known, lines = _Names(names), [line for line in text.splitlines() if line.strip()]
    if form == "one":
        if (exact := known.equal(text)) is not None:
            return Reading((exact,), True)
        tries = (find(said) for said in (*lines[:1], text) for find in (known.equal, known.within))
        first = next((index for index in tries if index is not None), None)
        return Reading(() if first is None else (first,), False)
    if len(lines) == 1 and len(names) > 1 and known.equal(lines[0]) is None:
        lines = [part for part in _ORDER_MARK.split(lines[0]) if part.strip()]
    exactly = [known.equal(line) for line in lines]
    read = [known.within(line) if index is None else index for index, line in zip(exactly, lines, strict=True)]
    found = tuple(dict.fromkeys(index for index in read if index is not None))
    return Reading(found, len(found) == len(lines) == len(names) and None not in exactly)


def read_iranker(output: str, names: Sequence[str], form: Form) -> Reading:
    """IRanker (arXiv 2506.21638): the last answer, or the output's last 40 characters where there is none.

    A name counts that is said exactly, else the first one that holds what is said, is held by it, or shares nine tenths
    of its letters in their order. Where none does, the published system takes the most similar by TF-IDF; here nothing
    is read then.
    """
    answers = _ANSWER.findall(output)
    said = answers[-1].strip() if answers else output.strip()[-_LAST_CHARACTERS:]
    lines = [line.strip() for line in said.splitlines()] if form == "order" else said.strip().splitlines()[:1]
    found: list[int] = []
    exact = True
    for line in lines:
        name = line.strip()
        if name in names:
            index: int | None = names.index(name)
        else:
            index, exact = next(_alike(name, names, found), None), exact and not name
        if index is not None and index not in found:
            found.append(index)
    wanted = 1 if form == "one" else len(names)
    return Reading(tuple(found), bool(answers) and exact and len(found) == wanted)


def _alike(said: str, names: Sequence[str], taken: Sequence[int]) -> Iterator[int]:
    place = said.find(". ")
    said = said[place + 2 :].strip() if said[: max(place, 0)].isdigit() else said
    for index, name in enumerate(names):
        shown = html.unescape(name.strip())
        if said and index not in taken and (shown in said or said in shown or _shares_letters(said, shown)):
            yield index


def _shares_letters(said: str, name: str) -> bool:
    """Whether the longest common subsequence is longer than nine tenths of the name."""
    needed = 0.9 * len(name)
    if len(said) <= needed or max(len(said), len(name)) > _LONGEST_COMPARED:
        return False
    row = [0] * (len(name) + 1)
    for letter in said:
        before = 0
        for place, other in enumerate(name, start=1):
            before, row[place] = row[place], before + 1 if letter == other else max(row[place], row[place - 1])
    return row[-1] > needed
