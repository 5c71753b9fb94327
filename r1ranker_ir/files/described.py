"""What messages say of values that may hold a secret: of what kind they are, not what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|cookie|private|signature|_dsn", re.IGNORECASE)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 4
# Keys are longer.
_LONGEST_WORD = 12


def described(value: Any, *, shows_words: bool = False) -> str:
    """Says what a value is, without its content; numbers, truth values and `None` as they are.

    With `shows_words`, for fields where a key has no place, such as a price, a short text is shown too.
    """
    if shows_words and isinstance(value, str) and len(value) <= _LONGEST_WORD:
        return repr(value)
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        return "a text" if value.strip() else "a blank text"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple | set):
        return "a list"
    return f"a {type(value).__name__}"


def without_secrets(text: str, *structures: Any) -> str:
    """Writes `***` for each secret in a text of another library, and for what stands before the host of an address.

    Secrets are what stands under a name such as `api_key` in the structures that the library was given.
    """
    for secret in sorted(set(_secrets_in(structures)), key=len, reverse=True):
        for written in dict.fromkeys((secret, repr(secret)[1:-1])):
            text = text.replace(written, "***")
    return _URL_CREDENTIALS.sub("***@", text)


def _secrets_in(value: Any, *, named: bool = False) -> Iterator[str]:
    if isinstance(value, str) and named and len(value) >= _SHORTEST_SECRET:
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets_in(inner, named=named or bool(_SECRET_NAME.search(str(name))))
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _secrets_in(inner, named=named)
