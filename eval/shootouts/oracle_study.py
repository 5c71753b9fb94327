"""What each strategy makes of its calls: rankings by an oracle that errs, measured under growing budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.judged_rows import gains_of
from r1ranker_ir.eval.measuring.measures import evaluate
from r1ranker_ir.eval.output.pictures import look_of, new_figure, write_png
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.requests import entries_of
from r1ranker_ir.types import RankingRequest

if TYPE_CHECKING:
    from ir_measures import Measure, Qrel

_FEATURE, _EXTRA = "Drawing studies", "eval"
BUDGETS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Calls per query, besides as many as a strategy wants."""


@dataclass(frozen=True)
class Contender:
    """One way to rank."""

    name: str  # what it is called in tables and pictures
    strategy: str  # the ranking program
    options: Mapping[str, Any] = field(default_factory=dict)  # Ranker's other arguments


CONTENDERS = (
    Contender("elimination", "iterative"),
    Contender("elimination, halving", "iterative", {"schedule": "halving"}),
    Contender("sliding windows", "direct"),
    Contender("tournament", "direct", {"sort": "tournament"}),
    Contender("setwise heap, 19 children", "setwise"),
    Contender("setwise heap, 9 children", "setwise", {"window_size": 10}),
    Contender("setwise heap, 3 children", "setwise", {"window_size": 4}),
    Contender("setwise bubble, 20 at once", "setwise", {"sort": "bubble"}),
    Contender("pairs, sliding", "setwise", {"sort": "bubble", "window_size": 2}),
    Contender("pointwise", "pointwise"),
    Contender("sliding windows, 3 votes", "direct", {"votes": 3, "vote_by": "borda"}),
)


@dataclass(frozen=True)
class StudyPoint:
    """What a contender reached within a budget."""

    contender: str  # its name
    max_calls: int | None  # the budget, None for none
    calls: float  # how many calls it made, a query on average
    tokens: float  # what these read and wrote, a query on average
    ended: float  # the share of queries whose budget was reached
    measured: Mapping[Measure, float]  # measure to mean over the queries


def study_strategies(
    requests: Sequence[RankingRequest],
    qrels: Sequence[Qrel],
    measures: Sequence[Measure],
    *,
    contenders: Sequence[Contender] = CONTENDERS,
    noise: float = 0.0,
    noise_growth: float = 0.0,
    seed: int = 0,
    budgets: Sequence[int] = BUDGETS,
) -> tuple[StudyPoint, ...]:
    """Ranks by an oracle under each budget, and without one."""
    judged = {judgment.query_id for judgment in qrels}
    requests = [request for request in requests if request.query_id in judged]
    if not requests:
        raise InputError(f"none of the queries has judgments ({len(judged)} others have): nothing can be studied")
    ranked = {request.query_id for request in requests}
    qrels = [judgment for judgment in qrels if judgment.query_id in ranked]
    oracle: dict[str, Any] = {"gains": gains_of(qrels), "noise": noise, "noise_growth": noise_growth, "seed": seed}
    points: list[StudyPoint] = []
    for contender in contenders:
        for budget in (*sorted(budgets), None):
            options = {**contender.options, **({} if budget is None else {"max_calls": budget})}
            ranker = Ranker("oracle", strategy=contender.strategy, backend="oracle", **oracle, **options)
            rankings = ranker.rank(requests)
            run = {ranking.request.query_id: entries_of(ranking) for ranking in rankings}
            usage = ranker.summary.usage
            points.append(
                StudyPoint(
                    contender.name,
                    budget,
                    usage.calls / len(rankings),
                    (usage.prompt_tokens + usage.completion_tokens) / len(rankings),
                    sum(ranking.budget_reached for ranking in rankings) / len(rankings),
                    evaluate(qrels, run, measures, name=contender.name).mean,
                )
            )
            if not points[-1].ended:
                break
    return tuple(points)


def plot_study(points: Sequence[StudyPoint], path: str | Path, *, title: str = "") -> None:
    """Draws the first measure against calls: a line for each contender, its last point filled: all that it wants."""
    if not points:
        raise InputError("there are no points: nothing can be drawn")
    figure = new_figure(9.0, 5.4, feature=_FEATURE, extra=_EXTRA)
    axis = figure.subplots()
    measure = next(iter(points[0].measured))
    for number, name in enumerate(dict.fromkeys(point.contender for point in points)):
        own = [point for point in points if point.contender == name]
        colour, marker = look_of(number)
        calls, reached = [point.calls for point in own], [point.measured[measure] for point in own]
        axis.plot(calls, reached, color=colour, marker=marker, markersize=4, markerfacecolor="white", linewidth=1.1)
        axis.plot(calls[-1:], reached[-1:], color=colour, marker=marker, markersize=8, linestyle="none", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("calls per query", fontsize=9)
    axis.set_ylabel(f"mean {measure}", fontsize=9)
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    write_png(figure, path)
