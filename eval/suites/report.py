"""A suite's result as Markdown: ours beside what others have published."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1ranker_ir.engine.signs import sentences
from r1ranker_ir.eval.measuring.measures import parse_measures
from r1ranker_ir.eval.output.sheets import markdown_table

from .request_report import (
    CHOICE,
    HERE,
    OVERVIEW_NAMES,
    choice_columns,
    overview_rows,
    request_counts,
    request_notes,
    request_rows,
)
from .results import FIRST_STAGE_RUN, RERANKED_RUN

if TYPE_CHECKING:
    from .results import DataSetResult, SuiteSettings
    from .tables import Published, Suite

_SHOWN_IDS = 20
_NONE = "–"
_TOP = "The top {depth} documents of each query were reranked, and both runs end there."


def report(suite: Suite, settings: SuiteSettings, results: Sequence[DataSetResult]) -> str:
    """Writes Markdown that holds no times, so the same results give the same text."""
    # Numbered in the order in which the tables name them.
    named = dict.fromkeys(figure.source for result in results for figure in result.dataset.published)
    sources = {source: number for number, source in enumerate(named, start=1)}
    of_requests = [dataset.is_of_requests for dataset in suite.datasets]
    ranked = [] if all(of_requests) else [_TOP.format(depth=settings.depth)]
    ranked += ["The candidates of each request were ranked as they are given."] if any(of_requests) else []
    ranked += [] if settings.shuffle is None else [f"They were shuffled before (seed {settings.shuffle})."]
    parts = [
        f"# {suite.title}: {settings.reranker}",
        f"Made by `{shlex.join(settings.command)}`. `manifest.json` says with what, `measures.json` holds each query's "
        f"values.",
        " ".join(ranked),
    ]
    parts += [_mind(note) for note in dict.fromkeys(note for each in results for note in each.ranker.get("notes", ()))]
    if len(suite.datasets) > 1:
        parts += _overview(suite, settings, results, sources)
    for result in results:
        parts += _section(result, settings, sources)
    if sources:
        parts += [
            "## Sources",
            "Published figures were not measured here. They compare only as far as their "
            + ("requests and candidates" if all(of_requests) else "first stage, depth and passage length")
            + " are these.",
            "\n".join(f"{number}. {source}" for source, number in sources.items()),
        ]
    return "\n\n".join(parts) + "\n"


def _overview(
    suite: Suite, settings: SuiteSettings, results: Sequence[DataSetResult], sources: Mapping[str, int]
) -> list[str]:
    """A row per data set, a column per system, by each data set's first measure."""
    searched, ours = f"first stage{HERE}", f"{settings.reranker}{HERE}"
    of_requests = [dataset.is_of_requests for dataset in suite.datasets]
    columns: dict[str, dict[str, float]] = {} if all(of_requests) else {searched: {}}
    columns |= {baseline: {} for baseline in OVERVIEW_NAMES} if any(of_requests) else {}
    columns[ours] = {}
    place_of_ours = len(columns) - 1
    measures = []
    for result in results:
        name, first = result.dataset.name, str(parse_measures(result.dataset.measures)[0])
        measures.append(first)
        for file, evaluation in result.evaluations.items():
            if file in (FIRST_STAGE_RUN, RERANKED_RUN):
                columns[searched if file == FIRST_STAGE_RUN else ours][name] = next(iter(evaluation.mean.values()))
        for baseline, value in overview_rows(result, first).items():
            columns[baseline][name] = value
        for figure in result.dataset.published:
            if figure.measure == first:
                columns.setdefault(_published_name(figure, sources), {})[name] = figure.value
    rows = []
    for result, measure in zip(results, measures, strict=True):
        cells = [_value(values.get(result.dataset.name)) for values in columns.values()]
        if result.failed is not None:
            cells[place_of_ours] = "failed"
        rows.append([result.dataset.name, measure, *cells])
    if len(set(measures)) == 1:
        rows += _means(suite, results, columns, measures[0])
    return ["## Overview", markdown_table(["data set", "measure", *columns], rows, words=2)]


def _means(
    suite: Suite, results: Sequence[DataSetResult], columns: Mapping[str, Mapping[str, float]], measure: str
) -> list[list[str]]:
    """Rows of means: of each group, and of all, where a group counts as one; blank where a value is missing."""
    units: dict[str, tuple[str, ...]] = {result.dataset.name: (result.dataset.name,) for result in results}
    rows = []
    for group, members in suite.groups.items():
        if units.keys() >= set(members):
            rows.append([f"{group}, mean of {len(members)}", measure])
            rows[-1] += [_value(_mean(members, values)) for values in columns.values()]
            units = {name: unit for name, unit in units.items() if name not in members} | {group: members}
    if len(units) > 1:
        rows.append([f"mean of {len(units)}", measure])
        for values in columns.values():
            means = {name: _mean(members, values) for name, members in units.items()}
            known = {name: mean for name, mean in means.items() if mean is not None}
            rows[-1].append(_value(_mean(tuple(units), known)))
    return rows


def _mean(names: Sequence[str], values: Mapping[str, float]) -> float | None:
    return sum(values[name] for name in names) / len(names) if values.keys() >= set(names) else None


def _section(result: DataSetResult, settings: SuiteSettings, sources: Mapping[str, int]) -> list[str]:
    """One data set: what it was run on, its table, and notes on it."""
    dataset = result.dataset
    measures = [str(measure) for measure in parse_measures(dataset.measures)]
    if dataset.is_of_requests:
        said, counted = f"Requests of `{dataset.origin}`", request_counts(result)
    else:
        said = f"Corpus `{dataset.corpus}`; first stage `{result.first_stage}`"
        limited = "" if result.asked == result.judged else f", of which the first {result.asked} were run"
        counted = f"{result.judged} judged queries{limited}" if result.judged else ""
    parts = [f"## {dataset.name}", "; ".join(filter(None, (said, counted))) + "."]
    if result.failed is not None:
        parts.append(f"**Failed:** {' '.join(result.failed.split())}")
    columns = [*measures, *choice_columns(result)]
    ours = f"**{settings.reranker}**{HERE}"
    systems: dict[str, Mapping[str, float]] = dict(request_rows(result, ours))
    if not systems:
        for name, evaluation in zip((f"first stage{HERE}", ours), result.evaluations.values(), strict=False):
            systems[name] = {str(measure): value for measure, value in evaluation.mean.items()}
    published: dict[str, dict[str, float]] = {}
    for figure in dataset.published:
        published.setdefault(_published_name(figure, sources), {})[figure.measure] = figure.value
    systems |= published
    if systems:
        rows = [[name, *(_cell(column, values.get(column)) for column in columns)] for name, values in systems.items()]
        parts.append(markdown_table(["system", *columns], rows, words=1))
    parts += _notes(result)
    if result.summary is not None:
        parts += map(_mind, sentences(result.summary.signs).values())
    return parts


def _mind(note: str) -> str:
    return f"**Mind:** {note[0].upper()}{note[1:].rstrip('.')}."


def _published_name(figure: Published, sources: Mapping[str, int]) -> str:
    over = f" over {figure.first_stage}" if figure.first_stage else ""
    return f"{figure.system}{over} [{sources[figure.source]}]"


def _notes(result: DataSetResult) -> list[str]:
    """What reranking counted, and which judged queries count as 0."""
    notes = request_notes(result)
    for role, file in (("First stage", FIRST_STAGE_RUN), ("Reranked", RERANKED_RUN)):
        if file in result.evaluations and (missing := result.evaluations[file].missing):
            counted = f"{len(missing)} of {len(result.evaluations[file].per_query)} judged queries"
            shown = ", ".join(missing[:_SHOWN_IDS]) + (" …" if len(missing) > _SHOWN_IDS else "")
            notes.append(f"{role}: {counted} have no results and count as 0: {shown}.")
    if (summary := result.summary) is not None:
        usage = summary.usage
        notes.append(
            f"{summary.queries} queries reranked: {usage.calls} calls, {usage.prompt_tokens} tokens in, "
            f"{usage.completion_tokens} tokens out, {summary.repairs} repairs, "
            f"{summary.closed_thoughts or '0 thoughts not closed by the model'}, {summary.cut_passages} passages cut"
            + (f", the query cut in {summary.cut_queries} calls." if summary.cut_queries else ".")
        )
    return notes


def _cell(column: str, value: float | None) -> str:
    # What a choice brings may be a price of millionths.
    small = value is not None and column.startswith(CHOICE) and 0 < abs(value) < 0.01
    return f"{value:.3g}" if small else _value(value)


def _value(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"
