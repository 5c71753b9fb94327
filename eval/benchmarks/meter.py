"""Where the time of a model goes: reading prompts, or writing token by token; and how much of a GPU that uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Dense bfloat16 operations and bytes per second, by NVIDIA's data sheets of the H100 (SXM) and the H200.
PEAKS: dict[str, tuple[float, float]] = {
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H200": (989e12, 4.8e12),
}


@dataclass
class Phase:
    """Forward passes of one kind."""

    passes: int = 0
    tokens: int = 0  # computed in them, padding included
    seconds: float = 0.0
    operations: float = 0.0  # additions and multiplications of matrix products
    bytes_read: float = 0.0  # of weights, keys and values


@dataclass
class Metered:
    """What the forward passes of a model took."""

    reading: Phase = field(default_factory=Phase)  # passes over more than one token of each row
    writing: Phase = field(default_factory=Phase)  # passes over one token of each row


@dataclass(frozen=True)
class _Shape:
    """What a model's passes cost, by its configuration."""

    weights: int
    head: int
    weight_bytes: int
    attention: int
    cache_bytes: int

    @classmethod
    def of(cls, model: Any) -> _Shape:
        config = model.config.get_text_config()
        layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        shared = int(getattr(config, "num_key_value_heads", None) or heads)
        embedding = model.get_input_embeddings().weight
        head = model.get_output_embeddings()
        total = sum(each.numel() for each in model.parameters())
        head_weights = 0 if head is None else head.weight.numel()
        tied = head is not None and head.weight is embedding
        inner = total - embedding.numel() - (0 if tied else head_weights)
        itemsize = embedding.element_size()
        return cls(
            weights=inner,
            head=head_weights,
            weight_bytes=(inner + head_weights) * itemsize,
            attention=4 * layers * heads * size,
            cache_bytes=2 * layers * shared * size * itemsize,
        )


@contextmanager
def metered(model: Any) -> Iterator[Metered]:
    """Measures each forward pass of a model, by CUDA's own events where it runs there."""
    import torch

    from r1ranker_ir.models.key_value_cache import passed_cache

    found, shape = Metered(), _Shape.of(model)
    on_cuda = model.get_input_embeddings().weight.device.type == "cuda"
    began: list[tuple[int, Any]] = []
    events: list[tuple[Phase, Any, Any]] = []

    def now() -> Any:
        if not on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def before(module: Any, args: Any, kwargs: Any) -> None:
        cache = passed_cache(kwargs)
        began.append((0 if cache is None else cache.get_seq_length(), now()))

    def after(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        ended = now()
        known, started = began.pop()
        rows, columns = kwargs["input_ids"].shape
        phase = found.reading if columns > 1 else found.writing
        phase.passes += 1
        phase.tokens += rows * columns
        # Column k of the new ones sees what came before, and k of the new ones; scores are asked for at one column.
        pairs = columns * known + columns * (columns + 1) / 2
        phase.operations += rows * (2 * shape.weights * columns + 2 * shape.head + shape.attention * pairs)
        phase.bytes_read += shape.weight_bytes + rows * (known + columns) * shape.cache_bytes
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


def share_of_peak(found: Metered, device_name: str) -> dict[str, float | None]:
    """The shares of a device's peaks that were reached; `None` where they are unknown or there were no such passes."""
    operations, bandwidth = PEAKS.get(device_name, (None, None))
    reading, writing = found.reading, found.writing

    def share(done: float, seconds: float, peak: float | None) -> float | None:
        return done / seconds / peak if peak and seconds else None

    return {
        "matrix_share_in_reading": share(reading.operations, reading.seconds, operations),
        "bandwidth_share_in_writing": share(writing.bytes_read, writing.seconds, bandwidth),
    }
