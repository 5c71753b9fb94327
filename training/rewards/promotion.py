"""GR2's rewards of an order: how far it lifts the positive above its place in the prompt, and its form if it does.

From GR2 (Generative Reasoning Re-ranker, arXiv 2602.07774), by its public descriptions; its code is not public. Where a
form reward is paid for every order, a model is paid for copying the prompt's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from r1ranker_ir.prompts.answers import identifiers

from .answer_protocol import closed_answer, format_term, written_identifiers
from .rows import Components, RewardFunction, RewardRow, reward


@reward("order", "rank_promotion")
def rank_promotion_reward(row: RewardRow) -> Components:
    """Scores an order by the places that it lifts the positive, as a share of the list; from −1 to below 1.

    R = (place in the prompt − place in the answer) / |C|. The positive is the candidate of the greatest gain; of
    several, the one that comes first in each order. An answer that is not an order of exactly the prompt's candidates
    counts as one that puts it last. Where no candidate has a gain, every order has R = 0.

    The input order is the prompt's: make samples with `--as-given` or windows, or it is a random one.
    """
    before, after = _places(row)
    return {"promotion": (before - (len(row.gains) - 1 if after is None else after)) / len(row.gains)}


@reward("order", "format_if_improved")
def format_if_improved_reward(row: RewardRow) -> Components:
    """Pays for the form of an order that improves on the prompt's: 1 or 0.

    1 where the output is exactly one thought and then one answer that orders the prompt's candidates, and where the
    positive stands higher than in the prompt or stood first already; else 0. With `rank_promotion` it makes GR2's
    reward; its α is this one's weight among `reward_weights`.
    """
    before, after = _places(row)
    improved = after is not None and (after < before or before == 0)
    return {"format": float(improved and format_term(row.output) == 0)}


def _places(row: RewardRow) -> tuple[int, int | None]:
    """Where the positive stands in the prompt and in the answer, `None` if that is no order; the first place is 0."""
    best = max(row.gains)
    names, offered = written_identifiers(closed_answer(row.output)), identifiers(len(row.gains))
    gains = dict(zip(offered, row.gains, strict=True))
    before = row.gains.index(best) if best > 0 else 0
    if len(names) != len(offered) or set(names) != gains.keys():
        return before, None
    return before, [gains[name] for name in names].index(best) if best > 0 else 0


PROMOTION_REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {"rank_promotion": rank_promotion_reward, "format_if_improved": format_if_improved_reward}
)
