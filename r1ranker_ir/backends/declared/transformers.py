"""The backend `transformers`."""

from __future__ import annotations

import pkgutil
from functools import partial

from r1ranker_ir.backends.declaration import Capabilities, DeclaredBackend

TRANSFORMERS = DeclaredBackend(
    "transformers",
    partial(pkgutil.resolve_name, "r1ranker_ir.backends.local:TransformersBackend"),
    Capabilities(
        constrains=True, probabilities=True, takes_thought=True, reads_checkpoint=True, samples=True, scores=True
    ),
    summary="run the model in this process",
    own={
        "device": "runs a model on a device",
        "dtype": "computes itself",
        "cache_memory": "keeps keys and values",
        "revision": "loads a revision of a model",
        "trust_remote_code": "runs a model's own code",
    },
    libraries=("torch", "transformers", "tokenizers", "peft"),
    listed=1,
)
