"""Where a corpus has judgments after all: how what was kept, and what was not, does by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from .consistency import AGAINST_LABELS, DISAGREE, ndcg_of

KEPT = "kept"

Outcome = Mapping[str, Any]


def judged_means(outcomes: Sequence[Outcome], gains: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Means by judgments over the lists that were kept, and over those whose orders disagree.

    Lists that hold no document judged relevant say nothing, and are left out.
    """
    parts: dict[str, list[Outcome]] = {KEPT: [], "disagreeing": []}
    for each in outcomes:
        known = gains.get(each["id"], {})
        if each["orders"] and any(known.get(doc_id, 0) > 0 for doc_id in each["ids"]):
            if each["reason"] == KEPT:
                parts[KEPT].append(each)
            elif each["reason"] in (DISAGREE, AGAINST_LABELS):
                parts["disagreeing"].append(each)
    return {name: _means(some, gains) for name, some in parts.items() if some}


def _means(outcomes: Sequence[Outcome], gains: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    truth = [[gains[each["id"]].get(doc_id, 0.0) for doc_id in each["ids"]] for each in outcomes]
    labels = zip(outcomes, truth, strict=True)
    pairs = [pair for each, row in labels for pair in zip(each["gains"], row, strict=True)]
    orders = ndcg_of(truth, [[tuple(order) for order in each["orders"]] for each in outcomes])
    found = ndcg_of(truth, [[tuple(range(len(row)))] for row in truth])
    return {
        "lists": float(len(outcomes)),
        "nDCG@10": fmean(map(fmean, orders)),
        "nDCG@10 of the first stage": fmean(map(fmean, found)),
        "positives judged relevant": fmean(judged > 0 for label, judged in pairs if label > 0),
    }
