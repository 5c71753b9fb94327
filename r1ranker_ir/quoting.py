"""Values of users as error messages show them: short, whatever they hold."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

SHOWN_IDS = 20
"""How many ids a message names of a longer list."""
_CHARACTERS = 200


class _Quoted(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 6
        self.maxstring = self.maxother = self.maxlong = _CHARACTERS

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out whole numbers of more than a few thousand digits.
        return super().repr_int(x, level) if x.bit_length() < 1000 else "a number of hundreds of digits"


_quoted = _Quoted()


def quoted(value: object) -> str:
    """Writes a value as `repr` does, in some 200 characters: what is long or deeply nested is left out."""
    text = _quoted.repr(value)
    if len(text) <= _CHARACTERS:
        return text
    half = _CHARACTERS // 2
    return f"{text[:half]}…{text[-half:]}"


def shown_ids(ids: Sequence[str], most: int = SHOWN_IDS) -> str:
    """The first ids of a list, and how many more there are."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def shorten_message(message: str, most: int = 4000) -> str:
    """Cuts the middle out of a message that is longer than anyone reads; its end says what to do, and stays."""
    if len(message) <= most:
        return message
    return f"{message[: most * 2 // 3]} … {message[-most // 3 :]}"
