"""The model card of a trained folder: what its record says, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from r1ranker_ir.eval.output.sheets import markdown_table
from r1ranker_ir.models.checkpoints import SETTINGS_FILE

from .arguments import METHODS
from .record import TrainingRecord


def write_card(record: TrainingRecord, settings: Mapping[str, Any]) -> str:
    """Writes the model card."""
    base, files = record.base_model, [("training", file) for file in record.data]
    files += [("held out", file) for file in record.held_out]
    # The hub refuses a base that is not a repository.
    named = [f"base_model: {base}"] if "/" in base else []
    header = ["---", "library_name: transformers", "pipeline_tag: text-ranking", *named]
    header += ["tags:", "- reranking", "- r1ranker", f"- {record.method}", "---"]
    told = {
        f"{record.steps} optimizer steps, seed {record.seed}": True,
        f"rewards: {', '.join(f'`{name}`' for name in record.rewards)}": record.rewards,
        f"{record.generated_tokens} tokens generated": record.generated_tokens is not None,
        f"{record.seconds or 0:.0f} seconds": record.seconds is not None,
    }
    notes = [
        _one_line(f"- {file.name}: {key} = {json.dumps(value, ensure_ascii=False)}").replace("|", "\\|")
        for _, file in files
        for key, value in file.metadata.items()
    ]
    rows = [(file.name, use, "" if file.rows is None else str(file.rows), f"`{file.sha256}`") for use, file in files]
    measures = [
        (name, *(f"{values[name]:.4f}" if name in values else "" for values in (record.before, record.after)))
        for name in record.before | record.after
    ]
    held_out = ["## Held-out lists", markdown_table(("measure", "before", "after"), measures, 1)] if measures else []
    changed = [(key, _one_line(json.dumps(value))) for key, value in record.arguments.items()]
    revision = f" (revision `{record.base_revision}`)" if record.base_revision else ""
    parts = [
        "\n".join(header),
        f"# {base}, trained for {' and '.join(settings['strategies'])} ranking",
        f"A reasoning reranker made with r1ranker-ir {record.libraries.get('r1ranker-ir', '')} by "
        f"{METHODS[record.method].words} from `{base}`{revision}.",
        "## Use",
        "```python\nfrom r1ranker_ir import Candidate, Ranker, RankingRequest\n\n"
        f'ranker = Ranker("path/of/this/folder", strategy="{settings["strategies"][0]}")\n'
        'request = RankingRequest("a query", (Candidate("a", "one passage"), Candidate("b", "another")))\n'
        "[ranking] = ranker.rank([request])\n```",
        f"The prompt's template is in `{SETTINGS_FILE}` (hash `{settings['template_hash']}`): it is the one that the "
        f"model was trained on, and r1ranker-ir uses it by itself. Windows hold up to {settings['window_size']} "
        f"candidates.",
        "## Training",
        f"Trained strategy: {', '.join(record.strategies)}. {'; '.join(words for words, so in told.items() if so)}.",
        "### Data",
        markdown_table(("file", "used for", "samples", "SHA-256"), rows, 4),
        *(["\n".join(notes)] if notes else []),
        *held_out,
        "## Arguments that differ from their defaults",
        markdown_table(("argument", "value"), changed, 2),
        "## Versions",
        markdown_table(("library", "version"), list(record.libraries.items()), 2),
    ]
    return "\n\n".join(parts) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())
