"""The command `r1ranker` in the tests' own process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

import r1ranker_ir
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.trec_runs import read_run

COLLECTION = str(Path(r1ranker_ir.__file__).parent / "demo_collection")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def r1ranker(*words: object, code: int = 0, stdin: str | bytes | None = None, width: int = 500) -> Any:
    """Runs a verb and checks its exit code."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, env={"COLUMNS": str(width)})
    assert result.exit_code == code, result.output
    return result


def said(result: Any) -> str:
    """All that was printed, whatever the width of the terminal."""
    return " ".join(result.output.replace("│", " ").split())


def order_of(path: Path) -> dict[str, list[str]]:
    return {query_id: [entry.doc_id for entry in entries] for query_id, entries in read_run(path).items()}


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder and of those in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_of(folder: str | Path) -> dict[str, Any]:
    """What a suite's folder says of how it was made."""
    content: dict[str, Any] = json.loads((Path(folder) / "manifest.json").read_text())
    return content


def write_corpus(
    folder: Path,
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    judged: Mapping[tuple[str, str], int] | None = None,
) -> Path:
    """Writes a folder in BEIR layout; its judgments, if any, as TREC qrels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        rows = (json.dumps({"_id": key, "text": text}, ensure_ascii=False) + "\n" for key, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")
    if judged is not None:
        lines = (f"{query} 0 {document} {grade}\n" for (query, document), grade in judged.items())
        (folder / "qrels.trec").write_text("".join(lines), encoding="utf-8", newline="\n")
    return folder
