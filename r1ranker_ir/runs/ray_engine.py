"""Spreads a run over Ray Data actors, each with a model of its own, and brings the rankings back in order."""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.engine.outcomes import Outcome as Ranked
from r1ranker_ir.engine.repairs import RepairLimit
from r1ranker_ir.errors import BackendError, CheckpointError, InputError
from r1ranker_ir.files.streams import STANDARD_STREAM
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.rankers.source import RankerSource
from r1ranker_ir.runs.cluster import RayCluster as RayCluster
from r1ranker_ir.runs.cluster import connected, import_ray
from r1ranker_ir.runs.ray_worker import Attempts, Job, Outcome, PortionRanker, Portions
from r1ranker_ir.runs.requests import RequestSource
from r1ranker_ir.runs.run_source import RunSource
from r1ranker_ir.version import VERSION

logger = logging.getLogger(__name__)

PORTIONS_PER_WORKER = 4
"""Into how many portions a worker's share is cut at least, as long as each still fills a batch."""
PORTION_QUERIES = 64
"""How many queries a portion has at most, unless a batch has more, or the run is very long."""
MAX_PORTIONS = 20_000
"""How many portions a run is cut into, at most: Ray keeps some kilobytes for each until the run's end."""
MAX_TASKS = 2000
"""How many tasks Ray Data is given, at most; long runs have several portions in one."""


class RayEngine:
    """Reranks one run on many workers, with the result of one."""

    def __init__(
        self,
        candidates: RequestSource,
        ranker: RankerSource,
        cluster: RayCluster,
        *,
        traced: bool = False,
        progress: bool = False,
    ) -> None:
        import_ray()
        self._cluster = cluster
        self._progress = progress
        self._limit = RepairLimit(ranker.settings.max_repair_rate)
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        if isinstance(candidates, RunSource) and (candidates.run == STANDARD_STREAM or Path(candidates.run).is_fifo()):
            self._spool = tempfile.TemporaryDirectory(prefix="r1ranker-")
            candidates = replace(candidates, run=_spooled(candidates.run, Path(self._spool.name)))
        portions = _portions(len(candidates.requests()), cluster.workers, _batch_size(ranker))
        self._job = Job(
            # Others name their files so that they are found from any working folder.
            replace(candidates, corpus=_absolute(candidates.corpus), run=os.path.abspath(candidates.run))
            if isinstance(candidates, RunSource)
            else candidates,
            # Whether too much is repaired can only be said of all workers' answers together.
            _ranker_from_anywhere(ranker, max_repair_rate=1.0),
            portions,
            min(cluster.workers, portions.count),
            traced,
            logging.getLogger("r1ranker_ir").getEffectiveLevel(),
        )
        self.summary = RunSummary()
        """Counts over all workers; the seconds are the sum of theirs."""

    def outcomes(self) -> Generator[Ranked]:
        """Ranks the run."""
        job, first = self._job, None
        bar: tqdm[Any] = tqdm(total=job.portions.queries, unit="query", disable=None if self._progress else True)
        with connected(self._cluster) as cpus, bar:
            _check_room(job, cpus, self._cluster.gpus_per_worker, local_files=self._spool is not None)
            for outcome in _outcomes(job, self._cluster, cpus):
                # Each worker opens the same ranker and has the same to say about it.
                for record in (*(() if first else outcome.opening_messages), *outcome.messages):
                    target = logging.getLogger(record.name)
                    if target.isEnabledFor(record.levelno):
                        target.handle(record)
                if outcome.failure is None:
                    first = first or outcome
                    _check_same_model(first, outcome)
                self.summary = self.summary + outcome.summary
                bar.update(outcome.summary.queries)
                bar.set_postfix(calls=self.summary.usage.calls, repairs=self.summary.repairs)
                if outcome.deaths:
                    logger.warning("%d workers died and were replaced; their queries were begun again", outcome.deaths)
                yield from outcome.rankings
                if outcome.failure is not None:
                    raise outcome.failure
                self._limit.check(self.summary.usage.calls, self.summary.repairs, job.ranker.model)
        self._limit.warn(self.summary.usage.calls, self.summary.repairs, job.ranker.model)


def _check_same_model(first: Outcome, other: Outcome) -> None:
    names = sorted({*first.identity, *other.identity})
    pairs = [(name, first.identity.get(name), other.identity.get(name)) for name in names]
    differing = [f"{name} ({one!r} and {two!r})" for name, one, two in pairs if one != two]
    if differing:
        raise CheckpointError(
            f"two workers would not give the same answers, {first.worker} and {other.worker}: they differ in "
            f"{', '.join(differing)}. Put the same checkpoint and the same versions on every machine"
        )


def _check_room(job: Job, cpus: float, gpus: float, *, local_files: bool) -> None:
    """Says what would else be waited for without end: workers that fit nowhere, files that are elsewhere."""
    machines: list[Mapping[str, float]] = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    needs = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    room = sum(int(min(machine.get(name, 0) / need for name, need in needs.items())) for machine in machines)
    wanted = " and ".join(f"{need:g} {name}" for name, need in needs.items())
    if room == 0:
        offers = "; ".join(f"{machine.get('CPU', 0):g} CPU, {machine.get('GPU', 0):g} GPU" for machine in machines)
        raise InputError(
            f"a worker needs {wanted}, and no machine of the Ray cluster has that ({offers}): ask for less with "
            f"--cpus-per-worker or --gpus-per-worker, or add a machine"
        )
    if room < job.workers:
        logger.warning(
            "only %d of %d workers find room, with %s each: the others wait for more", room, job.workers, wanted
        )
    if local_files and len(machines) > 1:
        raise InputError(
            "the run comes from standard input or a pipe, which workers on other machines can't read: write it to a "
            "file that all machines see"
        )
    settings = job.ranker.settings
    computes = settings.declared_backend.capabilities.reads_checkpoint and settings.device in (None, "cuda")
    if computes and not gpus and any(machine.get("GPU") for machine in machines):
        logger.warning("the Ray cluster has GPUs and the workers get none: give them some with --gpus-per-worker")


def _outcomes(job: Job, cluster: RayCluster, cpus: float) -> Iterator[Outcome]:
    """Has the portions ranked; gives what comes back, in the portions' order, each once."""
    ray = import_ray()
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Every row is a block of its own, so that a portion's outcome leaves the worker as soon as it is there.
    context.target_max_block_size = 1
    # That actors are restarted, and their portions begun again, is Ray Data's default. What counts these stays here.
    node = ray.get_runtime_context().get_node_id()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)
    attempts = ray.remote(num_cpus=0, scheduling_strategy=here)(Attempts).remote(job.workers)
    with ray.data.DataContext.current(context):
        count = job.portions.count
        portions = ray.data.from_items(list(range(count)), override_num_blocks=min(count, MAX_TASKS))
        dataset = portions.map_batches(
            PortionRanker,
            fn_constructor_args=(job, attempts),
            batch_size=1,
            batch_format="numpy",
            # With more than one, the first worker that is up would get what the others could do.
            compute=ray.data.ActorPoolStrategy(size=job.workers, max_tasks_in_flight_per_actor=1),
            num_cpus=cpus,
            num_gpus=cluster.gpus_per_worker or None,
        )
    rows = iter(dataset.iter_rows())
    try:
        for expected, row in zip(range(count), rows, strict=True):
            if row["version"] != VERSION:
                raise InputError(
                    f"a Ray worker has r1ranker-ir {row['version']}, and here it is {VERSION}: install "
                    f"the same version on every machine"
                )
            if row["portion"] != expected:
                raise RuntimeError(f"Ray gave portion {row['portion']} back where {expected} was due")
            yield pickle.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        raise _explained(error) from error
    finally:
        if isinstance(rows, Generator):
            rows.close()  # ends the workers, before what they ask
        ray.kill(attempts)


def _explained(error: Exception) -> BackendError:
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    told = [line.strip() for line in plain.splitlines() if line.strip()]
    return BackendError(
        f"a Ray worker can't be started, or was lost: {' … '.join([*told[:1], *told[1:][-1:]])}. Every machine needs "
        f"the same Python with r1ranker-ir, and room for a worker"
    )


def _portions(queries: int, workers: int, batch_size: int) -> Portions:
    """Cuts a run so that the engine's batches are full, and all workers have something to do until the run's end."""
    spread = math.ceil(queries / workers / PORTIONS_PER_WORKER)
    count = min(math.ceil(queries / max(batch_size, min(spread, PORTION_QUERIES))), MAX_PORTIONS)
    return Portions(queries, min(queries, math.ceil(count / workers) * workers))


def _batch_size(ranker: RankerSource) -> int:
    """How many calls the ranker will make at once, told without opening it."""
    settings = ranker.settings
    if settings.batch_size is not None:
        return settings.batch_size
    if (at_once := settings.declared_backend.calls_at_once) is not None:
        return at_once
    return read_settings(settings.settings_from or ranker.model, settings.revision).batch_size


def _spooled(run: str, folder: Path) -> str:
    """Copies standard input or a pipe into a file, since several processes will read it."""
    from_input = run == STANDARD_STREAM
    path = folder / ("standard-input.trec" if from_input else Path(run).name)
    with path.open("wb") as file, nullcontext(sys.stdin.buffer) if from_input else open(run, "rb") as pipe:
        shutil.copyfileobj(pipe, file)
    return str(path)


def _ranker_from_anywhere(ranker: RankerSource, **changes: Any) -> RankerSource:
    """Names a ranker's files so that they are found from any folder; takes addresses from this environment."""
    settings = ranker.settings
    named = {name: settings.get(name) for name in ("settings_from", "template", "tokenizer")}
    found = {name: _absolute(value) for name, value in named.items() if isinstance(value, str | os.PathLike)}
    if isinstance(settings.cache, str | os.PathLike):
        found["cache"] = os.path.abspath(os.path.expanduser(settings.cache))
    for name, variable in settings.declared_backend.environment.items():
        if not settings.get(name) and os.environ.get(variable):
            found[name] = os.environ[variable]
    return replace(ranker, model=_absolute(ranker.model), settings=settings.having(**found, **changes))


def _absolute(name: str | os.PathLike[str]) -> str:
    return os.path.abspath(name) if os.path.exists(name) else os.fspath(name)
