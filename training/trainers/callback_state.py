"""What callbacks keep in checkpoints, beside the trainer's own state."""

from __future__ import annotations

from typing import Any

from transformers import TrainerState
from transformers.trainer_callback import ExportableState


def saved_attributes(callback: ExportableState, state: TrainerState) -> dict[str, Any]:
    """Reads what a checkpoint holds of a callback, when a training begins.

    A checkpoint made without the callback gets its present state: the trainer writes the states of its callbacks over
    those that it has read, and fails on one that it has not read.
    """
    states: Any = state.stateful_callbacks  # said to be a list, which it is only until the state is made
    found: dict[str, Any] = states.setdefault(type(callback).__name__, callback.state())["attributes"]
    return found
