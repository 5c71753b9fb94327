"""What is seen of a training while it runs: lines of messages, a bar on a terminal, and held-out measurements."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.models.utils import unwrap_model_for_generation

from r1ranker_ir.training.trainers.callback_state import KeptCallback

from .held_out import HeldOutResult

logger = logging.getLogger(__name__)

HELD_OUT = "held_out/"
"""How the names of held-out measures begin in a log."""

_SHOWN = (
    *("loss", "reward", "value_loss", "kl", "entropy", "completions/mean_length", "frac_reward_zero_std"),
    *("mean_token_accuracy", f"{HELD_OUT}RR", f"{HELD_OUT}nDCG@10"),
)


class _Bar(ProgressCallback):
    """The trainer's bar, without the values, which `LogLines` shows."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        """Shows nothing."""


class LogLines(TrainerCallback):
    """Writes what is logged as messages of one line."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        """Writes one line of the values that matter most."""
        shown = {name: logs[name] for name in _SHOWN if logs and name in logs}
        line = ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if isinstance(value, int | float))
        if line and state.is_world_process_zero:
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, line)


def show_progress(trainer: Trainer, *, bar: bool) -> None:
    """Replaces the trainer's own output, which goes to standard output, by messages and a bar."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    for callback in (*([_Bar()] if bar else []), LogLines()):
        trainer.add_callback(callback)


class HeldOutMeasurements(KeptCallback):
    """Measures before, during and after a training, and logs what comes out under `held_out/…`.

    It keeps each list's RR at the first measurement (`before`) and at the last one (`after`), and what came out at the
    first one (`first`), which need not be measured where it is known.
    """

    keeps = ("before", "after")

    def __init__(
        self,
        trainer: Trainer,
        measure: Callable[[Any], HeldOutResult],
        every: int = 0,
        first: HeldOutResult | None = None,
    ) -> None:
        self._trainer = trainer
        self._measure = measure
        self._every = every
        self.first = first
        self.before: Sequence[float] = ()
        self.after: Sequence[float] = ()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measures the model as it was given; a training that goes on has done so already."""
        super().on_train_begin(args, state, control)
        if state.global_step == 0:
            self.first = self._log(self.first)
            self.before = self.after

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measures every N steps."""
        if self._every and state.global_step % self._every == 0:
            self._log()

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measures the trained model, unless the last step has just been measured."""
        if not any(entry["step"] == state.global_step and f"{HELD_OUT}RR" in entry for entry in state.log_history):
            self._log()

    def _log(self, known: HeldOutResult | None = None) -> HeldOutResult:
        result = self._measured() if known is None else known
        trainer: Any = self._trainer
        self.after = result.reciprocal_ranks
        wanted = trainer.control.should_log
        written = getattr(trainer, "generated", None)
        spent = {} if written is None else {"generated_tokens": float(written.count)}
        # TRL's own log would flush the metrics of the steps since the last one into this entry.
        Trainer.log(trainer, {f"{HELD_OUT}{name}": value for name, value in result.values().items()} | spent)
        # Logging takes back the wish to log, and the step's own values are still to come.
        trainer.control.should_log = wanted
        return result

    def _measured(self) -> HeldOutResult:
        trainer: Any = self._trainer
        # Every process ranks all lists: sharded weights have to be gathered in all of them at once.
        sharded = trainer.is_fsdp_enabled and hasattr(trainer, "_dist")
        gathered = trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False) if sharded else nullcontext()
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model, gathered:
            return self._measure(model)
