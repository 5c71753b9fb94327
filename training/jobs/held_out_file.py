"""The file `held_out.json` of a trained folder: how each held-out list was ranked before and after the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator

from r1ranker_ir.files.records import Record

from .json_records import read_record, write_record

HELD_OUT_FILE = "held_out.json"


class HeldOutRanks(Record):
    """The reciprocal ranks of held-out lists, in the order of `ids`; `before` is empty where it is not known."""

    ids: list[str]
    before: list[float]
    after: list[float]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.after) != len(self.ids) or len(self.before) not in (0, len(self.ids)):
            raise ValueError(f"give one number per list, of {len(self.ids)} lists")
        return self


def write_ranks(folder: str | Path, ids: Sequence[str], before: Sequence[float], after: Sequence[float]) -> None:
    """Writes the file into a folder; ranks that do not fit the lists, as after a change of lists, are left out."""
    if len(after) == len(ids):
        known = list(before) if len(before) == len(ids) else []
        content = {"ids": list(ids), "before": known, "after": list(after)}
        write_record(Path(folder) / HELD_OUT_FILE, content, "output_dir")


def read_ranks(folder: str | Path) -> HeldOutRanks | None:
    """Reads the file of a trained folder; `None` if there is no such file."""
    path = Path(folder) / HELD_OUT_FILE
    return read_record(HeldOutRanks, path, "remove it, or train again", finite=True) if path.exists() else None
