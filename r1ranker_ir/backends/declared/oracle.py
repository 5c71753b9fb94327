"""The backend `oracle`, which is made of judgments."""

from __future__ import annotations

import pkgutil
from functools import partial

from r1ranker_ir.backends.declaration import Capabilities, DeclaredBackend

ORACLE = DeclaredBackend(
    "oracle",
    partial(pkgutil.resolve_name, "r1ranker_ir.backends.oracle:OracleBackend"),
    Capabilities(constrains=True, probabilities=True, takes_thought=True, samples_differ=True, scores=True),
    summary="answer by judgments, with noise",
    offered=False,
    own={"gains": "is made of judgments", "noise": "errs", "noise_growth": "errs"},
    listed=3,
)
