"""Measures of one ranked list against gains or against another list, as the rewards need them.

Reported figures come from ir_measures. A reward is asked for thousands of lists per step, with gains that are not whole
numbers, so it computes these few itself; tests compare them with ir_measures.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from r1ranker_ir.errors import InputError


def ndcg(ranked_gains: Sequence[float], gains: Sequence[float], cutoff: int) -> float:
    """Normalised discounted cumulative gain as trec_eval computes it: linear gain, discount log2(rank + 1).

    With one positive of any gain it is 1 / log2(rank + 1).

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002; ir_measures' `nDCG`.
    """
    best = max(gains, default=0.0)
    if best <= 0:
        return 0.0
    # Rounding can end a hair above 1.
    return min(1.0, _dcg(ranked_gains[:cutoff], best) / _dcg(sorted(gains, reverse=True)[:cutoff], best))


def _dcg(ranked_gains: Sequence[float], unit: float) -> float:
    """Discounted gains in units of the best one: their sum neither overflows nor vanishes."""
    return math.fsum(gain / unit / math.log2(rank + 1) for rank, gain in enumerate(ranked_gains, start=1))


def reciprocal_rank(ranked_gains: Sequence[float], best_gain: float) -> float:
    """1 / rank of the first entry that has the best gain."""
    if best_gain <= 0:
        return 0.0
    return next((1 / rank for rank, gain in enumerate(ranked_gains, start=1) if gain == best_gain), 0.0)


def recall(ranked_gains: Sequence[float], gains: Sequence[float], cutoff: int) -> float:
    """The share of the candidates with a gain that stand among the first ones."""
    relevant = sum(gain > 0 for gain in gains)
    return sum(gain > 0 for gain in ranked_gains[:cutoff]) / relevant if relevant else 0.0


def rank_biased_overlap(ranking: Sequence[Hashable], reference: Sequence[Hashable], p: float = 0.9) -> float:
    """Extrapolated rank-biased overlap of two equally long lists, RBO_ext.

    With X_d the number of entries that the first d places of both lists share, and k the lists' length:
    RBO_ext = p^k · X_k / k + (1 − p) / p · Σ_{d=1..k} p^d · X_d / d. The first term continues the agreement at the
    end of the lists for ever, so that identical finite lists score 1; the plain sum would stop at 1 − p^k.

    From Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010, equation 30.
    """
    if not 0 < p < 1:
        raise InputError(f"p of the rank-biased overlap is {p!r}: give a number above 0 and below 1")
    agreements = _agreements(ranking, reference)
    if not agreements:
        return 1.0
    head = math.fsum((1 - p) * p ** (depth - 1) * share for depth, share in enumerate(agreements, start=1))
    # Rounding can end a hair above 1.
    return min(1.0, head + p ** len(agreements) * agreements[-1])


def average_overlap(ranking: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """The mean over all depths d of the share of entries that the first d places of two lists have in common.

    Source: Webber, Moffat and Zobel, 2010, section on average overlap (after Fagin, Kumar and Sivakumar, 2003).
    """
    agreements = _agreements(ranking, reference)
    return math.fsum(agreements) / len(agreements) if agreements else 1.0


def _agreements(ranking: Sequence[Hashable], reference: Sequence[Hashable]) -> list[float]:
    """For each depth, the share of entries that both lists hold down to there."""
    if len(ranking) != len(reference):
        raise InputError(f"lists of {len(ranking)} and {len(reference)} entries are compared: give equally long ones")
    if len(set(ranking)) < len(ranking) or len(set(reference)) < len(reference):
        raise InputError("a list that is compared repeats an entry: give each once")
    depths = range(1, len(ranking) + 1)
    return [len(set(ranking[:depth]).intersection(reference[:depth])) / depth for depth in depths]
