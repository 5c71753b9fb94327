"""The marks that a chat template writes around turns, found in conversations that it has rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# In a template's own source: <|im_start|>, [/INST]. What it puts together while it runs is found in what it renders.
_IN_SOURCE = re.compile(r"<[^<>\s{}'\"]{1,64}>|\[/?[A-Z][A-Z_]+\]")
_BRACKETED = re.compile(
    r"<{1,3}[^<>\n]{1,80}>{1,3}|\[{1,2}[^\[\]\n]{1,80}\]{1,2}|\{{1,2}[^{}\n]{1,80}\}{1,2}|«[^»\n]{1,80}»|【[^】\n]{1,80}】"
)
_PROTOCOL_TAG = re.compile(r"</?(?:think|answer)>")
_WORDS = re.compile(r"[^\W_]+(?:[-'’.,&/+ ]+[^\W_]+)*")
_SENTENCE_END = ".!?,;…。"
_RULER = frozenset(".-_*=~—–…·")
# A label is a few words: "### Human:", "GPT4 Correct User:". A longer line is an instruction.
_LABEL_CHARACTERS, _LABEL_WORDS, _SEPARATOR_CHARACTERS = 40, 5, 3


def marks_in_source(templates: Iterable[str]) -> set[str]:
    """Finds the marks that stand in templates as they are."""
    return {mark for template in templates for mark in _IN_SOURCE.findall(template)}


def marks_in_rendered(rendered: str, texts: Sequence[str]) -> set[str]:
    """Finds the marks that a template has written around texts."""
    places = sorted((start, start + len(text)) for text in texts if (start := rendered.find(text)) >= 0)
    if not places:
        return set()
    ends = [0, *(end for _, end in places)]
    starts = [*(start for start, _ in places), len(rendered)]
    marks: set[str] = set()
    for number, (end, start) in enumerate(zip(ends, starts, strict=True)):
        lines = rendered[end:start].split("\n")
        for line in lines:
            marks.update(_BRACKETED.findall(line))
        # What stands before the first turn may be a whole system message; a label there is right before the text.
        labelled = lines[-1:] if number == 0 else lines
        for line in labelled:
            for piece in _BRACKETED.sub("\n", line).split("\n"):
                marks.update(_labels(" ".join(piece.split())))
    return {mark for mark in marks if not _PROTOCOL_TAG.fullmatch(mark) and not mark.isspace()}


def _labels(piece: str) -> list[str]:
    """The words of a line between two texts that name a turn."""
    if not piece or _WORDS.fullmatch(piece):
        return []
    if not any(character.isalnum() for character in piece):
        ruler = len(piece) < _SEPARATOR_CHARACTERS or _RULER.issuperset(piece)
        return [] if ruler else [piece]
    if len(piece) > _LABEL_CHARACTERS or len(piece.split()) > _LABEL_WORDS:
        # An instruction, with the label of the text beside it at its beginning or end.
        ends = {piece.split()[0], piece.split()[-1]}
        return [word for word in sorted(ends) if any(map(str.isalnum, word)) and _is_label(word)]
    return [piece] if _is_label(piece) else []


def _is_label(piece: str) -> bool:
    if _WORDS.fullmatch(piece) or _WORDS.fullmatch(piece.rstrip(_SENTENCE_END)) or piece[-1] in _SENTENCE_END:
        return False
    # "Today Date: 26 Jul 2024" is a sentence's part; "Role:user" is not.
    return " " not in piece or not (piece[0].isalnum() and piece[-1].isalnum())
