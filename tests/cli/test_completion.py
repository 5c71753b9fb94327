"""What a shell is offered for a command line that is not finished."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("r1ranker re", {"rerank"}),
        ("r1ranker rerank --sch", {"--schedule"}),
        ("r1ranker rerank --strategy ", {"iterative", "direct", "likelihood"}),
    ],
)
def test_verbs_options_and_values_are_completed(light_commands: Path, line: str, offered: set[str]) -> None:
    asked = {"_R1RANKER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run([light_commands / "r1ranker"], env={**os.environ, **asked}, capture_output=True, text=True)
    assert offered <= set(done.stdout.split()), done.stderr
