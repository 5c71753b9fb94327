"""Callbacks that a checkpoint keeps, beside the trainer's own state."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState


class KeptCallback(TrainerCallback, ExportableState):
    """A callback whose state is kept in checkpoints, and taken over by a training that goes on from one."""

    keeps: tuple[str, ...]
    """The attributes that are kept, of values as JSON has them."""

    def state(self) -> dict[str, Any]:
        """What stands in a checkpoint's `trainer_state.json`."""
        return {"args": {}, "attributes": {name: getattr(self, name) for name in self.keeps}}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes over what the checkpoint holds.

        One made without this callback gets its present state: the trainer writes the states of its callbacks over
        those that it has read, and fails on one that it has not read.
        """
        states: Any = state.stateful_callbacks  # said to be a list, which it is only until the state is made
        vars(self).update(states.setdefault(type(self).__name__, self.state())["attributes"])
