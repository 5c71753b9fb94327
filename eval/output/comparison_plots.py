"""A comparison of runs as pictures: each query's difference from the baseline, and measures against model calls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.comparison import Comparison, Difference

from . import pictures
from .comparison_report import P_HEADINGS, p_text
from .pictures import COLOURS, draw_estimate, legend_below, look_of, new_figure, tidy, write_png

if TYPE_CHECKING:
    from ir_measures import Measure

CALLS_PICTURE = "calls.png"
_FEATURE, _EXTRA = "Drawing comparisons", "eval"
_COLUMNS = 3
_PANEL_INCHES = (4.6, 3.6)
_LONGEST_NAME = 24


def prepare_folder(folder: str | Path) -> None:
    """Makes a folder for pictures, and makes sure that there is what draws them, before anything is computed."""
    pictures.prepare_folder(folder, feature=_FEATURE, extra=_EXTRA, option="--plot")


def write_pictures(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Draws `differences-<measure>.png` for each measure, and `calls.png` if the calls of two runs are known."""
    folder, written = Path(folder), list[Path]()
    for measure in comparison.measures:
        # Measures may hold quotes and braces, which not every file system takes.
        path = folder / f"differences-{quote(str(measure), safe='@=(), ')}.png"
        plot_differences(comparison, measure, path)
        written.append(path)
    if sum(run.calls is not None for run in comparison.all_runs) > 1:
        plot_calls(comparison, folder / CALLS_PICTURE)
        written.append(folder / CALLS_PICTURE)
    return written


def plot_differences(comparison: Comparison, measure: Measure, path: str | Path) -> None:
    """Draws each query's difference from the baseline by one measure: sorted bars, a panel per run."""
    shown = [difference for difference in comparison.differences if difference.measure == measure]
    figure, axes = _panels(len(shown))
    greatest = max(abs(value) for difference in shown for value in difference.per_query.values()) or 1.0
    for axis, difference in zip(axes, shown, strict=True):
        _draw_differences(axis, difference, comparison)
        axis.set_ylim(-1.08 * greatest, 1.08 * greatest)
    figure.suptitle(f"{measure}, query by query", fontsize=11)
    _finish(figure, axes, path)


def plot_calls(comparison: Comparison, path: str | Path) -> None:
    """Draws mean measures of runs with 95% intervals against model calls per query, in a panel per measure."""
    known = [(run, run.calls) for run in comparison.all_runs if run.calls is not None]
    if not known:
        raise InputError("no run's model calls are known: there is nothing to draw measures against")
    figure, axes = _panels(len(comparison.measures))
    for axis, measure in zip(axes, comparison.measures, strict=True):
        for number, (run, calls) in enumerate(known):
            draw_estimate(axis, calls, run.means[measure], label=_short(run.name), look=look_of(number))
        # Calls grow with a list's length, or with its square: 0 is drawn too, so not all is logarithmic.
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(left=-0.4)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(str(measure), fontsize=10)
        axis.set_xlabel("model calls per query", fontsize=9)
        axis.set_ylabel(f"mean {measure} and its 95% interval", fontsize=9)
    _finish(figure, axes, path)


def _panels(count: int) -> tuple[Any, list[Any]]:
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    width, height = _PANEL_INCHES
    figure = new_figure(width * columns, height * rows + 0.5, feature=_FEATURE, extra=_EXTRA)
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)
    axes = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def _finish(figure: Any, axes: list[Any], path: str | Path) -> None:
    for axis in axes:
        tidy(axis)
    legend_below(figure, axes[0], max(1, round(figure.get_figwidth() / 2.4)))
    write_png(figure, path)


def _draw_differences(axis: Any, difference: Difference, comparison: Comparison) -> None:
    values = sorted(difference.per_query.values(), reverse=True)
    places = range(1, len(values) + 1)
    for colour, sign in ((COLOURS[0], 1), (COLOURS[1], -1)):
        # One outline for all bars: thousands of single rectangles take seconds to draw.
        kept = [value if sign * value > 0 else 0.0 for value in values]
        axis.fill_between(places, kept, step="mid", color=colour, linewidth=0)
    axis.axhline(0, color="#444444", linewidth=0.8)
    axis.axhline(difference.mean.mean, color="#000000", linewidth=1.2, linestyle="--", label="mean")
    if difference.mean.interval is not None:
        axis.axhspan(*difference.mean.interval, color="#000000", alpha=0.12, linewidth=0, label="its 95% interval")
    mark = " *" if difference.significant else ""
    tested = f"{P_HEADINGS[comparison.settings.correction]} {p_text(difference.corrected, '= ')}{mark}"
    axis.set_title(f"{_short(difference.run)}\nmean {difference.mean.mean:+.4f}, {tested}", fontsize=10)
    counts = f"{difference.wins} better, {difference.ties} equal, {difference.losses} worse"
    axis.set_xlabel(f"queries, sorted ({counts})", fontsize=9)
    axis.set_ylabel(f"{_short(difference.run)} − {_short(comparison.baseline.name)}", fontsize=9)
    axis.set_xlim(0.3, len(values) + 0.7)


def _short(name: str) -> str:
    """A name that fits over a panel, without its middle, since ends tell runs apart; `$` starts no formula in it."""
    half = _LONGEST_NAME // 2
    shown = name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"
    return shown.replace("$", r"\$")
