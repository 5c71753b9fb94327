"""Where Ray spreads a run to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import engine_option


@dataclass(frozen=True)
class RayCluster:
    """Over how many workers a run is spread, and of which Ray; each field says what it is for.

    Raises:
        InputError: if a number makes no sense.
    """

    workers: int = engine_option(1, "Processes of --engine ray, each with a model of its own.", unset="none", least=1)
    cpus_per_worker: float | None = engine_option(
        None,
        "CPUs that Ray sets aside for a worker, and its threads.",
        unset="an equal share of this machine's; 1 on a Ray that runs already",
    )
    gpus_per_worker: float = engine_option(
        0, "GPUs that Ray sets aside for a worker, which sees no others; 0.5 lets two share one."
    )
    address: str | None = engine_option(
        None,
        "A running Ray to use: auto for this machine's, or the host:port of its head.",
        unset="the environment variable RAY_ADDRESS, else Ray is started on this machine for this run",
        flags=("--ray-address",),
    )

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}: ask for at least 1")
        if self.cpus_per_worker is not None and not 0 < self.cpus_per_worker < math.inf:
            raise InputError(f"cpus_per_worker is {self.cpus_per_worker}: give a number above 0")
        if not 0 <= self.gpus_per_worker < math.inf:
            raise InputError(f"gpus_per_worker is {self.gpus_per_worker}: give 0 or more")
