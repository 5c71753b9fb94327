"""A distilled router beside the ranker: alone, and as a cascade in which the ranker is asked where it is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1ranker_ir.adapters.routing.requests import BEST_SINGLE
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import Run, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.significance import t_estimate
from r1ranker_ir.models.checkpoints import is_router
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.rankers.unsure import check_margin, margin_of
from r1ranker_ir.runs.requests import entries_of
from r1ranker_ir.types import RankingRequest

from .baselines import FOLDER, Baseline, value_of_first
from .results import RERANKED_RUN, DataSetResult, SuiteSettings

ROUTER_RUN, CASCADE_RUN = f"{FOLDER}/router.trec", f"{FOLDER}/router-then-ranker.trec"
UTILITY = "utility"


@dataclass(frozen=True)
class Routed:
    """What a router and a cascade with the ranker make of requests.

    Args:
        unsure: how many requests the ranker was asked.
        seconds: what the router took for all of them, its loading not included.
    """

    router: Run
    cascade: Run
    unsure: int
    seconds: float


def check_router(settings: SuiteSettings) -> None:
    """Raises an InputError if there is no router, or its margin is none."""
    check_margin(settings.margin)
    if settings.router is not None and not is_router(settings.router):
        raise InputError(f"--router {str(settings.router)!r} is not the folder of a router: see r1ranker train router")


def route(requests: Sequence[RankingRequest], reranked: Run, settings: SuiteSettings) -> Routed:
    """Asks the router; where its margin is below that of the settings, the reranked run decides."""
    assert settings.router is not None
    ranker = find_ranker(settings.router).open()
    ranker.rank(requests[:1])  # what is loaded late is loaded now
    before = ranker.summary
    rankings = ranker.rank(requests)
    own = {ranking.request.query_id: tuple(entries_of(ranking)) for ranking in rankings}
    unsure = {ranking.request.query_id for ranking in rankings if margin_of(ranking) < settings.margin}
    both = {query_id: reranked[query_id] if query_id in unsure else entries for query_id, entries in own.items()}
    return Routed(own, both, len(unsure), ranker.summary.since(before).seconds)


def write_routed(routed: Routed, result: DataSetResult, folder: Path, settings: SuiteSettings) -> None:
    """Writes both runs, and has the report name them."""
    assert result.requests is not None
    both = f"router; {settings.reranker} below margin {settings.margin:g}"
    named = (Baseline("router", ROUTER_RUN, routed.router), Baseline(both, CASCADE_RUN, routed.cascade))
    for each in named:
        write_run(each.run or {}, folder / each.file, tag=Path(each.file).stem)
    count = len(routed.router)
    note = f"The router was unsure of {routed.unsure} of {count} requests ({routed.unsure / count:.1%})."
    result.requests = replace(
        result.requests,
        baselines=[*result.requests.baselines, *named],
        notes=[*result.requests.notes, note],
    )


def note_leads(requests: Sequence[JudgedRequest], result: DataSetResult, folder: Path, settings: SuiteSettings) -> None:
    """Has the report say how far first choices are above the best single one in utility, with paired intervals."""
    assert result.requests is not None
    single = next((each for each in result.requests.baselines if each.name.startswith(BEST_SINGLE)), None)
    if single is None or single.run is None or any(UTILITY not in judged.values for judged in requests):
        return
    named = {ROUTER_RUN: "router", CASCADE_RUN: "router, then ranker", RERANKED_RUN: settings.reranker}
    told = []
    for file, name in named.items():
        run = read_run(folder / file)
        leads = [_utility(judged, run) - _utility(judged, single.run) for judged in requests]
        told.append(f"{name} {t_estimate(leads).text('+')}")
    note = f"Utility of first choices less that of the {single.name}, with 95% intervals: {'; '.join(told)}."
    result.requests = replace(result.requests, notes=[*result.requests.notes, note])


def latency(routed: Routed, result: DataSetResult) -> str:
    """A line of milliseconds a request, for people; no file holds it."""
    assert result.summary is not None
    count, summary = len(routed.router), result.summary
    router, ranker = (1000 * seconds / count for seconds in (routed.seconds, summary.seconds))
    cached = f" ({summary.cached_calls} of {summary.usage.calls} calls were cached)" if summary.cached_calls else ""
    both = router + ranker * routed.unsure / count
    return (
        f"{result.dataset.name}: milliseconds a request: router {router:.2f}, ranker {ranker:.2f}{cached}, "
        f"router then ranker {both:.2f}"
    )


def _utility(judged: JudgedRequest, run: Run) -> float:
    return value_of_first(judged, judged.values[UTILITY], run)
