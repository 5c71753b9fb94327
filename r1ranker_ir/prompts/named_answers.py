"""Reading answers that name candidates in words: by a label such as `passage 3`, a name, or a whole text."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from .answers import Form, Reading, answer_text

_LIST_NUMBER = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+")
_AROUND = " \t\"'`“”‘’«»[](){}<>.,;:!?*_"
_ORDER_MARK = re.compile(r"\s+>\s+")
# An answer that begins like one name alone counts from this many characters.
_SHORTEST_PART = 3
_CLOSE = 0.9
# What the published reading compares letter by letter; beyond, a text is answered exactly or in part.
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
        """The one name that stands in a sentence, that a part is said of, or that is nearly said."""
        sentence = _plain(said)
        if not sentence:
            return None
        if len(sentence) >= _SHORTEST_PART:
            begun = [index for index, name in enumerate(self.plain) if name.startswith(sentence)]
            if begun:
                return begun[0] if len(begun) == 1 else None
        spans = [
            (match.start(), match.end(), index)
            for index, name in enumerate(self.plain)
            if name
            for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", sentence)
        ]
        # A name inside a longer one, such as "Heat" in "Heat 2", is not what was said.
        outer = {
            index
            for start, end, index in spans
            if not any(other[0] <= start and end <= other[1] and other[1] - other[0] > end - start for other in spans)
        }
        if outer:
            return outer.pop() if len(outer) == 1 else None
        close = [index for index, name in enumerate(self.plain) if _nearly(sentence, name)]
        return close[0] if len(close) == 1 else None


def _nearly(said: str, name: str) -> bool:
    if not name or max(len(said), len(name)) > _LONGEST_COMPARED or _digits(said) != _digits(name):
        return False
    matcher = SequenceMatcher(None, said, name, autojunk=False)
    return matcher.real_quick_ratio() >= _CLOSE and matcher.quick_ratio() >= _CLOSE and matcher.ratio() >= _CLOSE


def _digits(text: str) -> list[str]:
    """Numbers tell names apart however alike they are otherwise: a sequel, a year, a size."""
    return re.findall(r"\d+", text)


def read_named(output: str, names: Sequence[str], form: Form) -> Reading:
    """Reads which of the names an output answers with: one, or all in order, a line each or with `>` between.

    It is clean if the answer is a name and nothing else, but for case, marks and white space around it, or if it is all
    names in order, each once. A name in a sentence, a part of one name alone, or a name with a slip of the pen is
    taken, and is not clean; what fits several names does not count.
    """
    text = answer_text(output)
    if text is None:
        return Reading((), False)
    known = _Names(names)
    if form == "order":
        return _read_order(text, known)
    exact = known.equal(text)
    if exact is not None:
        return Reading((exact,), True)
    for said in (*_lines(text)[:1], text):
        found = known.equal(said)
        found = known.within(said) if found is None else found
        if found is not None:
            return Reading((found,), False)
    return Reading((), False)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _read_order(text: str, known: _Names) -> Reading:
    lines = _lines(text)
    if len(lines) == 1 and len(known.names) > 1 and known.equal(lines[0]) is None:
        lines = [part for part in _ORDER_MARK.split(lines[0]) if part.strip()]
    found: list[int] = []
    clean = True
    for line in lines:
        index = known.equal(line)
        if index is None:
            index, clean = known.within(line), False
        if index is None or index in found:
            clean = False
            continue
        found.append(index)
    return Reading(tuple(found), clean and len(found) == len(known.names))


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
