"""What a suite's report says of ranking requests: the rows of their tables, and what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from r1ranker_ir.eval.measuring.chance import expected_reciprocal_rank

from .baselines import BM25
from .results import BASELINES, RERANKED_RUN

if TYPE_CHECKING:
    from .results import DataSetResult, RequestsResult

HERE = " (here)"
"""Follows the names of what was measured here."""
CHANCE = "random, expected"
CHOICE = "first choice: "
"""Heads the columns of what first choices bring."""
OVERVIEW_NAMES = CHANCE, f"{BM25}{HERE}"
"""The baselines of an overview."""

Row = Mapping[str, float]
"""Column to value."""


def chance_means(requests: RequestsResult) -> dict[str, float]:
    """Averages what random orders reach."""
    columns: dict[str, list[float]] = {}
    for values in requests.chance.values():
        for measure, value in values.items():
            if value is not None:
                columns.setdefault(str(measure), []).append(value)
    return {name: sum(column) / len(column) for name, column in columns.items()}


def request_rows(result: DataSetResult, reranker: str) -> dict[str, Row]:
    """The rows of a table: chance, baselines (without values where they have no run) and the ranker."""
    if (requests := result.requests) is None:
        return {}
    rows: dict[str, Row] = {CHANCE: chance_means(requests) | _choices(requests, "")}
    for baseline in requests.baselines:
        rows[f"{baseline.name}{HERE}"] = _row(result, requests, f"{BASELINES}/{baseline.file}.trec")
    if RERANKED_RUN in result.evaluations:
        rows[reranker] = _row(result, requests, RERANKED_RUN)
    return rows


def choice_columns(result: DataSetResult) -> list[str]:
    """The columns of what first choices bring."""
    return [] if result.requests is None else list(_choices(result.requests, ""))


def overview_rows(result: DataSetResult, measure: str) -> dict[str, float]:
    """The baselines of an overview that have a value."""
    rows = request_rows(result, "")
    return {name: rows[name][measure] for name in OVERVIEW_NAMES if measure in rows.get(name, {})}


def request_notes(result: DataSetResult) -> list[str]:
    """Says how a data set's requests were measured, and what was counted."""
    if (requests := result.requests) is None:
        return []
    notes = [_judgments(requests), _chance(requests)]
    if told := list(_choices(requests, "")):
        notes.append(
            f"First choices: means of {', '.join(told).replace(CHOICE, '')} over all {requests.run} requests; "
            f"at random, over each request's candidates."
        )
    for baseline in requests.baselines:
        if baseline.run is None:
            notes.append(f"No figures for {baseline.name}: {baseline.lacking}.")
    if requests.partial_values:
        notes.append(f"Not told by all requests, so without a column: {', '.join(requests.partial_values)}.")
    if requests.dropped:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in Counter(requests.dropped).most_common())
        notes.append(f"Rows of the source that could not be used: {sum(requests.dropped.values())} ({reasons}).")
    if requests.renamed:
        notes.append(
            f"{requests.renamed} requests have ids, or ids of candidates, that a TREC run can't hold (white space, "
            f"repetitions): the runs and `requests.jsonl` have others in their place."
        )
    return notes


def request_counts(result: DataSetResult) -> str:
    """Says how many requests a data set has, and how long their lists are."""
    if (requests := result.requests) is None:
        return ""
    least, most = requests.lengths
    limited = "" if requests.run == requests.given else f", of which the first {requests.run} were run"
    return f"{requests.given} requests{limited}; {least if least == most else f'{least} to {most}'} candidates each"


def _row(result: DataSetResult, requests: RequestsResult, name: str) -> Row:
    evaluation = result.evaluations.get(name)
    if evaluation is None:
        return {}
    return {str(measure): value for measure, value in evaluation.mean.items()} | _choices(requests, name)


def _choices(requests: RequestsResult, name: str) -> dict[str, float]:
    return {f"{CHOICE}{of}": value for of, value in requests.choices.get(name, {}).items()}


def _judgments(requests: RequestsResult) -> str:
    said = "Relevant is the candidate of the greatest gain, or each of them (gains are no whole numbers)."
    if requests.graded:
        said = "Gains are whole numbers and the grades of relevance: each candidate with a gain above 0 is relevant."
    if not requests.without_best:
        return said
    without = f"{requests.without_best} of {requests.run} requests have no gain above 0"
    return f"{said} {without}: they are ranked, and count in no measure."


def _chance(requests: RequestsResult) -> str:
    said = "Random is exact: the mean over all orders of each request's candidates"
    least, most = requests.lengths
    known = f"{expected_reciprocal_rank(most, 1):.4f}" if most else ""
    if least == most and f"{chance_means(requests).get('RR', 0):.4f}" == known:
        said += f"; RR is H({most}) / {most} = {known}"
    measured = (each.items() for each in requests.chance.values())
    without = dict.fromkeys(str(name) for items in measured for name, value in items if value is None)
    return f"{said}." + (f" There is no formula here for {', '.join(without)}." if without else "")
