"""The backend `router`, a small classifier of questions."""

from __future__ import annotations

import pkgutil
from functools import partial

from r1ranker_ir.backends.declaration import Capabilities, DeclaredBackend

ROUTER = DeclaredBackend(
    "router",
    partial(pkgutil.resolve_name, "r1ranker_ir.backends.router:RouterBackend"),
    Capabilities(constrains=True, probabilities=True, takes_thought=True),
    summary="order language models with a distilled router",
    offered=False,
    libraries=("scikit-learn", "scipy"),
    listed=4,
)
