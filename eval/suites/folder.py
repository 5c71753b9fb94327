"""A suite's folder: whose it is, and the files that tell of the whole suite."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1ranker_ir.engine.signs import sentences
from r1ranker_ir.errors import InputError, StorageError
from r1ranker_ir.eval.measuring.measures import measures_json
from r1ranker_ir.eval.output.manifest import counts, determinism, hardware, versions
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.files.locks import FOLDER_LOCK, make_folder
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text
from r1ranker_ir.runs.reranking import RankerSource

from .report import report
from .results import REQUESTS, TRACES, DataSetResult, SuiteSettings
from .tables import Suite

MANIFEST, MEASURES, REPORT = "manifest.json", "measures.json", "README.md"


def claim_folder(folder: Path, suite: Suite, settings: SuiteSettings, *, overwrite: bool) -> None:
    """Makes the folder, or makes sure that it is this command's.

    `overwrite` uses the folder whatever is in it, and removes what another command's manifest lists.
    """
    command = list(settings.command)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output {str(folder)!r} is a file: give a folder")
    used = folder.is_dir() and any(path.name != FOLDER_LOCK for path in folder.iterdir())
    earlier = _read_manifest(folder / MANIFEST) if used else {}
    ours = (earlier.get("command"), earlier.get("suite")) == (command, suite.name)
    if used and not ours:
        if not overwrite:
            made = f"was made by another command: {shlex.join(earlier['command'])}" if earlier else "is not empty"
            raise InputError(f"folder {str(folder)!r} {made}. Choose another --output, or use --overwrite")
        own = {MANIFEST, *earlier["files"]} if earlier else set()
        for name in (MANIFEST, MEASURES, REPORT):
            if name not in own and (folder / name).exists():
                raise InputError(
                    f"{str(folder / name)!r} is of no suite, as far as the folder's {MANIFEST} says, and would be "
                    f"lost: choose another --output, or rename it"
                )
        for name in earlier.get("files", {}):
            listed = folder / name
            # A manifest may name anything, and a folder in between may be a link.
            if ".." not in Path(name).parts and listed.parent.resolve().is_relative_to(folder.resolve()):
                listed.unlink(missing_ok=True)
    try:
        make_folder(folder, private=settings.traces)
        if not ours:  # a folder that an interrupted command leaves is known by this
            _write_json(folder / MANIFEST, {"command": command, "suite": suite.name, "files": {}})
    except OSError as error:
        raise StorageError(f"can't write folder {str(folder)!r}: {error.strerror}: choose another --output") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_small_text(path, str(path), "", most=RECORD_BYTES))
    except ValueError:  # of which InputError is one
        return {}
    whole = isinstance(content, dict) and isinstance(content.get("command"), list)
    whole = whole and all(isinstance(word, str) for word in content["command"])
    return content if whole and isinstance(content.get("files"), dict) else {}


def write_summaries(
    folder: Path, suite: Suite, settings: SuiteSettings, ranker: RankerSource, results: Sequence[DataSetResult]
) -> None:
    """Writes measures, report and manifest of what is done so far; the manifest last, with the others' digests."""
    measures = [
        {"dataset": result.dataset.name, "runs": measures_json(result.evaluations), **_of_requests(result)}
        for result in results
        if result.evaluations
    ]
    try:
        _write_json(folder / MEASURES, measures)
        write_whole(folder / REPORT, report(suite, settings, results))
        _write_json(folder / MANIFEST, _manifest(folder, suite, settings, ranker, results))
    except OSError as error:
        raise StorageError(
            f"can't write the summaries in {str(folder)!r}: {error.strerror}. The runs in its folders are kept; make "
            f"room and give the same command again"
        ) from error


def _manifest(
    folder: Path, suite: Suite, settings: SuiteSettings, ranker: RankerSource, results: Sequence[DataSetResult]
) -> dict[str, Any]:
    described: dict[str, Any] = next((dict(result.ranker) for result in results if result.ranker), {})
    described.pop("max_passage_tokens", None)
    extra = ["pyserini"] if any(result.first_stage.startswith("pyserini:") for result in results) else []
    extra += ["datasets"] if any(result.dataset.task_name for result in results) else []
    extra += ["ray"] if settings.cluster is not None else []
    files = [folder / MEASURES, folder / REPORT]
    for result in results:
        names = [*([REQUESTS] if result.checksums and result.requests is not None else []), *result.evaluations]
        names += [TRACES] if settings.traces and result.summary is not None else []
        files += [folder / result.dataset.name / name for name in names]
    backend = ranker.settings.declared_backend.name
    return {
        "command": list(settings.command),
        "suite": suite.name,
        "versions": versions(backend, *extra),
        "reranker": {
            "name": settings.reranker,
            "strategy": ranker.strategy,
            "temperature": ranker.settings.temperature,
            "seed": ranker.settings.seed,
            **described,
        },
        "depth": None if all(dataset.is_of_requests for dataset in suite.datasets) else settings.depth,
        "shuffle": settings.shuffle,
        "hardware": hardware(),
        "determinism": determinism(),
        "datasets": [_described(result) for result in results],
        "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
    }


def _described(result: DataSetResult) -> dict[str, Any]:
    dataset = result.dataset
    return {
        "name": dataset.name,
        "corpus": dataset.corpus,
        "split": dataset.split,
        "first_stage": result.first_stage or None,
        "measures": dataset.measures.split(),
        "max_passage_tokens": result.ranker.get("max_passage_tokens", dataset.max_passage_tokens),
        "judged_queries": result.judged,
        "run_queries": result.asked,
        "without_results": {name: list(evaluation.missing) for name, evaluation in result.evaluations.items()},
        "checksums": dict(result.checksums),
        "counts": None if result.summary is None else counts(result.summary),
        **({} if result.summary is None or not (said := sentences(result.summary.signs)) else {"signs": said}),
        "failed": result.failed,
        **({} if result.requests is None else {"requests": dict(result.requests.facts)}),
    }


def _of_requests(result: DataSetResult) -> dict[str, Any]:
    """What the measures' file says of ranking requests alone: random orders, and what first choices bring."""
    if (requests := result.requests) is None:
        return {}
    choices = {name or "random": dict(values) for name, values in requests.choices.items()}
    return {"random": dict(requests.chance), "first_choice": choices}


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
