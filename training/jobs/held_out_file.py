"""The file `held_out.json` of a trained folder: how each held-out list was ranked before and after the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .json_records import read_record, write_record

HELD_OUT_FILE = "held_out.json"


@dataclass(frozen=True)
class HeldOutRanks:
    """The reciprocal ranks of held-out lists, in the order of `ids`; `before` is empty where it is not known."""

    ids: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def write_ranks(folder: str | Path, ids: Sequence[str], before: Sequence[float], after: Sequence[float]) -> None:
    """Writes the file into a folder; ranks that do not fit the lists, as after a change of lists, are left out."""
    if len(after) == len(ids):
        known = list(before) if len(before) == len(ids) else []
        content = {"ids": list(ids), "before": known, "after": list(after)}
        write_record(Path(folder) / HELD_OUT_FILE, content, "output_dir")


def read_ranks(folder: str | Path) -> HeldOutRanks | None:
    """Reads the file of a trained folder; `None` if there is no such file."""
    path = Path(folder) / HELD_OUT_FILE
    return read_record(path, "remove it, or train again", _ranks, finite=True) if path.exists() else None


def _ranks(content: Any) -> HeldOutRanks:
    ids = tuple(str(name) for name in content["ids"])
    before, after = (tuple(map(float, content[key])) for key in ("before", "after"))
    if len(after) != len(ids) or len(before) not in (0, len(ids)) or not all(map(math.isfinite, before + after)):
        raise ValueError(f"one number per list is needed, of {len(ids)} lists")
    return HeldOutRanks(ids, before, after)
