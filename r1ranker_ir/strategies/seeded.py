"""Draws that a text decides."""

from __future__ import annotations

import random


def seeded_by(text: str) -> random.Random:
    """Makes a source of random numbers from a text.

    Args:
        text: any text; half a surrogate pair, which `random.Random` refuses, is as good as any other character.

    Returns:
        The source that `random.Random(text)` is where that takes the text.
    """
    return random.Random(text.encode("utf-8", "surrogatepass"))
