"""The model card of a trained folder: what its record says, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1ranker_ir.models.checkpoints import SETTINGS_FILE

from .arguments import METHODS
from .record import TrainingRecord


def write_card(record: TrainingRecord, settings: Mapping[str, Any]) -> str:
    """Writes the model card."""
    strategies = " and ".join(settings["strategies"])
    header = ["---", "library_name: transformers", "pipeline_tag: text-ranking"]
    if "/" in record.base_model:
        # The hub refuses a base that is not a repository.
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
        _table(("argument", "value"), [(key, json.dumps(value)) for key, value in record.arguments.items()]),
        "## Versions",
        _table(("library", "version"), record.libraries.items()),
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
    files = [("training", file) for file in record.data] + [("held out", file) for file in record.held_out]
    rows = [(file.name, use, "" if file.rows is None else str(file.rows), f"`{file.sha256}`") for use, file in files]
    notes = [
        f"- {_cell(file.name)}: {_cell(key)} = {_cell(json.dumps(value, ensure_ascii=False))}"
        for _, file in files
        for key, value in file.metadata.items()
    ]
    return _table(("file", "used for", "samples", "SHA-256"), rows) + ("\n\n" + "\n".join(notes) if notes else "")


def _measures_table(record: TrainingRecord) -> str:
    both = record.before, record.after
    names = dict.fromkeys((*record.before, *record.after))
    rows = [(name, *(f"{values[name]:.4f}" if name in values else "" for values in both)) for name in names]
    return _table(("measure", "before", "after"), rows)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
