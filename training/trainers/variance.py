"""Groups whose rewards are all equal teach nothing: they leave the loss, or give their place, or get another answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .callback_state import KeptCallback

Batch = dict[str, torch.Tensor]
Mode = Literal["keep", "drop", "replace", "mutate"]
Mutate = Callable[[int, Sequence[int], random.Random], list[int] | None]
"""Another completion in place of that of a row, or `None` for none."""
Gather = Callable[[torch.Tensor], torch.Tensor]

_ROW_MEANS = frozenset({"grpo", "sapo", "luspo", "dr_grpo"})
_TOLERANCE = 1e-6


def total_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums over the functions: (rows, functions) to (rows,); NaN for rows that no function scores."""
    totals = (rewards * weights.to(rewards.device)).nansum(dim=1)
    return totals.masked_fill(rewards.isnan().all(dim=1), torch.nan)


def zero_variance_groups(
    rewards: torch.Tensor, weights: torch.Tensor, num_generations: int, *, by_function: bool = False
) -> torch.Tensor:
    """Finds groups whose rewards are all equal, but for 1e-6 of their size: (rows, functions) to (groups,).

    By default their weighted sums are compared. TRL's `normalize_then_sum` wants each function's to be equal
    (`by_function`).
    """
    values = rewards * weights.to(rewards.device) if by_function else total_rewards(rewards, weights).unsqueeze(1)
    groups = values.view(-1, num_generations, values.shape[1])
    most = groups.nan_to_num(nan=-torch.inf).amax(dim=1)
    least = groups.nan_to_num(nan=torch.inf).amin(dim=1)
    # Where nothing is scored, -inf - inf is -inf: equal.
    size = groups.nan_to_num(nan=0.0).abs().amax(dim=1).clamp(min=1.0)
    return ((most - least) <= _TOLERANCE * size).all(dim=1)


def drop_rows(batch: Batch, dropped: torch.Tensor, loss_type: str, gather: Gather) -> Batch:
    """Takes rows out of the loss, and leaves them where they are for attention and for the shape of the batch.

    Their `tool_mask`, which multiplies TRL's loss mask and nothing else, becomes 0, and `num_items_in_batch`, which
    divides the losses that sum over tokens (`dapo`, `cispo`, `vespo`), counts the tokens that are left. For losses that
    average over rows, the batch gets a `loss_scale` of rows divided by rows left, over all processes.
    """
    mask = batch["completion_mask"]
    kept = (~dropped).to(device=mask.device, dtype=mask.dtype)
    tool_mask = batch.get("tool_mask", torch.ones_like(mask)) * kept.unsqueeze(1)
    batch = _counted({**batch, "tool_mask": tool_mask}, gather)
    if loss_type in _ROW_MEANS:
        rows, left = gather(torch.stack([torch.ones_like(kept).sum(), kept.sum()]).float().unsqueeze(0)).sum(dim=0)
        batch["loss_scale"] = torch.where(left > 0, rows / left.clamp(min=1.0), torch.ones_like(rows))
    return batch


def scale_loss(loss: torch.Tensor, inputs: Batch) -> torch.Tensor:
    """Corrects a loss that averages over rows for those that `drop_rows` has taken out."""
    return loss * inputs["loss_scale"] if "loss_scale" in inputs else loss


def replace_groups(
    batch: Batch, zero_variance: torch.Tensor, num_generations: int, *, first_row: int = 0, seed: str = "0"
) -> tuple[Batch, torch.Tensor]:
    """Puts copies of groups with variance in the place of groups without.

    Whole groups are copied, so that the advantages of a copy balance as those of a group do, and each donor is used as
    often as any other, give or take one. Only groups that lie whole on this process give or take.
    """
    rows = len(batch["completion_mask"])
    whole = _whole_groups(rows, num_generations, first_row)
    flags = zero_variance.tolist()
    donors = [group for group in whole if not flags[group]]
    takers = [group for group in whole if flags[group]]
    random.Random(seed).shuffle(donors)
    origin = torch.arange(rows)
    for turn, taker in enumerate(takers if donors else ()):
        start, source = (group * num_generations - first_row for group in (taker, donors[turn % len(donors)]))
        origin[start : start + num_generations] = torch.arange(source, source + num_generations)
    # What is one number for the whole batch stays.
    taken = {name: value[origin.to(value.device)] if value.ndim else value for name, value in batch.items()}
    return taken, origin


def mutate_groups(
    completions: Sequence[Sequence[int]],
    zero_variance: torch.Tensor,
    num_generations: int,
    mutate: Mutate,
    *,
    first_row: int = 0,
    seed: str = "0",
) -> tuple[list[list[int]], int]:
    """Exchanges one completion of each group without variance that lies whole on this process; also counts them.

    They are tried in random order until one can be exchanged.
    """
    changed, count = [list(ids) for ids in completions], 0
    for group in _whole_groups(len(changed), num_generations, first_row):
        if not zero_variance[group]:
            continue
        rng = random.Random(f"{seed}:{group}")
        start = group * num_generations - first_row
        for row in rng.sample(range(start, start + num_generations), num_generations):
            if (new := mutate(row, changed[row], rng)) is not None:
                changed[row], count = new, count + 1
                break
    return changed, count


def _whole_groups(rows: int, num_generations: int, first_row: int) -> range:
    """The groups that lie whole on a process with these rows."""
    return range(-(-first_row // num_generations), (first_row + rows) // num_generations)


def group_metrics(zero_variance: float, dropped: float = 0.0, replaced: float = 0.0) -> dict[str, float]:
    """Counts groups of a generation batch, over all processes; of a group on several processes, parts."""
    return {"groups/zero_variance": zero_variance, "groups/dropped": dropped, "groups/replaced": replaced}


class ZeroVariance(KeptCallback):
    """Handles groups without variance: keeps them, drops them from the loss, replaces them by copies of others, or
    mutates an answer of theirs before they are scored.

    Those that there is no group to copy for, in the same generation batch on the same process, are dropped; so are
    those that are still without variance after a mutation.
    """

    keeps = ("batches",)

    def __init__(
        self, mode: Mode, *, num_generations: int, loss_type: str, seed: int = 0, mutation: Any = None
    ) -> None:
        self.mode = mode
        self.num_generations = num_generations
        self.loss_type = loss_type
        self.seed = seed
        self.mutation = mutation
        self.batches = 0
        self._mutated = 0

    def mutate(
        self,
        completions: Sequence[Sequence[int]],
        rows: Sequence[Any],
        zero_variance: torch.Tensor,
        process_index: int = 0,
    ) -> list[list[int]]:
        """Exchanges an answer of each group without variance; `zero_variance` are flags of all processes' groups."""
        changed, self._mutated = mutate_groups(
            completions,
            zero_variance,
            self.num_generations,
            lambda row, ids, rng: self.mutation(rows[row], ids, rng),
            first_row=process_index * len(rows),
            seed=f"{self.seed}:{self.batches}",
        )
        return changed

    def apply(
        self, batch: Batch, zero_variance: torch.Tensor, gather: Gather, process_index: int = 0
    ) -> tuple[Batch, dict[str, float]]:
        """Handles the groups without variance of a generation batch; also returns the metrics of its groups."""
        rows, device = len(batch["completion_mask"]), batch["completion_mask"].device
        flags = zero_variance.to(device)
        first_row = process_index * rows
        dropped = flags.repeat_interleave(self.num_generations)[first_row : first_row + rows]
        replaced = torch.zeros_like(dropped)
        if self.mode == "replace":
            seed = f"{self.seed}:{self.batches}:{process_index}"
            batch, origin = replace_groups(batch, flags, self.num_generations, first_row=first_row, seed=seed)
            replaced = origin.to(device) != torch.arange(rows, device=device)
            dropped = dropped & ~replaced
        elif self.mode == "keep":
            dropped = torch.zeros_like(dropped)
        mutated = torch.tensor(self._mutated * self.num_generations, device=device)
        here = torch.stack([dropped.sum(), replaced.sum(), mutated]).float().unsqueeze(0)
        gone, swapped, exchanged = (gather(here).sum(dim=0) / self.num_generations).tolist()
        if gone:
            batch = drop_rows(batch, dropped, self.loss_type, gather)
        elif swapped:
            batch = _counted(batch, gather)
        self.batches += 1
        counts = group_metrics(float(flags.sum()), gone, swapped)
        return batch, counts | ({"groups/mutated": exchanged} if self.mode == "mutate" else {})


def _counted(batch: Batch, gather: Gather) -> Batch:
    """Counts the tokens of the loss anew."""
    mask = batch["completion_mask"] * batch.get("tool_mask", 1)
    return {**batch, "num_items_in_batch": gather(mask.sum().unsqueeze(0)).sum()}
