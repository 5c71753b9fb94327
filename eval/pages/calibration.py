"""The part of a report that says what a ranker's scores are worth as probabilities."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.reliability import reliability_remarks, reliability_sheets, reliability_svg
from r1ranker_ir.eval.pages.page import Section
from r1ranker_ir.models.checkpoints import SETTINGS_FILE, read_settings_file


def calibration_sections(path: Path) -> list[Section]:
    """One section a strategy of a `r1ranker.json`, or of the one in a folder."""
    file = path / SETTINGS_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{str(path)!r} holds no {SETTINGS_FILE}: give the one that r1ranker calibrate has written")
    found = read_settings_file(file).calibration
    if not found:
        raise InputError(f"{str(file)!r} holds no calibration: r1ranker calibrate makes one")
    return [
        Section(
            f"Probabilities of relevance: {strategy}",
            reliability_sheets({strategy: each}),
            reliability_remarks({strategy: each}),
            reliability_svg(each),
        )
        for strategy, each in found.items()
    ]
