"""The file `held_out.json` of a trained folder: how each held-out list was ranked before and after the training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text

HELD_OUT_FILE = "held_out.json"


@dataclass(frozen=True)
class HeldOutRanks:
    """The reciprocal ranks of a model's held-out lists."""

    ids: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def write_ranks(folder: str | Path, ids: Sequence[str], before: Sequence[float], after: Sequence[float]) -> None:
    """Writes the file into a folder; of what does not fit the lists nothing is written."""
    if len(after) != len(ids):
        return
    content = {"ids": list(ids), "before": list(before) if len(before) == len(ids) else [], "after": list(after)}
    path = Path(folder) / HELD_OUT_FILE
    try:
        write_whole(path, json.dumps(content) + "\n")
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another output_dir") from error


def read_ranks(folder: str | Path) -> HeldOutRanks | None:
    """Reads the file of a trained folder."""
    path = Path(folder) / HELD_OUT_FILE
    if not path.exists():
        return None
    way_out = "remove it, or train again"
    text = read_small_text(path, str(path), way_out, error=DataFileError, most=RECORD_BYTES)
    try:
        content = parse_json(text)
        ids = tuple(str(name) for name in content["ids"])
        before, after = (tuple(map(float, content[key])) for key in ("before", "after"))
    except (ValueError, LookupError, TypeError) as error:
        raise DataFileError(f"{path}: not what a training writes ({error!r}): {way_out}") from error
    if len(after) != len(ids) or len(before) not in (0, len(ids)) or not all(map(math.isfinite, before + after)):
        raise DataFileError(f"{path}: needs one number a list, of {len(ids)} lists: remove it, or train again")
    return HeldOutRanks(ids, before, after)
