"""What was finished, written down step by step: a run that was killed goes on behind the last whole line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.partial import PartialFile, partial_path

logger = logging.getLogger(__name__)

_HEAD = "settings"


class Journal(AbstractContextManager["Journal"]):
    """JSON Lines of what steps have brought, by step and ids; what an earlier run with the same settings wrote counts.

    The file holds texts and thoughts, and is for its owner alone; `taken` counts steps that were finished before.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._settings = json.loads(json.dumps(settings))
        self._done: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
        self.taken = 0
        self._file = PartialFile(path, "--output", private=True)
        for line in _earlier(path):
            if line["step"] == _HEAD:
                self._check(line["brought"], path)
            else:
                self._done.setdefault((line["step"], tuple(line["ids"])), line["brought"])

    def __enter__(self) -> Self:
        self._file.__enter__()
        self._write(_HEAD, (), self._settings)
        for (step, ids), brought in self._done.items():
            self._write(step, ids, brought)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, traceback)

    def brought(self, step: str, ids: Sequence[str], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a step has brought for these ids: as it was written down, or now and then written down."""
        key = step, tuple(ids)
        if key in self._done:
            self.taken += 1
        else:
            self._done[key] = json.loads(self._write(step, ids, work()))["brought"]
        return self._done[key]

    def _write(self, step: str, ids: Sequence[str], brought: Mapping[str, Any]) -> bytes:
        line = json.dumps({"step": step, "ids": list(ids), "brought": brought}, ensure_ascii=False)
        # Half a surrogate pair is not UTF-8: it is written as JSON's own escape.
        written = line.encode("utf-8", "backslashreplace") + b"\n"
        self._file.write(written)
        return written

    def _check(self, earlier: Mapping[str, Any], path: Path) -> None:
        names = dict.fromkeys((*earlier, *self._settings))
        if other := [name for name in names if earlier.get(name) != self._settings.get(name)]:
            raise InputError(
                f"folder {str(path.parent)!r} holds work with another {other[0]} ({earlier.get(other[0])!r}, now "
                f"{self._settings.get(other[0])!r}): choose another --output, or remove the folder"
            )


def _earlier(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file, of the one that was growing, and of those that were set aside."""
    growing = partial_path(path)
    aside = sorted(each for each in growing.parent.glob(f"{growing.name}.*") if each.suffix[1:].isdecimal())
    for each in (path, growing, *aside):
        for line in each.read_bytes().splitlines(keepends=True) if each.is_file() else ():
            if line.endswith(b"\n"):
                yield json.loads(line)
