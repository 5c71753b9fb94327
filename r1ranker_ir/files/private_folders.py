"""Folders for private text: what is made for it, others can't look into; what was there stays as it was."""

from __future__ import annotations

from pathlib import Path

_PRIVATE, _PUBLIC = 0o700, 0o777


def make_folder(folder: Path, *, private: bool = True) -> None:
    """Makes a folder and those above it that are missing."""
    if not folder.is_dir():
        make_folder(folder.parent, private=private)
        folder.mkdir(_PRIVATE if private else _PUBLIC, exist_ok=True)
