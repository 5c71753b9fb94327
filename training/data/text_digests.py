"""Texts compared without regard to case, punctuation, spaces and Unicode forms."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_WORD = re.compile(r"\w+")


def digest_of(text: str) -> bytes:
    """Digests the words of a text, so that large sets of texts fit into memory."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join(_WORD.findall(folded)) or folded.strip()
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()
