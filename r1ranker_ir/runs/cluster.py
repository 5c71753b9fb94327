"""Where Ray spreads a run to, and how this process is connected to it."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.errors import BackendError, InputError, missing_extra
from r1ranker_ir.option_fields import check_offered, engine_option

logger = logging.getLogger(__name__)

_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"


@dataclass(frozen=True)
class RayCluster:
    """Over how many workers a run is spread, and of which Ray; each field says what it is for."""

    workers: int = engine_option(1, "Processes of --engine ray, each with a model of its own.", unset="none", least=1)
    cpus_per_worker: float | None = engine_option(
        None, "CPUs of a worker, and its threads.", unset="an equal share; 1 on a Ray that runs already"
    )
    gpus_per_worker: float = engine_option(0, "GPUs of a worker, which sees no others; 0.5 lets two share one.")
    address: str | None = engine_option(
        None,
        "A running Ray to use: auto for this machine's, or the host:port of its head.",
        unset="the environment variable RAY_ADDRESS, else Ray is started for this run",
        flags=("--ray-address",),
    )

    def __post_init__(self) -> None:
        check_offered(self)
        cpus, gpus = self.cpus_per_worker, self.gpus_per_worker
        for name, value, fits, wanted in (
            ("cpus_per_worker", cpus, cpus is None or 0 < cpus < math.inf, "a number above 0"),
            ("gpus_per_worker", gpus, 0 <= gpus < math.inf, "0 or more"),
        ):
            if not fits:
                raise InputError(f"{name} is {value}: give {wanted}")


def import_ray() -> Any:
    """Imports Ray with the parts that are used."""
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise missing_extra("The engine ray", "ray", error) from error
    return ray


@contextmanager
def connected(cluster: RayCluster) -> Iterator[float]:
    """Connects to Ray, or starts it, unless that is done already; gives the CPUs of a worker."""
    ray = import_ray()
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    told = logging.getLogger("ray.data")
    level = told.level
    if not logger.isEnabledFor(logging.DEBUG):
        told.setLevel(logging.CRITICAL)
    try:
        yield from _connected(ray, cluster)
    finally:
        told.setLevel(level)


def _connected(ray: Any, cluster: RayCluster) -> Iterator[float]:
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
    sys.stderr.flush()
    os.environ[_LEVEL_VARIABLE] = "fatal"
    with open(os.devnull, "wb") as nowhere, open(os.dup(2), "wb") as standard_error:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error.fileno(), 2)
            del os.environ[_LEVEL_VARIABLE]


def _cores() -> int:
    # Under taskset and in some containers a process may use fewer than the machine has; not every system can tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
