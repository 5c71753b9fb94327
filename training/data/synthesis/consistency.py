"""Self-consistency: do the orders of a list agree with each other, and with its labels?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from r1ranker_ir.data.request_files import JudgedRequest

from .settings import Synthesis
from .teachers import Try

TOO_FEW_ORDERS = "too few usable orders"
DISAGREE, AGAINST_LABELS = "orders disagree with each other", "orders disagree with the labels"


@dataclass(frozen=True)
class Consistency:
    """How far the usable orders of a list agree: mean Kendall's tau, `None` for a single one; nDCG@10 by the labels."""

    agreement: float | None
    ndcg: tuple[float, ...]
    reason: str = ""


def consistency_of(
    records: Sequence[JudgedRequest], tries: Sequence[Sequence[Try]], settings: Synthesis
) -> list[Consistency]:
    """Compares the orders of each list; `reason` says why one is not kept."""
    usable = [[each.order for each in some if each.usable] for some in tries]
    by_labels = ndcg_of([record.gains for record in records], usable)
    return [
        _consistency(orders, ndcg, len(some), settings)
        for orders, ndcg, some in zip(usable, by_labels, tries, strict=True)
    ]


def _consistency(
    orders: Sequence[tuple[int, ...]], ndcg: tuple[float, ...], tried: int, settings: Synthesis
) -> Consistency:
    from scipy.stats import kendalltau

    if len(orders) < max(1, min(2, tried)):
        return Consistency(None, ndcg, TOO_FEW_ORDERS)
    ranks = [sorted(range(len(order)), key=order.__getitem__) for order in orders]
    taus = [float(kendalltau(one, other).statistic) for one, other in combinations(ranks, 2)]
    agreement = fmean(taus) if taus else None
    if agreement is not None and agreement < settings.min_agreement:
        return Consistency(agreement, ndcg, DISAGREE)
    return Consistency(agreement, ndcg, AGAINST_LABELS if fmean(ndcg) < settings.min_ndcg else "")


def ndcg_of(gains: Sequence[Sequence[float]], orders: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[float, ...]]:
    """nDCG@10 of each order of each list by whole gains, by ir_measures; 0 for a list without a gain."""
    import ir_measures
    from ir_measures import Qrel, ScoredDoc, nDCG

    names = [(place, number) for place, some in enumerate(orders) for number in range(len(some))]
    qrels = (Qrel(f"{p}.{n}", str(c), int(gain)) for p, n in names for c, gain in enumerate(gains[p]))
    run = (ScoredDoc(f"{p}.{n}", str(c), -float(r)) for p, n in names for r, c in enumerate(orders[p][n]))
    found = {each.query_id: float(each.value) for each in ir_measures.iter_calc([nDCG @ 10], qrels, run)}
    return [tuple(found.get(f"{p}.{n}", 0.0) for n in range(len(some))) for p, some in enumerate(orders)]
