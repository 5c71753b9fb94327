"""The model card of a trained folder: what its record says, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from r1ranker_ir.models.checkpoints import SETTINGS_FILE

from .arguments import METHODS
from .record import TrainingRecord


def write_card(record: TrainingRecord, settings: Mapping[str, Any]) -> str:
    """Writes the model card."""
    strategies = " and ".join(settings["strategies"])
    header = ["---", "library_name: transformers", "pipeline_tag: text-ranking"]
    if "/" in record.base_model:
        # The hub refuses a base that is no repository.
        header.append(f"base_model: {record.base_model}")
    header += ["tags:", "- reranking", "- r1ranker", f"- {record.method}", "---"]
    parts = [
        "\n".join(header),
        f"# {record.base_model}, trained for {strategies} ranking",
        f"A reasoning reranker made with r1ranker-ir {record.libraries.get('r1ranker-ir', '')} by "
        f"{METHODS[record.method].words} from "
        f"`{record.base_model}`" + (f" (revision `{record.base_revision}`)" if record.base_revision else "") + ".",
        "## Use",
        _usage(settings["strategies"][0]),
        f"The prompt's template is in `{SETTINGS_FILE}` (hash `{settings['template_hash']}`): it is the one that the "
        f"model was trained on, and r1ranker-ir uses it by itself. Windows hold up to {settings['window_size']} "
        f"candidates.",
        "## Training",
        _training_words(record),
        "### Data",
        _data_table(record),
    ]
    if record.before or record.after:
        parts += ["## Held-out lists", _measures_table(record)]
    parts += [
        "## Arguments that differ from their defaults",
        _pairs_table("argument", "value", {key: json.dumps(value) for key, value in record.arguments.items()}),
        "## Versions",
        _pairs_table("library", "version", record.libraries),
    ]
    return "\n\n".join(parts) + "\n"


def _usage(strategy: str) -> str:
    return (
        "```python\nfrom r1ranker_ir import Candidate, Ranker, RankingRequest\n\n"
        f'ranker = Ranker("path/of/this/folder", strategy="{strategy}")\n'
        'request = RankingRequest("a query", (Candidate("a", "one passage"), Candidate("b", "another")))\n'
        "[ranking] = ranker.rank([request])\n```"
    )


def _training_words(record: TrainingRecord) -> str:
    words = [f"{record.steps} optimizer steps, seed {record.seed}"]
    if record.rewards:
        words.append(f"rewards: {', '.join(f'`{name}`' for name in record.rewards)}")
    if record.generated_tokens is not None:
        words.append(f"{record.generated_tokens} tokens generated")
    if record.seconds is not None:
        words.append(f"{record.seconds:.0f} seconds")
    return f"Trained strategy: {', '.join(record.strategies)}. {'; '.join(words)}."


def _data_table(record: TrainingRecord) -> str:
    lines = ["| file | used for | samples | SHA-256 |", "|---|---|---|---|"]
    for use, files in (("training", record.data), ("held out", record.held_out)):
        for file in files:
            rows = "" if file.rows is None else file.rows
            lines.append(f"| {_cell(file.name)} | {use} | {rows} | `{file.sha256}` |")
    notes = [
        f"- {_cell(file.name)}: {_cell(key)} = {_cell(json.dumps(value, ensure_ascii=False))}"
        for file in (*record.data, *record.held_out)
        for key, value in file.metadata.items()
    ]
    return "\n".join(lines) + ("\n\n" + "\n".join(notes) if notes else "")


def _measures_table(record: TrainingRecord) -> str:
    lines = ["| measure | before | after |", "|---|---|---|"]
    for name in dict.fromkeys((*record.before, *record.after)):
        pair = [f"{values[name]:.4f}" if name in values else "" for values in (record.before, record.after)]
        lines.append(f"| {name} | {pair[0]} | {pair[1]} |")
    return "\n".join(lines)


def _pairs_table(left: str, right: str, pairs: Mapping[str, str]) -> str:
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in pairs.items()]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
