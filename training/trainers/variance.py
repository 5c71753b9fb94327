"""Groups whose rewards are all equal teach nothing: they leave the loss, or give their place to groups that do."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from r1ranker_ir.errors import InputError

from .callback_state import KeptCallback
from .totals import total_rewards

Batch = dict[str, Any]
Gather = Callable[[torch.Tensor], torch.Tensor]

_ROW_MEANS = frozenset({"grpo", "sapo", "luspo", "dr_grpo"})
_TOLERANCE = 1e-6


def zero_variance_groups(
    rewards: torch.Tensor, weights: torch.Tensor, num_generations: int, *, by_function: bool = False
) -> torch.Tensor:
    """Finds groups whose rewards are all equal, but for 1e-6 of their size: (rows, functions) to (groups,).

    By default their weighted sums are compared. TRL's `normalize_then_sum` wants each function's to be equal
    (`by_function`).
    """
    weighted = rewards * weights.to(rewards.device)
    values = weighted if by_function else total_rewards(rewards, weights).unsqueeze(1)
    groups = values.view(-1, num_generations, values.shape[1])
    most = groups.nan_to_num(nan=-torch.inf).amax(dim=1)
    least = groups.nan_to_num(nan=torch.inf).amin(dim=1)
    # Where nothing is scored, -inf - inf is -inf: equal.
    size = groups.nan_to_num(nan=0.0).abs().amax(dim=1).clamp(min=1.0)
    return ((most - least) <= _TOLERANCE * size).all(dim=1)


def drop_rows(batch: Batch, dropped: torch.Tensor, loss_type: str, gather: Gather) -> Batch:
    """Takes rows out of the loss, and leaves them where they are for attention and for the shape of the batch.

    Their `tool_mask`, which multiplies TRL's loss mask and nothing else, becomes 0, and `num_items_in_batch`, which
    divides the losses that sum over tokens (`dapo`, `cispo`, `vespo`), counts the tokens that are left. Losses that
    average over rows (`grpo`, `sapo`, `luspo`, `dr_grpo`) divide by all rows: the batch gets a `loss_scale` of rows
    divided by rows left, over all processes, for `scale_loss`. `bnpo` divides by the tokens of a device's batch, and
    needs neither.
    """
    mask = batch["completion_mask"]
    kept = (~dropped).to(device=mask.device, dtype=mask.dtype)
    tool_mask = batch.get("tool_mask", torch.ones_like(mask)) * kept.unsqueeze(1)
    batch = _counted({**batch, "tool_mask": tool_mask}, gather)
    if loss_type in _ROW_MEANS:
        rows = gather(torch.stack([torch.ones_like(kept).sum(), kept.sum()]).float().unsqueeze(0)).sum(dim=0)
        batch["loss_scale"] = torch.where(rows[1] > 0, rows[0] / rows[1].clamp(min=1.0), torch.ones_like(rows[0]))
    return batch


def scale_loss(loss: torch.Tensor, inputs: Batch) -> torch.Tensor:
    """Corrects a loss that averages over rows for the rows that were dropped."""
    return loss * inputs["loss_scale"] if "loss_scale" in inputs else loss


def replace_groups(
    batch: Batch, zero_variance: torch.Tensor, num_generations: int, *, first_row: int = 0, seed: str = "0"
) -> tuple[Batch, torch.Tensor]:
    """Puts copies of groups with variance in the place of groups without.

    Whole groups are copied, so that the advantages of a copy balance as those of a group do, and each donor is used as
    often as any other, give or take one. Only groups that lie whole on this process give or take.
    """
    rows = len(batch["completion_mask"])
    first, last = -(-first_row // num_generations), (first_row + rows) // num_generations
    flags = zero_variance.tolist()
    donors = [group for group in range(first, last) if not flags[group]]
    takers = [group for group in range(first, last) if flags[group]]
    origin = torch.arange(rows)
    if donors and takers:
        random.Random(seed).shuffle(donors)
        for turn, taker in enumerate(takers):
            start, source = (group * num_generations - first_row for group in (taker, donors[turn % len(donors)]))
            origin[start : start + num_generations] = torch.arange(source, source + num_generations)
    return {name: _rows_of(name, value, origin) for name, value in batch.items()}, origin


@dataclass(frozen=True)
class GroupCounts:
    """Groups of a generation batch, over all processes; parts of groups where one lies on several processes."""

    zero_variance: float = 0.0
    dropped: float = 0.0
    replaced: float = 0.0

    def metrics(self) -> dict[str, float]:
        """The counts by the names that they are logged under."""
        return {f"groups/{name}": count for name, count in vars(self).items()}


class ZeroVariance(KeptCallback):
    """Handles groups without variance: keeps them, drops them from the loss, or replaces them by copies of others.

    Those that there is no group to copy for, in the same generation batch on the same process, are dropped.
    """

    def __init__(
        self, mode: Literal["keep", "drop", "replace"], *, num_generations: int, loss_type: str, seed: int = 0
    ) -> None:
        if mode not in ("keep", "drop", "replace"):
            raise InputError(f"zero_variance is {mode!r}: choose keep, drop or replace")
        if mode != "keep" and num_generations < 2:
            raise InputError(
                f"zero_variance is {mode!r}, but a group is one completion, whose rewards can't differ: choose keep"
            )
        self.mode = mode
        self.num_generations = num_generations
        self.loss_type = loss_type
        self.seed = seed
        self.batches = 0

    def apply(
        self, batch: Batch, zero_variance: torch.Tensor, gather: Gather, process_index: int = 0
    ) -> tuple[Batch, GroupCounts]:
        """Handles the groups without variance of a generation batch."""
        rows, device = len(batch["completion_mask"]), batch["completion_mask"].device
        flags = zero_variance.to(device)
        first_row = process_index * rows
        lost = flags.repeat_interleave(self.num_generations)[first_row : first_row + rows]
        changed = torch.zeros_like(lost)
        if self.mode == "replace":
            seed = f"{self.seed}:{self.batches}:{process_index}"
            batch, origin = replace_groups(batch, flags, self.num_generations, first_row=first_row, seed=seed)
            changed = origin.to(device) != torch.arange(rows, device=device)
        dropped = lost & ~changed if self.mode != "keep" else torch.zeros_like(lost)
        here = torch.stack([dropped.sum(), changed.sum()]).float().unsqueeze(0)
        gone, swapped = (gather(here).sum(dim=0) / self.num_generations).tolist()
        if gone:
            batch = drop_rows(batch, dropped, self.loss_type, gather)
        elif swapped:
            batch = _counted(batch, gather)
        self.batches += 1
        return batch, GroupCounts(float(flags.sum()), gone, swapped)

    def kept(self) -> dict[str, Any]:
        """How many batches the choice of donors has seen."""
        return {"batches": self.batches}

    def take_over(self, kept: dict[str, Any]) -> None:
        """Goes on with the choice of donors."""
        self.batches = int(kept["batches"])


def _counted(batch: Batch, gather: Gather) -> Batch:
    """Counts the tokens of the loss anew."""
    mask = batch["completion_mask"]
    if "tool_mask" in batch:
        mask = mask * batch["tool_mask"]
    return {**batch, "num_items_in_batch": gather(mask.sum().unsqueeze(0)).sum()}


def _rows_of(name: str, value: Any, origin: torch.Tensor) -> Any:
    """Takes rows of one entry of a batch; what is one number for the whole batch stays."""
    if value is None or (isinstance(value, torch.Tensor) and not value.ndim):
        return value
    if len(value) != len(origin):
        raise InputError(
            f"{name} of the batch has {len(value)} entries for {len(origin)} rows, so groups can't be replaced: "
            "choose zero_variance: drop"
        )
    return value[origin.to(value.device)] if isinstance(value, torch.Tensor) else [value[row] for row in origin]
