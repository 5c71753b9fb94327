"""How well calibrated probabilities hold, as tables and as a diagram."""

from __future__ import annotations

from collections.abc import Mapping

from r1ranker_ir.eval.output.sheets import Sheet
from r1ranker_ir.models.calibration import Calibration
from r1ranker_ir.types import Condition

_SIDE, _EDGE = 280, 48


def reliability_sheets(calibrations: Mapping[str, Calibration]) -> tuple[Sheet, ...]:
    """A table of the figures on held-out queries, and one of the bins for each strategy."""
    rows = []
    for strategy, each in calibrations.items():
        held = each.held_out
        size = (str(held.queries), str(held.candidates))
        for said, brier, error in (
            ("calibrated", held.brier, f"{held.error:.4f}"),
            ("1 − (rank − 1) / n", held.places_brier, f"{held.places_error:.4f}"),
            ("the same for all", held.constant_brier, "–"),
        ):
            rows.append((strategy, said, f"{brier:.4f}", error, *size))
    headings = ("strategy", "score", "Brier score", "calibration error", "queries", "candidates")
    whole = Sheet("Scores as probabilities of relevance, on held-out queries", headings, tuple(rows), words=2)
    bins = [
        Sheet(
            f"Reliability of {strategy}",
            ("said (mean of the bin)", "relevant", "candidates"),
            tuple((f"{part.said:.3f}", f"{part.relevant:.3f}", str(part.candidates)) for part in each.held_out.bins),
            words=0,
        )
        for strategy, each in calibrations.items()
    ]
    return (whole, *bins)


def reliability_remarks(calibrations: Mapping[str, Calibration]) -> tuple[str, ...]:
    """Says what the figures are, and what they were measured on."""
    said = [
        "Brier score: mean squared difference of probability and relevance. Calibration error: distance of probability "
        "and share of relevant candidates, over ten bins of equal width. For both, less is better.",
        "The same for all: the share of relevant candidates in the data that the map was fitted on.",
    ]
    for strategy, each in calibrations.items():
        data = each.fitted_on
        said.append(
            f"{strategy}: fitted on {data.queries} queries of {data.corpus or 'a corpus'} with {data.candidates} "
            f"candidates, {data.relevant} of them of grade {data.relevant_from} or more; unjudged ones "
            f"{'count as not relevant' if data.unjudged == 'irrelevant' else 'are left out'}; by {each.by}; split with "
            f"seed {data.seed}; digest {each.digest()}. It holds under {_listed(each.conditions)}."
        )
    return tuple(said)


def _listed(conditions: Mapping[str, Condition]) -> str:
    return ", ".join(f"{name}={value}" for name, value in conditions.items())


def reliability_svg(calibration: Calibration) -> str:
    """The reliability diagram: how probable candidates were said to be relevant, against how many were."""
    size = _SIDE + 2 * _EDGE

    def at(said: float, relevant: float) -> tuple[float, float]:
        return round(_EDGE + _SIDE * said, 1), round(_EDGE + _SIDE * (1 - relevant), 1)

    most = max(part.candidates for part in calibration.held_out.bins)
    parts = [
        f'<svg class="chart" viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img" '
        'aria-label="Reliability diagram; the table below has its figures">'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, _), (_, y) = at(tick, 0), at(0, tick)
        parts.append(f'<path class="grid" d="M{x},{_EDGE}V{_EDGE + _SIDE}M{_EDGE},{y}H{_EDGE + _SIDE}"/>')
        parts.append(f'<text class="axis" x="{x}" y="{_EDGE + _SIDE + 18}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text class="axis" x="{_EDGE - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    middle = size / 2
    parts.append(f'<text class="axis" x="{middle}" y="{size - 8}" text-anchor="middle">probability said</text>')
    parts.append(f'<text class="axis" x="{_EDGE}" y="{_EDGE - 14}">share relevant (larger: more candidates)</text>')
    parts.append(f'<path class="ideal" d="M{_EDGE},{_EDGE + _SIDE}L{_EDGE + _SIDE},{_EDGE}"/>')
    points = [(*at(part.said, part.relevant), part) for part in calibration.held_out.bins]
    parts.append(f'<path class="found" d="M{"L".join(f"{x},{y}" for x, y, _ in points)}"/>')
    for x, y, part in points:
        told = f"said {part.said:.3f}, relevant {part.relevant:.3f}, {part.candidates} candidates"
        radius = round(3 + 7 * (part.candidates / most) ** 0.5, 1)
        parts.append(f'<circle class="point" cx="{x}" cy="{y}" r="{radius}"><title>{told}</title></circle>')
    return "".join([*parts, "</svg>"])
