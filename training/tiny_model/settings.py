"""What the embedded checkpoint says of itself: its template, its strategies and its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1ranker_ir.models.checkpoints import SETTINGS_FILE
from r1ranker_ir.prompts.template import build_template

from .examples import MODE_WORDS

TEMPLATE: dict[str, Any] = {
    "name": "tiny",
    "candidate": "{identifier} {text}",
    "separator": "\n",
    "empty": "",
    "iterative": {"user": MODE_WORDS["exclude"] + " {query}\n{candidates}"},
    "direct": {"user": MODE_WORDS["order"] + " {query}\n{candidates}"},
}

# What it was trained on: up to ten candidates, passages of up to forty words.
LIMITS = {"window_size": 10, "stride": 5, "max_passage_tokens": 64, "max_thought_tokens": 512, "batch_size": 32}


def write_settings(folder: Path) -> None:
    """Writes `r1ranker.json` into a checkpoint folder."""
    settings = {
        "strategies": ["iterative", "direct"],
        "template": TEMPLATE,
        "template_hash": build_template(TEMPLATE, SETTINGS_FILE).digest(),
        **LIMITS,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
