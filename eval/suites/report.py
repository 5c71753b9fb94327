"""A suite's result as Markdown: ours beside what others have published."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1ranker_ir.engine.signs import sentences
from r1ranker_ir.eval.measuring.measures import first_of, parse_measures
from r1ranker_ir.eval.output.sheets import figure, markdown_table

from .baselines import BM25, FOLDER
from .results import FIRST_STAGE_RUN, RERANKED_RUN

if TYPE_CHECKING:
    from .results import DataSetResult, SuiteSettings
    from .tables import Suite

_CHANCE = ""  # in place of a run file
_BM25_RUN = f"{FOLDER}/{BM25.lower()}.trec"
_CHOICE = "first choice: "
_TOP = "The top {depth} documents of each query were reranked, and both runs end there."

Columns = Mapping[str, float]
"""Values by measure or, of first choices, by quantity."""


def report(suite: Suite, settings: SuiteSettings, results: Sequence[DataSetResult]) -> str:
    """Writes Markdown that holds no times, so the same results give the same text."""
    # Numbered in the order in which the tables name them.
    named = dict.fromkeys(published.source for result in results for published in result.dataset.published)
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
        depends = "requests and candidates" if all(of_requests) else "first stage, depth and passage length"
        parts += [
            "## Sources",
            f"Published figures were not measured here. They compare only as far as their {depends} are these.",
            "\n".join(f"{number}. {source}" for source, number in sources.items()),
        ]
    return "\n\n".join(parts) + "\n"


def _measured(result: DataSetResult) -> dict[str, Columns]:
    """The values of what was measured here, by run file; none of a baseline that has no run."""
    choices = {} if result.requests is None else result.requests.choices
    rows: dict[str, Columns] = {}
    if result.requests is not None:
        rows = {_CHANCE: result.requests.chance["mean"], **{each.file: {} for each in result.requests.baselines}}
    for file, evaluation in result.evaluations.items():
        rows[file] = {str(measure): value for measure, value in evaluation.mean.items()}
    return {
        file: {**values, **{f"{_CHOICE}{name}": value for name, value in choices.get(file, {}).items()}}
        for file, values in rows.items()
    }


def _published(result: DataSetResult, sources: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """The values that others have published, by system."""
    found: dict[str, dict[str, float]] = {}
    for each in result.dataset.published:
        over = f" over {each.first_stage}" if each.first_stage else ""
        found.setdefault(f"{each.system}{over} [{sources[each.source]}]", {})[each.measure] = each.value
    return found


def _overview(
    suite: Suite, settings: SuiteSettings, results: Sequence[DataSetResult], sources: Mapping[str, int]
) -> list[str]:
    """A row per data set, a column per system, by each data set's first measure."""
    of_requests = [dataset.is_of_requests for dataset in suite.datasets]
    files = {} if all(of_requests) else {FIRST_STAGE_RUN: "first stage (here)"}
    files |= {_CHANCE: "random, expected", _BM25_RUN: f"{BM25} (here)"} if any(of_requests) else {}
    ours = files[RERANKED_RUN] = f"{settings.reranker} (here)"
    columns: dict[str, dict[str, float]] = {name: {} for name in files.values()}
    measures = [str(parse_measures(result.dataset.measures)[0]) for result in results]
    for result, measure in zip(results, measures, strict=True):
        measured = {files[file]: values for file, values in _measured(result).items() if file in files}
        for system, values in (*measured.items(), *_published(result, sources).items()):
            if measure in values:
                columns.setdefault(system, {})[result.dataset.name] = values[measure]
    rows = []
    for result, measure in zip(results, measures, strict=True):
        cells = {system: figure(values.get(result.dataset.name)) for system, values in columns.items()}
        if result.failed is not None:
            cells[ours] = "failed"
        rows.append([result.dataset.name, measure, *cells.values()])
    if len(set(measures)) == 1:
        rows += _means(suite, results, columns, measures[0])
    return ["## Overview", markdown_table(["data set", "measure", *columns], rows, words=2)]


def _means(
    suite: Suite, results: Sequence[DataSetResult], columns: Mapping[str, Columns], measure: str
) -> list[list[str]]:
    """Rows of means: of each group, and of all, where a group counts as one; blank where a value is missing."""
    units: dict[str, tuple[str, ...]] = {result.dataset.name: (result.dataset.name,) for result in results}
    rows = []
    for group, members in suite.groups.items():
        if units.keys() >= set(members):
            means = (figure(_mean(members, values)) for values in columns.values())
            rows.append([f"{group}, mean of {len(members)}", measure, *means])
            units = {name: unit for name, unit in units.items() if name not in members} | {group: members}
    if len(units) > 1:
        rows.append([f"mean of {len(units)}", measure])
        for values in columns.values():
            of_units = {name: _mean(members, values) for name, members in units.items()}
            known = {name: mean for name, mean in of_units.items() if mean is not None}
            rows[-1].append(figure(_mean(tuple(units), known)))
    return rows


def _mean(names: Sequence[str], values: Columns) -> float | None:
    return sum(values[name] for name in names) / len(names) if values.keys() >= set(names) else None


def _section(result: DataSetResult, settings: SuiteSettings, sources: Mapping[str, int]) -> list[str]:
    """One data set: what it was run on, its table, and notes on it."""
    dataset, requests = result.dataset, result.requests
    columns = [str(measure) for measure in parse_measures(dataset.measures)]
    names = {FIRST_STAGE_RUN: "first stage (here)", RERANKED_RUN: f"**{settings.reranker}** (here)"}
    if dataset.is_of_requests:
        said, counted = f"Requests of `{dataset.origin}`", "" if requests is None else requests.counted
    else:
        said = f"Corpus `{dataset.corpus}`; first stage `{result.first_stage}`"
        limited = "" if result.asked == result.judged else f", of which the first {result.asked} were run"
        counted = f"{result.judged} judged queries{limited}" if result.judged else ""
    if requests is not None:
        columns += [f"{_CHOICE}{name}" for name in requests.choices[_CHANCE]]
        baselines = {each.file: f"{each.name} (here)" for each in requests.baselines}
        names = {_CHANCE: "random, expected", **baselines, **names}
    parts = [f"## {dataset.name}", "; ".join(filter(None, (said, counted))) + "."]
    if result.failed is not None:
        parts.append(f"**Failed:** {' '.join(result.failed.split())}")
    systems = [(names[file], values) for file, values in _measured(result).items()]
    rows = [
        [name, *(_cell(column, values.get(column)) for column in columns)]
        for name, values in (*systems, *_published(result, sources).items())
    ]
    parts += [markdown_table(["system", *columns], rows, words=1)] if rows else []
    return parts + _notes(result)


def _mind(note: str) -> str:
    return f"**Mind:** {note[0].upper()}{note[1:].rstrip('.')}."


def _notes(result: DataSetResult) -> list[str]:
    """How requests were measured, which judged queries count as 0, and what reranking counted."""
    notes = [] if result.requests is None else list(result.requests.notes)
    for role, file in (("First stage", FIRST_STAGE_RUN), ("Reranked", RERANKED_RUN)):
        if file in result.evaluations and (missing := result.evaluations[file].missing):
            counted = f"{len(missing)} of {len(result.evaluations[file].per_query)} judged queries"
            notes.append(f"{role}: {counted} have no results and count as 0: {first_of(missing)}.")
    if (summary := result.summary) is not None:
        usage = summary.usage
        notes.append(
            f"{summary.queries} queries reranked: {usage.calls} calls, {usage.prompt_tokens} tokens in, "
            f"{usage.completion_tokens} tokens out, {summary.repairs} repairs, "
            f"{summary.closed_thoughts or '0 thoughts not closed by the model'}, {summary.cut_passages} passages cut"
            + (f", the query cut in {summary.cut_queries} calls" if summary.cut_queries else "")
            + (f", {summary.choices}." if summary.choices else ".")
        )
        notes += map(_mind, sentences(summary.signs).values())
    return notes


def _cell(column: str, value: float | None) -> str:
    # What a choice brings may be a price of millionths.
    small = value is not None and column.startswith(_CHOICE) and 0 < abs(value) < 0.01
    return figure(value, ".3g" if small else ".4f")
