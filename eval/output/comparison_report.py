"""A comparison of runs as text: for the terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from r1ranker_ir.eval.measuring.comparison import ComparedRun, Comparison, Difference, MeanEstimate
from r1ranker_ir.eval.measuring.significance import LEVEL, ROUNDING, Interval

from .sheets import Sheet

_NOTHING = "–"
_MARK = "*"
_SHOWN_IDS = 5
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
P_HEADINGS = {"holm": "p (Holm)", "bonferroni": "p (Bonferroni)", "none": "p (uncorrected)"}
"""What corrected p-values are called, by the correction."""
_CSV_COLUMNS = (
    *("run", "baseline", "measure", "queries", "without_results", "calls_per_query", "mean", "mean_low", "mean_high"),
    *("difference", "difference_low", "difference_high", "relative", "p_value", "corrected_p_value", "significant"),
    *("wins", "ties", "losses"),
)


def sheets(comparison: Comparison) -> list[Sheet]:
    """Lays a comparison out."""
    return [_means(comparison), _differences(comparison)]


def _means(comparison: Comparison) -> Sheet:
    runs = (comparison.baseline, *comparison.runs)
    with_calls = any(run.calls is not None for run in runs)
    with_missing = any(run.missing for run in runs)
    headings = ["run", *map(str, comparison.measures)]
    headings += ["calls per query"] * with_calls + ["without results"] * with_missing
    rows = []
    for run in runs:
        cells = [run.name, *(_with_interval(run.means[measure]) for measure in comparison.measures)]
        cells += [_NOTHING if run.calls is None else f"{run.calls:.4g}"] * with_calls
        cells += [str(len(run.missing))] * with_missing
        rows.append(tuple(cells))
    title = f"Means over {_queries(comparison)}, with {LEVEL:.0%} intervals"
    return Sheet(title, tuple(headings), tuple(rows))


def _queries(comparison: Comparison) -> str:
    if comparison.judged == comparison.queries:
        return _counted(comparison.queries, "judged query", "judged queries")
    return f"{comparison.queries} of {_counted(comparison.judged, 'judged query', 'judged queries')}"


def _differences(comparison: Comparison) -> Sheet:
    rows = [
        (
            difference.run,
            str(difference.measure),
            _with_interval(difference.mean, "+"),
            _NOTHING if difference.relative is None else f"{100 * difference.relative:+.1f}%",
            _p_value(difference.p_value),
            _p_value(difference.corrected) + (_MARK if difference.significant else ""),
            f"{difference.wins} / {difference.ties} / {difference.losses}",
        )
        for difference in comparison.differences
    ]
    corrected = P_HEADINGS[comparison.settings.correction]
    headings = ("run", "measure", "difference", "relative", "p", corrected, "better / equal / worse")
    title = f"Differences from {comparison.baseline.name}, with {LEVEL:.0%} intervals"
    return Sheet(title, headings, tuple(rows), words=2)


def _with_interval(estimate: MeanEstimate, sign: str = "") -> str:
    shown = f"{_rounded(estimate.mean):{sign}.4f}"
    if estimate.interval is None:
        return shown
    low, high = map(_rounded, estimate.interval)
    return f"{shown} ({low:{sign}.4f} to {high:{sign}.4f})"


def _rounded(value: float) -> float:
    return round(value, 4) + 0.0  # no -0.0000


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def notes(comparison: Comparison) -> list[str]:
    """Says how a comparison was made, and what is to be minded when it is read."""
    settings, tests = comparison.settings, len(comparison.differences)
    test = _TESTS[settings.test].format(resamples=settings.resamples, seed=settings.seed)
    heading = P_HEADINGS[settings.correction]
    family = (
        f"{_counted(tests, 'test', 'tests')} ({_counted(len(comparison.runs), 'run', 'runs')} × "
        f"{_counted(len(comparison.measures), 'measure', 'measures')})"
    )
    said = [
        f"Test: {test}; {_CORRECTIONS[settings.correction]} over {family}.",
        f"A star ({_MARK}) marks {heading} ≤ {settings.alpha:g}.",
        f"Intervals of means: percentile bootstrap over the queries, {settings.resamples:,} samples, seed "
        f"{settings.seed}.",
        f"Intervals of differences: "
        f"{_INTERVALS[settings.test].format(resamples=settings.resamples, seed=settings.seed)}; each for itself, not "
        f"corrected: one that leaves out 0 goes with p ≤ {1 - LEVEL:.2g}, not with {heading}.",
        *_about_intervals(comparison),
        f"Queries count as equal where the values differ by no more than {ROUNDING:g}.",
        *_about_queries(comparison),
    ]
    if comparison.queries == 1:
        said.append("One query says nothing about others: there are no intervals, and p is 1.")
    for difference in comparison.differences:
        values = set(difference.per_query.values())
        if settings.test == "ttest" and difference.p_value == 0 and max(values) - min(values) <= ROUNDING:
            said.append(
                f"{difference.run} differs by the same {difference.measure} in each query: a t-test then gives p = 0 "
                f"whatever their number; --test randomisation counts them."
            )
    for measure in comparison.measures:
        if measure.NAME == "Judged":
            said.append(f"{measure} says how much of a run is judged, not how good the run is.")
        if measure.NAME == "NumRet":
            said.append(f"{measure} is shown as the mean over the queries, not as the sum.")
    return said


def _about_intervals(comparison: Comparison) -> list[str]:
    """Where an interval and a p-value beside it seem to say different things, and why."""
    settings, heading = comparison.settings, P_HEADINGS[comparison.settings.correction]
    uncorrected, drawn, without = list[str](), list[str](), False
    for difference in comparison.differences:
        named, interval = f"{difference.run}, {difference.measure}", difference.mean.interval
        if interval is None:
            without = comparison.queries > 1
            continue
        beyond, below = interval.low > 0 or interval.high < 0, difference.p_value <= 1 - LEVEL
        if beyond != below:
            drawn.append(named)
        elif beyond and difference.corrected > 1 - LEVEL:
            uncorrected.append(named)
    said = []
    if uncorrected:
        said.append(
            f"{'; '.join(uncorrected)}: the interval leaves out 0, as p is no greater than {1 - LEVEL:.2g} before the "
            f"correction for {len(comparison.differences)} tests; {heading} is what counts."
        )
    if drawn:
        said.append(
            f"{'; '.join(drawn)}: p lies so near to {1 - LEVEL:.2g} that the samples of the test and those of the "
            f"interval fall on different sides of it: draw more (--resamples)."
        )
    if without and settings.test == "randomisation":
        said.append(
            f"{_counted(comparison.queries, 'query is', 'queries are')} too few for {LEVEL:.0%} intervals of the "
            f"randomisation test: even the rarest swap is not rare enough."
        )
    return said


def _about_queries(comparison: Comparison) -> list[str]:
    runs = (comparison.baseline, *comparison.runs)
    said = []
    if comparison.queries < comparison.judged:
        said.append(
            f"Only the {comparison.queries} of {comparison.judged} judged queries count that all runs have results for "
            f"(--only-run-queries)."
        )
    unlike = dict.fromkeys(each.run for each in comparison.differences if not each.same_queries)
    if unlike:
        common = comparison.queries - len({query_id for run in runs for query_id in run.missing})
        said.append(
            f"No star for {', '.join(unlike)}: {'it has' if len(unlike) == 1 else 'they have'} results for other "
            f"queries than {comparison.baseline.name}, and what is missing counts as 0. --only-run-queries compares "
            f"over the {_counted(common, 'query', 'queries')} that all runs have."
        )
    said += [
        f"{run.name}: {_counted(len(run.missing), 'judged query has', 'judged queries have')} no results, which counts "
        f"as 0: {_some(run.missing)}."
        for run in runs
        if run.missing
    ]
    nowhere = [query_id for query_id in comparison.baseline.missing if all(query_id in run.missing for run in runs)]
    if nowhere:
        said.append(
            f"{_counted(len(nowhere), 'judged query is', 'judged queries are')} in no run: equal, at 0, in all of them."
        )
    said += [
        f"{run.name}: {_counted(len(run.unjudged), 'query is', 'queries are')} not judged, which counts for nothing: "
        f"{_some(run.unjudged)}."
        for run in runs
        if run.unjudged
    ]
    return said


def _some(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:_SHOWN_IDS]) + (", …" if len(ids) > _SHOWN_IDS else "")


def as_text(comparison: Comparison) -> str:
    """Writes a comparison for the terminal."""
    from rich.console import Console

    written = io.StringIO()
    console = Console(file=written, width=1000, highlight=False, color_system=None)
    console.print(*(sheet.table() for sheet in sheets(comparison)))
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    return "\n".join([*lines, *notes(comparison)]) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Writes a comparison as Markdown."""
    listed = "\n".join(f"- {note}" for note in notes(comparison))
    return "\n\n".join([*(sheet.markdown() for sheet in sheets(comparison)), listed]) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Writes a comparison as CSV, with full precision."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    tested = {(difference.run, difference.measure): difference for difference in comparison.differences}
    for run in (comparison.baseline, *comparison.runs):
        for measure in comparison.measures:
            mean = run.means[measure]
            front = [run.name, comparison.baseline.name, str(measure), comparison.queries, len(run.missing), run.calls]
            cells = [*front, mean.mean, *_ends(mean.interval), *_tested_cells(tested.get((run.name, measure)))]
            writer.writerow(cells)
    return written.getvalue()


def _tested_cells(difference: Difference | None) -> list[object]:
    if difference is None:
        return [None] * 10
    return [
        difference.mean.mean,
        *_ends(difference.mean.interval),
        difference.relative,
        difference.p_value,
        difference.corrected,
        str(difference.significant).lower(),
        difference.wins,
        difference.ties,
        difference.losses,
    ]


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def as_json(comparison: Comparison) -> str:
    """Writes a comparison as JSON, with full precision and each query's differences."""
    settings = comparison.settings
    content = {
        "baseline": comparison.baseline.name,
        "queries": comparison.queries,
        "judged_queries": comparison.judged,
        "settings": {
            "test": settings.test,
            "correction": settings.correction,
            "tests": len(comparison.differences),
            "alpha": settings.alpha,
            "level": LEVEL,
            "resamples": settings.resamples,
            "seed": settings.seed,
        },
        "runs": [_run_json(run) for run in (comparison.baseline, *comparison.runs)],
        "differences": [
            {
                "run": difference.run,
                "measure": str(difference.measure),
                **_estimate_json(difference.mean),
                "relative": difference.relative,
                "p_value": difference.p_value,
                "corrected_p_value": difference.corrected,
                "significant": difference.significant,
                "same_queries": difference.same_queries,
                "wins": difference.wins,
                "ties": difference.ties,
                "losses": difference.losses,
                "per_query": dict(difference.per_query),
            }
            for difference in comparison.differences
        ],
        "notes": notes(comparison),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _run_json(run: ComparedRun) -> dict[str, Any]:
    return {
        "run": run.name,
        "means": {str(measure): _estimate_json(mean) for measure, mean in run.means.items()},
        "calls_per_query": run.calls,
        "missing": list(run.missing),
        "unjudged": list(run.unjudged),
    }


def _estimate_json(estimate: MeanEstimate) -> dict[str, float | None]:
    low, high = _ends(estimate.interval)
    return {"mean": estimate.mean, "low": low, "high": high}


FORMATS = {"table": as_text, "markdown": as_markdown, "csv": as_csv, "json": as_json}
"""How a comparison is written, by the name of the form."""
