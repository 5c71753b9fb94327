"""Folders for private text: what is made for it, others can't look into; what was there stays as it was."""

from __future__ import annotations

from pathlib import Path

_PRIVATE, _PUBLIC = 0o700, 0o777


def make_folder(folder: Path, *, private: bool = True) -> None:
    """Makes a folder and those above it that are missing.

    Args:
        folder: the folder; one that exists keeps its mode.
        private: only the owner may look into the ones that are made.

    Raises:
        OSError: if one can't be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent, private=private)
        folder.mkdir(_PRIVATE if private else _PUBLIC, exist_ok=True)
