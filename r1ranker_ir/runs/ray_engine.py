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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from r1ranker_ir.backends import backend_in
from r1ranker_ir.data.trec_runs import STANDARD_STREAM
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.engine.outcomes import Outcome as Ranked
from r1ranker_ir.engine.repairs import RepairLimit
from r1ranker_ir.errors import BackendError, CheckpointError, InputError, missing_extra
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.runs.ray_worker import Attempts, Job, Outcome, PortionRanker, Portions, Worker
from r1ranker_ir.runs.reranking import RankerSource, RequestSource, RunSource
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

_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"


@dataclass(frozen=True)
class RayCluster:
    """Where a run is spread to, and over how many workers.

    Args:
        workers: how many processes, each with a model of its own.
        cpus_per_worker: CPUs that Ray sets aside for a worker, and its threads; `None` for an equal share of this
            machine's if Ray is started here, and for 1 on a Ray that runs already.
        gpus_per_worker: GPUs that Ray sets aside for a worker; a worker sees no others. A fraction shares one.
        address: of a Ray that runs already: `auto`, or the head's `host:port`. `None` for the one that this process
            is connected to, or the environment variable `RAY_ADDRESS`, or else one of our own on this machine.

    Raises:
        InputError: if a number makes no sense.
    """

    workers: int
    cpus_per_worker: float | None = None
    gpus_per_worker: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}: ask for at least 1")
        if self.cpus_per_worker is not None and not 0 < self.cpus_per_worker < math.inf:
            raise InputError(f"cpus_per_worker is {self.cpus_per_worker}: give a number above 0")
        if not 0 <= self.gpus_per_worker < math.inf:
            raise InputError(f"gpus_per_worker is {self.gpus_per_worker}: give 0 or more")


class RayEngine:
    """Reranks one run on many workers, with the result of one.

    Args:
        candidates: what is reranked.
        ranker: what reranks it.
        cluster: where.
        traced: whether the rankings shall hold texts and steps; without, they travel faster.
        progress: show a progress bar on a terminal.

    Raises:
        MissingExtraError: if Ray is not installed.
        InputError: if a file can't be read, or nothing is left to rank.
    """

    def __init__(
        self,
        candidates: RequestSource,
        ranker: RankerSource,
        cluster: RayCluster,
        *,
        traced: bool = False,
        progress: bool = False,
    ) -> None:
        _import_ray()
        self._cluster = cluster
        self._progress = progress
        self._limit = RepairLimit(ranker.options.get("max_repair_rate", RepairLimit.max_rate))
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        if isinstance(candidates, RunSource) and _is_read_once(candidates.run):
            self._spool = tempfile.TemporaryDirectory(prefix="r1ranker-")
            candidates = replace(candidates, run=_spooled(candidates.run, Path(self._spool.name)))
        portions = _portions(len(candidates.requests()), cluster.workers, _batch_size(ranker))
        self._job = Job(
            _from_anywhere(candidates),
            # Whether too much is repaired can only be said of all workers' answers together.
            _ranker_from_anywhere(ranker, max_repair_rate=1.0),
            portions,
            min(cluster.workers, portions.count),
            traced,
            logging.getLogger("r1ranker_ir").getEffectiveLevel(),
        )
        self._summary = RunSummary()

    @property
    def summary(self) -> RunSummary:
        """Counts over all workers; the seconds are the sum of theirs."""
        return self._summary

    def outcomes(self) -> Generator[Ranked]:
        """Ranks the run.

        Yields:
            The rankings, or why there is none, in the order of their positions.

        Raises:
            R1RankerError: what ended a worker's work, after the rankings that were finished before it.
            RepairRateError: if too many answers needed repair.
            BackendError: if workers die again and again, or can't be started.
            CheckpointError: if the workers don't run the same model.
        """
        job = self._job
        checks = _Checks()
        bar: tqdm[Any] = tqdm(total=job.portions.queries, unit="query", disable=None if self._progress else True)
        with _connected(self._cluster) as cpus, _quiet(), bar:
            _check_room(job, cpus, self._cluster.gpus_per_worker, local_files=self._spool is not None)
            for outcome in _outcomes(job, self._cluster, cpus):
                checks.look_at(outcome)
                self._summary = self._summary + outcome.summary
                bar.update(outcome.summary.queries)
                bar.set_postfix(calls=self._summary.usage.calls, repairs=self._summary.repairs)
                if outcome.deaths:
                    logger.warning("%d workers died and were replaced; their queries were begun again", outcome.deaths)
                yield from outcome.rankings
                if outcome.failure is not None:
                    raise outcome.failure
                self._limit.check(self._summary.usage.calls, self._summary.repairs, job.ranker.model)
        self._limit.warn(self._summary.usage.calls, self._summary.repairs, job.ranker.model)


class _Checks:
    """Compares the workers with each other, and passes on what they have logged."""

    def __init__(self) -> None:
        self._first: Worker | None = None
        self._known: set[str] = set()
        self._said: set[tuple[str, str]] = set()

    def look_at(self, outcome: Outcome) -> None:
        """Raises a CheckpointError if a new worker runs another model than the first."""
        for record in outcome.opening_messages:
            # Each worker opens the same ranker and has the same to say about it.
            if (record.name, record.getMessage()) not in self._said:
                self._said.add((record.name, record.getMessage()))
                _log(record)
        for record in outcome.messages:
            _log(record)
        worker = outcome.worker
        if outcome.failure is None and worker.name not in self._known:
            self._known.add(worker.name)
            self._first = self._first or worker
            _check_same_model(self._first, worker)
            logger.info("a worker is at work: %s", worker.name)


def _log(record: logging.LogRecord) -> None:
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)


def _check_same_model(first: Worker, worker: Worker) -> None:
    differing = [
        f"{name} ({first.identity.get(name)!r} and {worker.identity.get(name)!r})"
        for name in sorted({*first.identity, *worker.identity})
        if first.identity.get(name) != worker.identity.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"two workers would not give the same answers, {first.name} and {worker.name}: they differ in "
            f"{', '.join(differing)}. Put the same checkpoint and the same versions on every machine"
        )


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise missing_extra("The engine ray", "ray", error) from error
    return ray


@contextmanager
def _connected(cluster: RayCluster) -> Iterator[float]:
    """Connects to Ray, or starts it, unless that is done already; gives the CPUs of a worker."""
    ray = _import_ray()
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    if ray.is_initialized():
        if cluster.address:
            raise InputError(
                f"this process is connected to a Ray already: leave the address {cluster.address!r} out, or disconnect "
                f"with ray.shutdown()"
            )
        yield cluster.cpus_per_worker or 1
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        cpus = cluster.cpus_per_worker or 1
        options["address"] = address
    else:
        cpus = cluster.cpus_per_worker or max(1, _cores() // cluster.workers)
        options |= {"address": "local", "num_cpus": math.ceil(cpus * cluster.workers), "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _hushed():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"connect to Ray at {address!r}" if address else "start Ray on this machine"
        raise BackendError(f"can't {where}: {error}") from error
    try:
        yield cpus
    finally:
        ray.shutdown()


@contextmanager
def _hushed() -> Iterator[None]:
    """Has the C++ parts of a Ray that is started in here keep to their log files."""
    if logger.isEnabledFor(logging.DEBUG) or _LEVEL_VARIABLE in os.environ:
        yield
        return
    os.environ[_LEVEL_VARIABLE] = "fatal"
    # They say on standard error that they have read this.
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside, open(os.dup(2), "wb") as standard_error:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error.fileno(), 2)
            del os.environ[_LEVEL_VARIABLE]
            aside.seek(0)
            standard_error.writelines(line for line in aside if _LEVEL_VARIABLE.encode() not in line)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Ray Data says about itself in its log file."""
    consoles = [
        handler
        for handler in logging.getLogger("ray.data").handlers
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("ray.")
    ]
    levels = [handler.level for handler in consoles]
    if not logger.isEnabledFor(logging.DEBUG):
        for handler in consoles:
            handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)


def _cores() -> int:
    # Under taskset and in some containers a process may use fewer than the machine has; not every system can tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_room(job: Job, cpus: float, gpus: float, *, local_files: bool) -> None:
    """Says what would else be waited for without end: workers that fit nowhere, files that are elsewhere."""
    machines: list[Mapping[str, float]] = [node["Resources"] for node in _import_ray().nodes() if node["Alive"]]
    needs = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    room = sum(int(min(machine.get(name, 0) / need for name, need in needs.items())) for machine in machines)
    wanted = " and ".join(f"{need:g} {name}" for name, need in needs.items())
    if room == 0:
        raise InputError(
            f"a worker needs {wanted}, and no machine of the Ray cluster has that "
            f"({'; '.join(_offer_of(machine) for machine in machines)}): ask for less with --cpus-per-worker or "
            f"--gpus-per-worker, or add a machine"
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
    options = job.ranker.options
    computes = backend_in(options).capabilities.reads_checkpoint and options.get("device") in (None, "cuda")
    if computes and not gpus and any(machine.get("GPU") for machine in machines):
        logger.warning("the Ray cluster has GPUs and the workers get none: give them some with --gpus-per-worker")


def _offer_of(machine: Mapping[str, float]) -> str:
    return ", ".join(f"{machine.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _outcomes(job: Job, cluster: RayCluster, cpus: float) -> Iterator[Outcome]:
    """Has the portions ranked; gives what comes back, in the portions' order, each once."""
    ray = _import_ray()
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Every row is a block of its own, so that a portion's outcome leaves the worker as soon as it is there.
    context.target_max_block_size = 1
    # That actors are restarted, and their portions begun again, is Ray Data's default. What counts these stays here.
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=True
    )
    attempts = ray.remote(num_cpus=0, scheduling_strategy=here)(Attempts).remote(job.workers)
    with ray.data.DataContext.current(context):
        portions = ray.data.from_items(
            list(range(job.portions.count)), override_num_blocks=min(job.portions.count, MAX_TASKS)
        )
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
    expected = 0
    rows = iter(dataset.iter_rows())
    try:
        for row in rows:
            if row["version"] != VERSION:
                raise InputError(
                    f"a Ray worker has r1ranker-ir {row['version']}, and here it is {VERSION}: install "
                    f"the same version on every machine"
                )
            if row["portion"] != expected:
                raise RuntimeError(f"Ray gave portion {row['portion']} back where {expected} was due")
            expected += 1
            yield pickle.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        raise _explained(error) from error
    finally:
        if isinstance(rows, Generator):
            rows.close()  # ends the workers, before what they ask
        ray.kill(attempts)
    if expected != job.portions.count:
        raise RuntimeError(f"Ray gave {expected} of {job.portions.count} portions back")


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
    options = ranker.options
    if options.get("batch_size") is not None:
        return int(options["batch_size"])
    if (at_once := backend_in(options).calls_at_once) is not None:
        return at_once
    return read_settings(options.get("settings_from") or ranker.model, options.get("revision")).batch_size


def _spooled(run: str, folder: Path) -> str:
    """Copies standard input or a pipe into a file, since several processes will read it."""
    path = folder / ("standard-input.trec" if run == STANDARD_STREAM else Path(run).name)
    with path.open("wb") as file:
        if run == STANDARD_STREAM:
            shutil.copyfileobj(sys.stdin.buffer, file)
        else:
            with open(run, "rb") as pipe:
                shutil.copyfileobj(pipe, file)
    return str(path)


def _is_read_once(run: str) -> bool:
    return run == STANDARD_STREAM or Path(run).is_fifo()


def _from_anywhere(candidates: RequestSource) -> RequestSource:
    """Names a run's files so that they are found from any working folder; others name theirs so themselves."""
    if not isinstance(candidates, RunSource):
        return candidates
    return replace(candidates, corpus=_absolute(candidates.corpus), run=os.path.abspath(candidates.run))


def _ranker_from_anywhere(ranker: RankerSource, **changes: Any) -> RankerSource:
    """The same for a ranker; a server's address is taken from this process's environment."""
    options = dict(ranker.options)
    for name in ("settings_from", "template", "tokenizer"):
        if isinstance(options.get(name), str | os.PathLike):
            options[name] = _absolute(options[name])
    if isinstance(options.get("cache"), str | os.PathLike):
        options["cache"] = os.path.abspath(os.path.expanduser(options["cache"]))
    for name, variable in backend_in(options).environment.items():
        if not options.get(name) and os.environ.get(variable):
            options[name] = os.environ[variable]
    return replace(ranker, model=_absolute(ranker.model), options=options | changes)


def _absolute(name: str | os.PathLike[str]) -> str:
    return os.path.abspath(name) if os.path.exists(name) else os.fspath(name)
