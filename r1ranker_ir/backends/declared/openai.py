"""The backend `openai`."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from r1ranker_ir.backends.declaration import Capabilities, DeclaredBackend

Api = Literal["chat", "completions"]
"""By which endpoint a server is asked."""
_BY_CHAT = Capabilities(samples=True, scores=True, leaves_out=("temperature", "seed"))


def _options_of(checkpoint: str, batch_size: int | None, of_checkpoint: int) -> dict[str, Any]:
    options: dict[str, Any] = {} if batch_size is None else {"concurrency": batch_size}
    if (Path(checkpoint) / "tokenizer_config.json").is_file():
        # The served checkpoint lies on this disk, so its tokens need not be guessed.
        options["tokenizer"] = checkpoint
    return options


OPENAI = DeclaredBackend(
    "openai",
    partial(pkgutil.resolve_name, "r1ranker_ir.backends.openai:OpenAIBackend"),
    _BY_CHAT,
    {("api", "completions"): replace(_BY_CHAT, constrains=True, probabilities=True, takes_thought=True)},
    summary="call an OpenAI-compatible server",
    own={
        "base_url": "calls a server",
        "timeout": "waits for a server",
        "request_timeout": "waits for a server",
        "max_retries": "asks a server again",
        "wait": "waits for a server",
        "max_reply_bytes": "reads a server's replies",
        "leave_out": "sends requests to a server",
        "extra_body": "sends requests to a server",
        "api": "calls a server",
        "tokenizer": "has its tokens counted here",
    },
    options_of=_options_of,
    calls_at_once=32,
    environment={"base_url": "OPENAI_BASE_URL"},
    libraries=("openai",),
    listed=2,
)
