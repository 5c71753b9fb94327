"""The verb `r1ranker data recommendation`: ranking requests made of what users chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from r1ranker_ir.adapters.domains import RECOMMENDATION_DOMAINS
from r1ranker_ir.adapters.recommendation.protocol import RecommendationProtocol
from r1ranker_ir.cli.console import MESSAGES, Messages
from r1ranker_ir.cli.options import ON_ERROR
from r1ranker_ir.cli.parameters import with_fields
from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import option

if TYPE_CHECKING:
    from r1ranker_ir.adapters.problems import Problems
    from r1ranker_ir.data.request_files import JudgedRequest

SOURCE_ENDINGS = (".inter", ".item", ".user", ".dat", ".csv", ".data", ".genre", ".info")
BASELINES = ("popularity", "item-knn")


@with_fields
def recommendation(
    *,
    source: Path = option(
        ..., "Folder with RecBole's atomic files (.inter, .item) or MovieLens (ml-100k, ml-1m), or one of its files."
    ),
    output: Path = option(..., "JSON Lines file of ranking requests to write, gzip if it ends in .gz."),
    domain: str | None = option(
        None, f"What the prompt says: {', '.join(RECOMMENDATION_DOMAINS)}.", unset="movie for MovieLens, else product"
    ),
    protocol: RecommendationProtocol,
    candidates_run: str | None = option(
        None, "TREC run of a recommender (users as queries, items as documents) whose lists are the candidates."
    ),
    add_targets: bool = option(False, "Put the target into lists of --candidates-run that lack it, or skip them."),
    scores: list[str] | None = option(
        None, "TREC run of another recommender on these users, for the table; repeatable.", metavar="NAME=RUN"
    ),
    on_error: Literal["fail", "skip"] = ON_ERROR,
    messages: Messages = MESSAGES,
) -> None:
    """Make ranking requests of users' choices: the history as the query, and the next choice among others.

    Candidates carry the scores of two baselines, popularity and item-knn. Measure on the file with r1ranker suite, or
    make training samples of it with r1ranker data --requests. Same input and seed give the same file.
    """
    messages.start()
    from r1ranker_ir.adapters.problems import Problems
    from r1ranker_ir.adapters.recommendation import baselines
    from r1ranker_ir.adapters.recommendation.requests import CandidateLists, recommendation_requests
    from r1ranker_ir.adapters.recommendation.sources import open_interactions
    from r1ranker_ir.data.request_files import write_requests
    from r1ranker_ir.data.trec_runs import read_run
    from r1ranker_ir.files.paths import NamedFile, check_outputs, folder_inputs

    if domain is not None and domain not in RECOMMENDATION_DOMAINS:
        known = ", ".join(RECOMMENDATION_DOMAINS)
        raise typer.BadParameter(f"{domain!r} is unknown: use one of {known}", param_hint="--domain")
    if add_targets and candidates_run is None:
        raise typer.BadParameter(
            "it goes with --candidates-run: lists that are drawn hold the target already", param_hint="--add-targets"
        )
    runs = _named_runs(scores or [], candidates_run)
    check_outputs(
        (NamedFile("--output", output),),
        (
            NamedFile("--source", source),
            *folder_inputs("--source", source if source.is_dir() else source.parent, SOURCE_ENDINGS),
            *(NamedFile("--candidates-run or --scores", path) for path in runs.values()),
        ),
    )
    problems, counts = Problems(on_error), Counter[str]()
    of_runs = {name: read_run(path) for name, path in runs.items()}
    interactions = open_interactions(source, problems)
    requests = recommendation_requests(
        interactions,
        protocol,
        problems,
        domain=domain,
        scorers={
            "popularity": baselines.popularity(interactions),
            "item-knn": baselines.item_knn(interactions),
            **{name: baselines.run_order(run, name, counts) for name, run in of_runs.items()},
        },
        lists=None
        if candidates_run is None
        else CandidateLists(of_runs[_run_name(candidates_run)], _run_name(candidates_run), add_targets),
        counts=counts,
    )
    written = write_requests(output, _some(requests, source, problems, counts))
    asked = "" if protocol.users in (None, written) else f", not the {protocol.users} that were asked for"
    messages.say(
        f"{output}: {written} requests{asked}; {len(interactions.histories)} users and {len(interactions.titles)} "
        f"items read; {problems.line()}",
        *(f"{count} {what}" for what, count in counts.items()),
    )


def _named_runs(scores: list[str], candidates_run: str | None) -> dict[str, str]:
    """Maps the names of runs to their files."""
    given = [] if candidates_run is None else [("--candidates-run", _run_name(candidates_run), candidates_run)]
    for each in scores:
        name, _, path = each.partition("=")
        if not name or not path:
            raise typer.BadParameter(f"{each!r} is not NAME=RUN, such as sasrec=sasrec.trec", param_hint="--scores")
        given.append(("--scores", name, path))
    runs: dict[str, str] = {}
    for flag, name, path in given:
        if name in (*BASELINES, *runs):
            raise typer.BadParameter(f"{name!r} is the name of other scores already: choose another", param_hint=flag)
        runs[name] = path
    return runs


def _run_name(path: str) -> str:
    return "candidates" if path == "-" else Path(path.removesuffix(".gz")).stem


def _some(
    requests: Iterator[JudgedRequest], source: Path, problems: Problems, counts: Counter[str]
) -> Iterator[JudgedRequest]:
    """Passes requests on, and refuses to make a file of none."""
    first = next(requests, None)
    if first is None:
        why = "; ".join([problems.line(), *(f"{count} {what}" for what, count in counts.items())])
        raise InputError(f"source {str(source)!r} gives no request ({why}): use other users or another protocol")
    yield first
    yield from requests
