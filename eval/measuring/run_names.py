"""Short names for run files that are shown together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1ranker_ir.errors import InputError

_ENDINGS = (".gz", ".trec", ".run", ".txt", ".res")


def short_names(files: Sequence[str]) -> tuple[str, ...]:
    """Shortens names of files (`-`: standard input) to what tells them apart, with folders where needed."""
    resolved = [file if file == "-" else str(Path(file).resolve()) for file in files]
    if twice := next((file for file, full in zip(files, resolved, strict=True) if resolved.count(full) > 1), None):
        raise InputError(f"run {twice!r} is given twice: compare each run once, the baseline included")
    deepest = max((len(Path(full).parts) for full in resolved), default=1)
    ways = [tuple(map(_without_ending, resolved))]
    ways += [tuple("/".join(Path(full).parts[-count:]) for full in resolved) for count in range(1, deepest + 1)]
    return next((names for names in ways if len(set(names)) == len(names)), tuple(resolved))


def _without_ending(full: str) -> str:
    name = Path(full).name
    for ending in _ENDINGS:
        if name.endswith(ending) and name != ending:
            name = name.removesuffix(ending)
    return name
