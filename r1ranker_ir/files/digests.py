"""SHA-256 of texts and files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path


def text_digest(text: str) -> str:
    """The digest of a text in hexadecimal; half a surrogate pair counts as any other character."""
    return hashlib.sha256(_bytes(text)).hexdigest()


def share_of(text: str) -> float:
    """A number from 0 to 1 that the text alone decides, evenly spread over texts: to split them by."""
    return int.from_bytes(hashlib.sha256(_bytes(text)).digest()[:8], "big") / 2**64


def source_hash(source: str) -> str:
    """The name of a script or style within a page, for the page's content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(_bytes(source)).digest()).decode('ascii')}'"


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
