"""Text from queries and documents as plain text: nothing in it may act as a part of the prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from os.path import commonprefix

from .normal_forms import normalize

# Possessive, or what looks like the beginning of a tag would have white space behind it divided in every way.
_PROTOCOL_TAG = re.compile(r"<\s*+(/?+)\s*+(think|answer)\s*+>", re.IGNORECASE)
NUMBERS = re.compile(r"\[\s*+(\d++)\s*+\]")
"""Identifiers as most prompts have them."""
# What people add to a vocabulary for its own sake: words, compounds, names. An underscore speaks for a marker.
_WORDS = re.compile(r"[^\W_]+(?:[-'’.,&/+ ]+[^\W_]+)*")
_INVISIBLE = ("Cc", "Cf")
_COLONS = ":："
# Deeper nesting than this is left to `re`'s own branches: its parser works by recursion.
_DEEPEST = 40


def _compatible(text: str) -> str:
    """What a tokenizer's normaliser may make of a text: compatible forms of its characters, and no invisible ones."""
    if text.isascii() and text.isprintable():
        return text
    invisible = "".join(sorted(character for character in set(text) if _is_invisible(character)))
    visible = re.sub(f"[{re.escape(invisible)}]+", "", text) if invisible else text
    return normalize("NFKC", visible)


@lru_cache(maxsize=4096)
def _is_invisible(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) in _INVISIBLE


def _control_strings(tokens: Iterable[str]) -> set[str]:
    """The strings to look for in text that holds single spaces only."""
    spaced = {" ".join(token.split()) for token in tokens}
    both = spaced | {" ".join(_compatible(token).split()) for token in spaced}
    return {token for token in both if token and not _WORDS.fullmatch(token)}


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
        beginning = commonprefix([group[0], group[-1]])  # noqa: RUF071  # of strings, as is meant
        rest = [each[len(beginning) :] for each in group]
        branches.append(re.escape(beginning) + ("" if rest == [""] else f"(?:{_branches(rest, depth + 1)})"))
    # The empty one comes last: the longest string that matches is tried first.
    return "|".join([*branches, *([""] if ends else [])])


def _break_token(token: str) -> str:
    # Of a label such as `ASSISTANT:` the words stay whole.
    if token[-1] in _COLONS and len(token) > 1 and not token[-2].isspace():
        return f"{token[:-1]} {token[-1]}"
    for place in range(1, len(token)):
        # Beside a space another one would vanish again when white space is collapsed.
        if not token[place - 1].isspace() and not token[place].isspace():
            return f"{token[:place]} {token[place:]}"
    return f" {token[1:]}"


def _in_round_brackets(match: re.Match[str]) -> str:
    return f"({match[match.lastindex or 0]})"


class Neutraliser:
    """Turns text into plain text that holds no control token, no protocol tag and no identifier.

    `control_tokens` are what the model's tokenizer reads as single tokens of its own, or its chat template writes;
    ordinary words among them are left alone. Of what could pass for an `identifier` the group stays, in round brackets.
    With `keep_lines` white space inside a text stays as it is; else a text becomes one line.
    """

    def __init__(
        self, control_tokens: Iterable[str], identifier: re.Pattern[str] | None = NUMBERS, *, keep_lines: bool = False
    ) -> None:
        tokens = _control_strings(control_tokens)
        pattern = any_of(tokens) if tokens else ""
        # The tokens hold single spaces only; where lines are kept, any white space may stand for one.
        self._control = re.compile(pattern.replace(r"\ ", r"\s+") if keep_lines else pattern) if tokens else None
        self._keep_lines = keep_lines
        self._identifier = identifier
        self._patterns = [each for each in (_PROTOCOL_TAG, identifier, self._control) if each is not None]

    def __call__(self, text: str) -> str:
        """Neutralises one text; doing so again changes nothing, and of a text that is not blank something is left.

        Identifiers become `(3)`, protocol tags `(think)`, control tokens are broken by a space (one of a single
        character becomes a space), and white space becomes single spaces, unless lines are kept. Disguises count as
        well: a text with full-width or invisible characters, which a tokenizer's normaliser would take away before it
        looks for control tokens, is replaced by its normalised form if that holds any of this.
        """
        given = text
        text = self._plain(text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8"))
        # What is its own compatible form is plain by now, as ordinary text is.
        while (compatible := _compatible(text)) != text and any(each.search(compatible) for each in self._patterns):
            text = self._plain(compatible)
        if text == given:
            return given  # not a second copy of it
        # A text of nothing but control tokens of one character would be gone.
        return text or ("?" if given.strip() else "")

    def _plain(self, text: str) -> str:
        """Neutralises what stands in the text undisguised."""
        text = self._spaced(text)
        previous = None
        while text != previous:
            previous = text
            text = _PROTOCOL_TAG.sub(r"(\1\2)", text)
            if self._identifier is not None:
                text = self._identifier.sub(_in_round_brackets, text)
            if self._control is not None:
                text = self._control.sub(lambda match: _break_token(match.group()), text)
            text = self._spaced(text)
        return text

    def _spaced(self, text: str) -> str:
        return text.strip() if self._keep_lines else " ".join(text.split())
