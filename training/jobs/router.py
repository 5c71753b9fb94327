"""What `r1ranker train router` does: requests become a router's folder, with its record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from r1ranker_ir.data.request_files import read_requests
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.significance import t_estimate
from r1ranker_ir.eval.output.sheets import markdown_table
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.paths import NamedFile, check_outputs
from r1ranker_ir.models.checkpoints import ROUTER_FILE, SETTINGS_FILE, CheckpointSettings, is_router
from r1ranker_ir.models.router import NUMBERS_FILE, save_router
from r1ranker_ir.training.data.sample_files import versions
from r1ranker_ir.training.trainers.distillation import Distillation
from r1ranker_ir.training.trainers.router import (
    UTILITY,
    Distilled,
    Observed,
    distil,
    first_choices_of,
    observed_in,
    repeated_in,
)

from .json_records import write_record
from .record import TrainingRecord, describe_file, library_versions
from .trained_folder import CARD_FILE, settings_content

_STRATEGY = "direct"
_QUANTILES = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class RouterJob:
    """Files of ranking requests with utilities, the folder to write, and how to train."""

    requests: Path
    output: Path
    held_out: Path | None = None
    told: Distillation = field(default_factory=Distillation)
    overwrite: bool = False


def train_router(job: RouterJob) -> Iterator[str]:
    """Trains, writes the folder, and says what came out, a line at a time."""
    outputs = [NamedFile("--output", job.output / name) for name in (ROUTER_FILE, NUMBERS_FILE, SETTINGS_FILE)]
    check_outputs(outputs, (NamedFile("REQUESTS", job.requests), NamedFile("--held-out", job.held_out)))
    if job.output.is_dir() and any(job.output.iterdir()):
        if not is_router(job.output):
            raise InputError(f"--output {str(job.output)!r} holds other files: give a new folder")
        if not job.overwrite:
            raise InputError(f"--output {str(job.output)!r} holds a router: give another folder, or add --overwrite")
    began = time.monotonic()
    if job.told.encoder and Path(job.told.encoder).is_dir():
        # The router must find it from any folder.
        job = replace(job, told=replace(job.told, encoder=os.path.abspath(job.told.encoder)))
    given = observed_in(list(read_requests(job.requests)), str(job.requests))
    held_out = None
    if job.held_out is not None:
        held_out = observed_in(list(read_requests(job.held_out)), str(job.held_out))
        if set(held_out.llms) != set(given.llms):
            raise InputError(f"--held-out {str(job.held_out)!r} has other language models than {str(job.requests)!r}")
    shared = frozenset(given.questions) & frozenset(() if held_out is None else held_out.questions)
    observed = given.without(shared)
    if shared:
        yield f"{len(given.questions) - len(observed.questions)} questions that are held out as well are left out"
    distilled = distil(observed, job.told)
    lead = t_estimate(distilled.leads.tolist()).text("+")
    yield (
        f"{len(observed.questions)} questions, {len(observed.llms)} language models: temperature "
        f"{distilled.temperature:g}, strength {distilled.strength:g}; in {job.told.folds} folds, utility over the best "
        f"single language model {lead}"
    )
    quantiles = zip(_QUANTILES, np.quantile(distilled.margins, _QUANTILES), strict=True)
    yield "margins: " + ", ".join(f"{share:.0%} are below {margin:.4f}" for share, margin in quantiles)
    record = _record(job, distilled)
    if held_out is not None:
        single = observed.llms[int(observed.utilities.mean(axis=0).argmax())]
        by_single = held_out.utilities[:, held_out.llms.index(single)]
        reached, most = first_choices_of(distilled.router, held_out), held_out.utilities.max(axis=1)
        means = {"before": {UTILITY: float(by_single.mean())}, "after": {UTILITY: float(reached.mean())}}
        record = record.model_copy(update=means)
        yield (
            f"held out: utility {reached.mean():.4f}, best single ({single}) {by_single.mean():.4f}, oracle "
            f"{most.mean():.4f}; over the best single {t_estimate((reached - by_single).tolist()).text('+')}"
        )
        yield from _said_of_repeated(given, held_out, single)
    _write(job.output, distilled, record.model_copy(update={"seconds": round(time.monotonic() - began, 1)}))
    yield f"{job.output}: a router of {len(distilled.router.weights)} features"


def _said_of_repeated(given: Observed, held_out: Observed, single: str) -> Iterator[str]:
    repeated = repeated_in(given, held_out, single)
    if repeated is None:
        return
    lead, known = repeated.oracle - repeated.single, repeated.foreseen - repeated.single
    share = f", {known / lead:.0%} of the oracle's lead" if lead > 0 else ""
    yield (
        f"{repeated.questions} questions were observed in both files: there the best single has {repeated.single:.4f}, "
        f"the oracle {repeated.oracle:.4f}, and the best language model by the other observation "
        f"{repeated.foreseen:.4f}{share}"
    )


def _record(job: RouterJob, distilled: Distilled) -> TrainingRecord:
    told = job.told
    arguments = {
        "temperature": distilled.temperature,
        "strength": distilled.strength,
        "tag_share": told.tag_share,
        "folds": told.folds,
        "most_terms": told.most_terms,
    }
    return TrainingRecord(
        method="router",
        base_model=Path(told.encoder).name if told.encoder else "",
        strategies=[_STRATEGY],
        data=[describe_file(job.requests)],
        held_out=[] if job.held_out is None else [describe_file(job.held_out)],
        seed=told.seed,
        arguments=arguments,
        libraries={**library_versions(), **versions(("scikit-learn", "scipy", "numpy"))},
    )


def _write(folder: Path, distilled: Distilled, record: TrainingRecord) -> None:
    """All files; the one that makes the folder a router's comes last."""
    window = max(CheckpointSettings.window_size, len(distilled.router.llms))
    settings = settings_content(replace(CheckpointSettings(), window_size=window), [_STRATEGY], record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ROUTER_FILE).unlink(missing_ok=True)
        write_record(folder / SETTINGS_FILE, settings, "--output", indent=2)
        write_whole(folder / CARD_FILE, _card(distilled, record))
        save_router(folder, distilled.router)
    except OSError as error:
        raise InputError(f"can't write to {str(folder)!r}: {error.strerror}: choose another --output") from error


def _card(distilled: Distilled, record: TrainingRecord) -> str:
    files = [(use, each.name, f"`{each.sha256}`") for use in ("data", "held_out") for each in getattr(record, use)]
    rows = [(name, json.dumps(value)) for name, value in record.arguments.items()]
    parts = [
        "# A distilled router",
        f"Chooses among {', '.join(distilled.router.llms)}.",
        '```python\nfrom r1ranker_ir import RoutingAdapter\n\nroute = RoutingAdapter("path/of/this/folder", '
        'llms="llms.json")\nprint(route.choose("a question").name)\n```',
        markdown_table(("used for", "file", "SHA-256"), files, 3),
        markdown_table(("argument", "value"), [*rows, ("seed", str(record.seed))], 2),
        markdown_table(("library", "version"), list(record.libraries.items()), 2),
    ]
    return "\n\n".join(parts) + "\n"
