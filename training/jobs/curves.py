"""Curves of trainings as one picture: losses, rewards, lengths and held-out measures over the steps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.pictures import COLOURS, new_figure, tidy, write_png
from r1ranker_ir.files.records import OpenRecord

from .json_records import read_record

LogHistory = Sequence[Mapping[str, Any]]
"""What a trainer has logged: one mapping a time, with `step` and the values by name."""

STATE_FILE = "trainer_state.json"
PANELS = {
    "Loss": re.compile(r"loss|eval_loss"),
    "Token accuracy": re.compile(r"mean_token_accuracy|eval_mean_token_accuracy"),
    "Reward": re.compile(r"reward"),
    "Reward by component": re.compile(r"rewards/((?:[^/]+/)*(?!(?:mean|std)$)[^/]+)(?:/mean)?"),
    "KL to the reference": re.compile(r"kl"),
    "Entropy (nats per token)": re.compile(r"entropy"),
    "Completion length (tokens)": re.compile(r"completions/mean_length"),
    "Completions cut at the limit (share)": re.compile(r"completions/clipped_ratio"),
    "Groups without variance (share)": re.compile(r"frac_reward_zero_std"),
    "Value loss": re.compile(r"value_loss|loss/value|value/loss"),
    "Held-out RR": re.compile(r"held_out/RR"),
    "Held-out nDCG@10": re.compile(r"held_out/nDCG@10"),
    "Held-out accuracy by list length": re.compile(r"held_out/accuracy@(\d+)"),
}
"""The titles of the picture's fields, and what each draws."""

_STYLES = ("-", "--", ":", "-.")
_POINTS: dict[str, Any] = {"marker": "o", "markersize": 3.5}
_COLUMNS = 3
_PANEL_INCHES = (4.4, 3.0)
# A line of this many points or more is smoothed, over one part in this many of its points on either side.
_POINTS_TO_SMOOTH = 30
_SMOOTHED_SHARE = 20


class _State(OpenRecord):
    """What transformers' trainer keeps of its state."""

    log_history: list[dict[str, Any]]


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """Reads what a trainer has logged: from a `trainer_state.json`, or a folder that holds one, or a checkpoint."""
    path = Path(path)
    checkpoints = [each for each in path.glob("checkpoint-*") if each.name[11:].isdecimal()]
    folders = [path, *sorted(checkpoints, key=lambda each: -int(each.name[11:]))]
    in_folders = next((each / STATE_FILE for each in folders if (each / STATE_FILE).is_file()), None)
    file = path if path.exists() and not path.is_dir() else in_folders
    if file is None:
        why = f"holds no {STATE_FILE}, and no checkpoint of it does" if path.exists() else "does not exist"
        raise InputError(f"{str(path)!r} {why}: give a trained folder")
    # A trainer logs NaN where it had no loss.
    return read_record(_State, file, "give a trained folder").log_history


def series_of(history: LogHistory, key: str, x: str = "step") -> tuple[list[float], list[float]]:
    """Picks one value out of a log."""
    points: dict[float, float] = {}
    position = math.nan
    for entry in history:
        # Held-out measurements are logged beside the training's values: what is not in an entry is as it was before.
        if isinstance(at := entry.get(x), int | float):
            position = float(at)
        value = entry.get(key)
        if isinstance(value, int | float) and math.isfinite(value) and math.isfinite(position):
            points[position] = float(value)
    positions = sorted(points)
    return positions, [points[position] for position in positions]


def plot_curves(
    histories: Mapping[str, Sequence[LogHistory]], path: str | Path, *, x: str = "step", title: str = ""
) -> None:
    """Draws the logs of one or more trainings as a PNG.

    A line of many points is drawn as its moving mean; the logs of one label become their mean with its range.
    """
    fields = _fields(histories, x)
    if not fields:
        raise InputError(f"none of {', '.join(map(repr, histories)) or 'no logs'} holds a value over {x!r} to draw")
    columns = min(_COLUMNS, len(fields))
    rows = math.ceil(len(fields) / columns)
    width, height = _PANEL_INCHES
    figure = new_figure(width * columns, height * rows + 0.5, feature="Drawing curves", extra="train")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    handles: dict[str, Any] = {}
    for axis, (name, keys) in zip(axes, fields.items(), strict=False):
        handles = _draw(axis, keys, histories, x) | handles
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(x.replace("_", " "), fontsize=9)
    for unused in axes[len(fields) :]:
        unused.set_visible(False)
    if len(histories) > 1:
        below = {"loc": "outside lower center", "ncols": min(4, len(handles)), "frameon": False}
        figure.legend(list(handles.values()), list(handles), **below)
    if title:
        figure.suptitle(title)
    write_png(figure, path)


def _fields(histories: Mapping[str, Sequence[LogHistory]], x: str) -> dict[str, dict[str, str]]:
    """The titles of what there is to show, each with the keys that are drawn and what they are called."""
    logs = [log for runs in histories.values() for log in runs]
    logged = dict.fromkeys(str(key) for log in logs for entry in log for key in entry)
    drawable = [key for key in logged if any(series_of(log, key, x)[0] for log in logs)]
    fields: dict[str, dict[str, str]] = {}
    for title, pattern in PANELS.items():
        found = [match for key in drawable if (match := pattern.fullmatch(key))]
        names = {each[0]: each[pattern.groups].removesuffix("_reward").replace("_", " ") for each in found}
        if len(histories) > 1 and len(names) > 1:
            # Colours tell the runs apart, so that each component gets a panel of its own.
            fields |= {f"{title}: {name}": {key: name} for key, name in names.items()}
        elif names and not (title == "Reward by component" and len(names) == 1 and "reward" in drawable):
            fields[title] = names
    return fields


def _draw(axis: Any, names: Mapping[str, str], histories: Mapping[str, Sequence[LogHistory]], x: str) -> dict[str, Any]:
    """Draws a panel; returns the lines by their runs' labels."""
    from matplotlib.ticker import MaxNLocator

    handles: dict[str, Any] = {}
    for run, (label, logs) in enumerate(histories.items()):
        for line, (key, name) in enumerate(names.items()):
            kind = run if len(histories) > 1 else line
            look = {"color": COLOURS[kind % len(COLOURS)], "linestyle": _STYLES[kind // len(COLOURS) % len(_STYLES)]}
            positions, low, mean, high = _band([series_of(log, key, x) for log in logs])
            if not positions:
                continue
            measured = key.startswith("held_out/")
            if not measured and len(positions) >= _POINTS_TO_SMOOTH:
                if len(logs) == 1:
                    axis.plot(positions, mean, color=look["color"], alpha=0.25, linewidth=0.8)
                low, mean, high = (_moving_mean(values, len(values) // _SMOOTHED_SHARE) for values in (low, mean, high))
            if len(logs) > 1:
                axis.fill_between(positions, low, high, color=look["color"], alpha=0.15, linewidth=0)
            marks = _POINTS if measured or len(positions) < 3 else {}
            [drawn] = axis.plot(positions, mean, linewidth=1.6, label=name, **look, **marks)
            handles.setdefault(f"{label} ({len(logs)} runs)" if len(logs) > 1 else label, drawn)
    if len(names) > 1:
        axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axis.margins(x=0.03)
    return handles


def _band(series: Sequence[tuple[list[float], list[float]]]) -> tuple[list[float], ...]:
    """Positions that all runs reach, with least, mean and greatest value there; between logged points it is linear."""
    import numpy as np

    present = [(positions, values) for positions, values in series if positions]
    first = max((positions[0] for positions, _ in present), default=math.inf)
    last = min((positions[-1] for positions, _ in present), default=-math.inf)
    grid = sorted({place for positions, _ in present for place in positions if first <= place <= last})
    if not grid:
        return [], [], [], []
    values = np.array([np.interp(grid, positions, points) for positions, points in present])
    return grid, values.min(axis=0).tolist(), values.mean(axis=0).tolist(), values.max(axis=0).tolist()


def _moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value and of up to `reach` neighbours on either side."""
    around = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in around]
