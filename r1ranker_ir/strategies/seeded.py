"""Draws that a text decides."""

from __future__ import annotations

import random


def seeded_by(text: str) -> random.Random:
    """Makes a source of random numbers from a text."""
    return random.Random(text.encode("utf-8", "surrogatepass"))
