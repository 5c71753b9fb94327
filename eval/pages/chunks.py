"""Data in a page: JSON that no script can be hidden in, and compressed pieces, opened when they are looked at."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any


def page_json(content: Any) -> str:
    """JSON in ASCII that holds no `<`, so that nothing in it can end its element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def packed(content: Any) -> str:
    """Data as JSON, compressed (raw deflate) and in base64."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(packing.compress(page_json(content).encode("ascii")) + packing.flush()).decode("ascii")


def utf16_length(text: str) -> int:
    """How long a script says that a text is."""
    return len(text) + sum(char > "\uffff" for char in text)
