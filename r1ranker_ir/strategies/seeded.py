"""Draws that a text decides."""

from __future__ import annotations

import random


def seeded_by(text: str) -> random.Random:
    """A source of random numbers: `random.Random(text)`, also of half a surrogate pair, which that refuses."""
    return random.Random(text.encode("utf-8", "surrogatepass"))
