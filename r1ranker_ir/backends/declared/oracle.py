"""The backend `oracle`, which is made of judgments."""

from __future__ import annotations

from typing import Any

from r1ranker_ir.backends.declaration import Capabilities, DeclaredBackend


def _opens() -> Any:
    from r1ranker_ir.backends.oracle import OracleBackend

    return OracleBackend


ORACLE = DeclaredBackend(
    "oracle",
    _opens,
    Capabilities(constrains=True, probabilities=True, takes_thought=True, samples_differ=True, scores=True),
    summary="answer by judgments, with noise",
    offered=False,
    own={"gains": "is made of judgments", "noise": "errs", "noise_growth": "errs"},
    listed=3,
)
