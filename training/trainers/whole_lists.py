"""Rows of lists to be graded: shuffled list by list, so that all candidates of a list are graded in one batch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

logger = logging.getLogger(__name__)


class WholeLists(torch.utils.data.Sampler[int]):
    """Goes through lists in a random order, and repeats each row as TRL's sampler does.

    Lists of one length follow each other, those of the most frequent length first: among others, a short list would
    move all later ones off the batches' bounds.
    """

    shuffle = True

    def __init__(self, repeats: Any, numbers: Sequence[int]) -> None:
        """Takes TRL's sampler, and for each row the number of its list; the rows of a list follow each other."""
        self._repeats = repeats
        self._repeats.shuffle = False
        self.generator = torch.Generator().manual_seed(repeats.seed or 0)
        self._lists: list[list[int]] = []
        for row, number in enumerate(numbers):
            if row and number == numbers[row - 1]:
                self._lists[-1].append(row)
            else:
                self._lists.append([row])
        lengths = Counter(map(len, self._lists))
        self._turn = [(-lengths[len(rows)], len(rows)) for rows in self._lists]

    def __iter__(self) -> Iterator[int]:
        shuffled = torch.randperm(len(self._lists), generator=self.generator).tolist()
        order = [row for number in sorted(shuffled, key=self._turn.__getitem__) for row in self._lists[number]]
        return (order[place] for place in self._repeats)

    def __len__(self) -> int:
        return len(self._repeats)


def warn_of_parted_lists(rows: Any, questions: int) -> None:
    """Warns of lists that can't lie whole in a process's batch, which takes that many questions."""
    lengths = Counter(length for length in Counter(rows["list"]).values() if questions % length)
    if lengths:
        logger.warning(
            "%d lists have %s candidates, and a device's batch takes %d questions: some of them are graded in two "
            "parts, each ranked for itself. Let a batch take a multiple of a list's length",
            lengths.total(),
            " or ".join(map(str, sorted(lengths))),
            questions,
        )
