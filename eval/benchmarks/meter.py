"""Where the time of a model goes: reading prompts, or writing token by token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Phase:
    """Forward passes of one kind."""

    passes: int = 0
    tokens: int = 0  # computed in them, padding included
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Tokens per second; `None` where there was no pass."""
        return self.tokens / self.seconds if self.seconds else None


@dataclass
class Metered:
    """What the forward passes of a model took."""

    reading: Phase = field(default_factory=Phase)  # passes over more than one token of each row
    writing: Phase = field(default_factory=Phase)  # passes over one token of each row


@contextmanager
def metered(model: Any) -> Iterator[Metered]:
    """Measures each forward pass of a model, by CUDA's own events where it runs there."""
    import torch

    found, began = Metered(), list[Any]()
    on_cuda = model.get_input_embeddings().weight.device.type == "cuda"
    events: list[tuple[Phase, Any, Any]] = []

    def now() -> Any:
        if not on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def before(module: Any, args: Any, kwargs: Any) -> None:
        began.append(now())

    def after(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        started, ended = began.pop(), now()
        rows, columns = kwargs["input_ids"].shape
        phase = found.reading if columns > 1 else found.writing
        phase.passes += 1
        phase.tokens += rows * columns
        if on_cuda:
            events.append((phase, started, ended))
        else:
            phase.seconds += ended - started

    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        if on_cuda:
            torch.cuda.synchronize()
        for phase, started, ended in events:
            phase.seconds += started.elapsed_time(ended) / 1000
