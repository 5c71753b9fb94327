"""Text from queries and documents as plain text: nothing in it may act as a part of the prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_PROTOCOL_TAG = re.compile(r"<\s*(/?)\s*(think|answer)\s*>", re.IGNORECASE)
_IDENTIFIER = re.compile(r"\[\s*(\d+)\s*\]")


def _is_structure(token: str) -> bool:
    """Whether a tokenizer's added token can be mistaken for structure; an ordinary word can't."""
    return bool(token.strip()) and not token.strip().isalnum()


def _break_token(token: str) -> str:
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "


class Neutraliser:
    """Turns text into one line that holds no control token, no protocol tag and no identifier.

    Args:
        control_tokens: the strings that the model's tokenizer reads as single tokens of its own; ordinary words
            among them are left alone.
    """

    def __init__(self, control_tokens: Iterable[str]) -> None:
        # Longest first: breaking a short token inside a long one would leave the rest of the long one standing.
        tokens = sorted({token for token in control_tokens if _is_structure(token)}, key=lambda token: (-len(token), token))
        self._control = re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def __call__(self, text: str) -> str:
        """Neutralises one text.

        Identifiers become `(3)`, protocol tags `(think)`, control tokens are broken by a space (a token of one
        character becomes a space), and white space, line breaks included, becomes single spaces.

        Args:
            text: any text.

        Returns:
            One line without surrounding white space; neutralising it again changes nothing.
        """
        text = text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
        compatible = unicodedata.normalize("NFKC", text)
        # A tokenizer may normalise before it looks for control tokens, so full-width disguises count as well.
        if compatible != text and self._marks(compatible) > self._marks(text):
            text = compatible
        previous = None
        while text != previous:
            previous = text
            text = _PROTOCOL_TAG.sub(r"(\1\2)", text)
            text = _IDENTIFIER.sub(r"(\1)", text)
            if self._control is not None:
                text = self._control.sub(lambda match: _break_token(match.group()), text)
            text = " ".join(text.split())
        return text

    def _marks(self, text: str) -> int:
        patterns = [_PROTOCOL_TAG, _IDENTIFIER, *([self._control] if self._control is not None else [])]
        return sum(len(pattern.findall(text)) for pattern in patterns)
