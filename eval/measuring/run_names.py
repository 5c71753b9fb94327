"""Short names for run files that are shown together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from r1ranker_ir.errors import InputError

_ENDINGS = (".gz", ".trec", ".run", ".txt", ".res")


def short_names(files: Sequence[str]) -> tuple[str, ...]:
    """Shortens the names of files to what tells them apart."""
    resolved = [file if file == "-" else str(Path(file).resolve()) for file in files]
    if twice := next((file for file, full in zip(files, resolved, strict=True) if resolved.count(full) > 1), None):
        raise InputError(f"run {twice!r} is given twice: compare each run once, the baseline included")
    deepest = max((len(Path(full).parts) for full in resolved), default=1)
    ways: list[Callable[[str], str]] = [_without_ending, lambda full: Path(full).name]
    ways += [_last_parts(count) for count in range(2, deepest + 1)]
    for way in ways:
        names = tuple(map(way, resolved))
        if len(set(names)) == len(names):
            return names
    return tuple(resolved)


def _without_ending(full: str) -> str:
    name = Path(full).name
    for ending in _ENDINGS:
        if name.endswith(ending) and name != ending:
            name = name.removesuffix(ending)
    return name


def _last_parts(count: int) -> Callable[[str], str]:
    return lambda full: "/".join(Path(full).parts[-count:])
