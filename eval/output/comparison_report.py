"""A comparison of runs as text: for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from r1ranker_ir.eval.measuring.comparison import Comparison, Difference
from r1ranker_ir.eval.measuring.measures import first_of
from r1ranker_ir.eval.measuring.significance import LEVEL, ROUNDING, MeanEstimate

from .sheets import NOTHING, Sheet, tables_text

_MARK = "*"
_TESTS = {
    "ttest": "paired t-test over the queries, two-sided",
    "randomisation": "paired randomisation test over the queries, two-sided, {resamples:,} random swaps (all, where "
    "there are no more), seed {seed}",
}
_INTERVALS = {
    "ttest": "Student's t, which belongs to the test",
    "randomisation": "means of {resamples:,} random subsets of the queries (all, where there are no more), which "
    "belong to the test, seed {seed}",
}
_CORRECTIONS = {
    "holm": "Holm's correction",
    "bonferroni": "Bonferroni's correction",
    "none": "no correction, though false alarms add up,",
}
_P_HEADINGS = {"holm": "p (Holm)", "bonferroni": "p (Bonferroni)", "none": "p (uncorrected)"}


def means_sheet(comparison: Comparison) -> Sheet:
    with_missing = any(run.missing for run in comparison.all_runs)
    headings = ["run", *map(str, comparison.measures), *["without results"] * with_missing]
    rows = []
    for run in comparison.all_runs:
        cells = [run.name, *(run.means[measure].text() for measure in comparison.measures)]
        rows.append((*cells, *[str(len(run.missing))] * with_missing))
    judged = _counted(comparison.judged, "judged query", "judged queries")
    some = "" if comparison.judged == comparison.queries else f"{comparison.queries} of "
    return Sheet(f"Means over {some}{judged}, with {LEVEL:.0%} intervals", tuple(headings), tuple(rows))


def differences_sheet(comparison: Comparison) -> Sheet:
    rows = [
        (
            difference.run,
            str(difference.measure),
            difference.mean.text("+"),
            NOTHING if difference.relative is None else f"{100 * difference.relative:+.1f}%",
            p_text(difference.p_value),
            p_text(difference.corrected) + (_MARK if difference.significant else ""),
            f"{difference.wins} / {difference.ties} / {difference.losses}",
        )
        for difference in comparison.differences
    ]
    corrected = _P_HEADINGS[comparison.settings.correction]
    headings = ("run", "measure", "difference", "relative", "p", corrected, "better / equal / worse")
    title = f"Differences from {comparison.baseline.name}, with {LEVEL:.0%} intervals"
    return Sheet(title, headings, tuple(rows), words=2)


def p_text(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def notes(comparison: Comparison) -> list[str]:
    """Says how a comparison was made, and what to mind when reading it."""
    settings, tests = comparison.settings, len(comparison.differences)
    drawn = {"resamples": settings.resamples, "seed": settings.seed}
    heading = _P_HEADINGS[settings.correction]
    family = (
        f"{_counted(tests, 'test', 'tests')} ({_counted(len(comparison.runs), 'run', 'runs')} × "
        f"{_counted(len(comparison.measures), 'measure', 'measures')})"
    )
    said = [
        f"Test: {_TESTS[settings.test].format(**drawn)}; {_CORRECTIONS[settings.correction]} over {family}.",
        f"A star ({_MARK}) marks {heading} ≤ {settings.alpha:g}.",
        f"Intervals of means: percentile bootstrap over the queries, {settings.resamples:,} samples, seed "
        f"{settings.seed}.",
        f"Intervals of differences: {_INTERVALS[settings.test].format(**drawn)}; each for itself, not corrected: one "
        f"that leaves out 0 goes with p ≤ {1 - LEVEL:.2g}, not with {heading}.",
        f"Queries count as equal where the values differ by no more than {ROUNDING:g}.",
        *_about_queries(comparison),
    ]
    if beyond := [each for each in comparison.differences if _leaves_out_0(each) and each.corrected > 1 - LEVEL]:
        named = "; ".join(f"{each.run}, {each.measure}" for each in beyond)
        said.append(
            f"{named}: the interval leaves out 0, as p is no greater than {1 - LEVEL:.2g} before the correction for "
            f"{tests} tests; {heading} is what counts."
        )
    if comparison.queries == 1:
        said.append("One query says nothing about others: there are no intervals, and p is 1.")
    elif any(each.mean.interval is None for each in comparison.differences):
        said.append(f"{comparison.queries} queries are too few for {LEVEL:.0%} intervals of the randomisation test.")
    for difference in comparison.differences:
        values = difference.per_query.values()
        if settings.test == "ttest" and difference.p_value == 0 and max(values) - min(values) <= ROUNDING:
            said.append(
                f"{difference.run} differs by the same {difference.measure} in each query: a t-test then gives p = 0 "
                f"whatever their number; --test randomisation counts them."
            )
    return said


def _leaves_out_0(difference: Difference) -> bool:
    interval = difference.mean.interval
    return interval is not None and (interval.low > 0 or interval.high < 0)


def _about_queries(comparison: Comparison) -> list[str]:
    runs, said = comparison.all_runs, list[str]()
    if comparison.queries < comparison.judged:
        said.append(
            f"Only the {comparison.queries} of {comparison.judged} judged queries count that all runs have results for "
            f"(--only-run-queries)."
        )
    if unlike := dict.fromkeys(each.run for each in comparison.differences if not each.same_queries):
        common = comparison.queries - len({query_id for run in runs for query_id in run.missing})
        said.append(
            f"No star for {', '.join(unlike)}: {'it has' if len(unlike) == 1 else 'they have'} results for other "
            f"queries than {comparison.baseline.name}, and what is missing counts as 0. --only-run-queries compares "
            f"over the {_counted(common, 'query', 'queries')} that all runs have."
        )
    for run in runs:
        if run.missing:
            lacking = _counted(len(run.missing), "judged query has", "judged queries have")
            said.append(f"{run.name}: {lacking} no results, which counts as 0: {first_of(run.missing)}.")
        if run.unjudged:
            extra = _counted(len(run.unjudged), "query is", "queries are")
            said.append(f"{run.name}: {extra} not judged, which counts for nothing: {first_of(run.unjudged)}.")
    if nowhere := set.intersection(*(set(run.missing) for run in runs)):
        lacking = _counted(len(nowhere), "judged query is", "judged queries are")
        said.append(f"{lacking} in no run: equal, at 0, in all of them.")
    return said


def as_text(comparison: Comparison) -> str:
    """Two tables and the notes, for the terminal."""
    return tables_text((means_sheet(comparison), differences_sheet(comparison))) + "\n".join(notes(comparison)) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Two tables and the notes in Markdown."""
    listed = "\n".join(f"- {note}" for note in notes(comparison))
    return "\n\n".join([means_sheet(comparison).markdown(), differences_sheet(comparison).markdown(), listed]) + "\n"


def as_json(comparison: Comparison) -> str:
    """Everything as JSON with full precision, each query's differences included."""
    content = {
        "baseline": comparison.baseline.name,
        "queries": comparison.queries,
        "judged_queries": comparison.judged,
        "settings": {**asdict(comparison.settings), "tests": len(comparison.differences), "level": LEVEL},
        "runs": [
            {
                "run": run.name,
                "means": {str(measure): _estimate(mean) for measure, mean in run.means.items()},
                "missing": list(run.missing),
                "unjudged": list(run.unjudged),
            }
            for run in comparison.all_runs
        ],
        "differences": [
            {
                "run": difference.run,
                "measure": str(difference.measure),
                **_estimate(difference.mean),
                **_tested(difference),
                "same_queries": difference.same_queries,
                "per_query": dict(difference.per_query),
            }
            for difference in comparison.differences
        ],
        "notes": notes(comparison),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _tested(difference: Difference) -> dict[str, Any]:
    names = ("relative", "p_value", "corrected", "significant", "wins", "ties", "losses")
    renamed = {"corrected": "corrected_p_value"}
    return {renamed.get(name, name): getattr(difference, name) for name in names}


def _estimate(estimate: MeanEstimate) -> dict[str, float | None]:
    low, high = estimate.interval or (None, None)
    return {"mean": estimate.mean, "low": low, "high": high}


FORMATS = {"table": as_text, "markdown": as_markdown, "json": as_json}
"""How a comparison is written, by the name of the form."""
