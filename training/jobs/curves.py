"""Curves of trainings as one picture: losses, rewards, lengths and held-out measures over the steps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.output.pictures import COLOURS, new_figure, write_png
from r1ranker_ir.files.records import OpenRecord

from .json_records import read_record

LogHistory = Sequence[Mapping[str, Any]]
"""What a trainer has logged: one mapping a time, with `step` and the values by name."""

STATE_FILE = "trainer_state.json"

_STYLES = ("-", "--", ":", "-.")
_POINTS: dict[str, Any] = {"marker": "o", "markersize": 3.5}
_COLUMNS = 3
_PANEL_INCHES = (4.4, 3.0)
# A line of this many points or more is smoothed, over one part in this many of its points on either side.
_POINTS_TO_SMOOTH = 30
_SMOOTHED_SHARE = 20
_ACCURACY_KEY = re.compile(r"held_out/accuracy@(\d+)")


@dataclass(frozen=True)
class Panel:
    """One field of the picture."""

    title: str
    keys: re.Pattern[str]
    measured: bool = False


PANELS = (
    Panel("Loss", re.compile(r"loss|eval_loss")),
    Panel("Token accuracy", re.compile(r"mean_token_accuracy|eval_mean_token_accuracy")),
    Panel("Reward", re.compile(r"reward")),
    Panel("Reward by component", re.compile(r"rewards/((?:[^/]+/)*(?!(?:mean|std)$)[^/]+)(?:/mean)?")),
    Panel("KL to the reference", re.compile(r"kl")),
    Panel("Entropy (nats per token)", re.compile(r"entropy")),
    Panel("Completion length (tokens)", re.compile(r"completions/mean_length")),
    Panel("Completions cut at the limit (share)", re.compile(r"completions/clipped_ratio")),
    Panel("Groups without variance (share)", re.compile(r"frac_reward_zero_std")),
    Panel("Value loss", re.compile(r"value_loss|loss/value|value/loss")),
    Panel("Held-out RR", re.compile(r"held_out/RR"), measured=True),
    Panel("Held-out nDCG@10", re.compile(r"held_out/nDCG@10"), measured=True),
)


class _State(OpenRecord):
    """What transformers' trainer keeps of its state."""

    log_history: list[dict[str, Any]]


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """Reads what a trainer has logged: from a `trainer_state.json`, or a folder that holds one, or a checkpoint."""
    # A trainer logs NaN where it had no loss.
    return read_record(_State, _state_file(Path(path)), "give a trained folder").log_history


def _state_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{str(path)!r} does not exist: give a trained folder or its {STATE_FILE}")
        return path
    checkpoints = {int(each.name[11:]): each for each in path.glob("checkpoint-*") if each.name[11:].isdecimal()}
    for folder in (path, *(checkpoints[step] for step in sorted(checkpoints, reverse=True))):
        if (folder / STATE_FILE).is_file():
            return folder / STATE_FILE
    raise InputError(f"{str(path)!r} holds no {STATE_FILE}, and no checkpoint of it does: give a trained folder")


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

    A line of many points is drawn as its moving mean; of a single run the points themselves stay visible, pale.
    """
    fields = _fields(histories, x)
    lengths = _lengths(histories)
    count = len(fields) + bool(lengths)
    if not count:
        raise InputError(f"none of {', '.join(map(repr, histories)) or 'no logs'} holds a value over {x!r} to draw")
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    width, height = _PANEL_INCHES
    figure = new_figure(width * columns, height * rows + 0.5, feature="Drawing curves", extra="train")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    handles: dict[str, Any] = {}
    for number, (panel, keys) in enumerate(fields):
        _draw(axes[number], panel, keys, histories, x, handles)
    if lengths:
        _draw_lengths(axes[count - 1], lengths, histories)
    for unused in axes[count:]:
        unused.set_visible(False)
    if len(histories) > 1:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, len(handles)), frameon=False
        )
    if title:
        figure.suptitle(title)
    write_png(figure, path)


def _fields(histories: Mapping[str, Sequence[LogHistory]], x: str) -> list[tuple[Panel, list[str]]]:
    """The panels that have something to show, with the keys that each draws."""
    logs = [log for runs in histories.values() for log in runs]
    logged = dict.fromkeys(str(key) for log in logs for entry in log for key in entry)
    drawable = [key for key in logged if any(series_of(log, key, x)[0] for log in logs)]
    fields = []
    for panel in PANELS:
        keys = [key for key in drawable if panel.keys.fullmatch(key)]
        if len(histories) > 1 and len(keys) > 1:
            # Colours tell the runs apart, so that each component gets a panel of its own.
            fields += [(Panel(f"{panel.title}: {_line_name(panel, key)}", panel.keys), [key]) for key in keys]
        elif keys and not (panel.title == "Reward by component" and len(keys) == 1 and "reward" in drawable):
            fields.append((panel, keys))
    return fields


def _line_name(panel: Panel, key: str) -> str:
    found = panel.keys.fullmatch(key)
    name = found.group(1) if found and panel.keys.groups else key
    return name.removesuffix("_reward").replace("_", " ")


def _draw(
    axis: Any, panel: Panel, keys: list[str], histories: Mapping[str, Sequence[LogHistory]], x: str, handles: Any
) -> None:
    for run, (label, logs) in enumerate(histories.items()):
        for line, key in enumerate(keys):
            kind = run if len(histories) > 1 else line
            look = {"color": COLOURS[kind % len(COLOURS)], "linestyle": _STYLES[kind // len(COLOURS) % len(_STYLES)]}
            positions, low, mean, high = _band([series_of(log, key, x) for log in logs])
            if not positions:
                continue
            smooth = not panel.measured and len(positions) >= _POINTS_TO_SMOOTH
            if smooth and len(logs) == 1:
                axis.plot(positions, mean, color=look["color"], alpha=0.25, linewidth=0.8)
            if smooth:
                low, mean, high = (_moving_mean(values, len(values) // _SMOOTHED_SHARE) for values in (low, mean, high))
            if len(logs) > 1:
                axis.fill_between(positions, low, high, color=look["color"], alpha=0.15, linewidth=0)
            marks = _POINTS if panel.measured or len(positions) < 3 else {}
            [drawn] = axis.plot(positions, mean, linewidth=1.6, label=_line_name(panel, key), **look, **marks)
            handles.setdefault(f"{label} ({len(logs)} runs)" if len(logs) > 1 else label, drawn)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel(x.replace("_", " "), fontsize=9)
    _tidy(axis)
    if len(keys) > 1:
        axis.legend(fontsize=8, frameon=False)


def _tidy(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axis.margins(x=0.03)


def _band(
    series: Sequence[tuple[list[float], list[float]]],
) -> tuple[list[float], list[float], list[float], list[float]]:
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


def _lengths(histories: Mapping[str, Sequence[LogHistory]]) -> list[int]:
    """The numbers of candidates that held-out accuracy is known for."""
    keys = {str(key) for runs in histories.values() for log in runs for entry in log for key in entry}
    return sorted(int(found.group(1)) for key in keys if (found := _ACCURACY_KEY.fullmatch(key)))


def _draw_lengths(axis: Any, lengths: Sequence[int], histories: Mapping[str, Sequence[LogHistory]]) -> None:
    """Accuracy over the number of candidates shown, at the first and at the last measurement."""
    from matplotlib.lines import Line2D

    for run, logs in enumerate(histories.values()):
        colour = COLOURS[run % len(COLOURS)]
        for place, style in ((0, ":"), (-1, "-")):
            means = {}
            for length in lengths:
                measured = [series_of(log, f"held_out/accuracy@{length}")[1] for log in logs]
                # A single measurement is the last one.
                if values := [series[place] for series in measured if len(series) > (place == 0)]:
                    means[length] = sum(values) / len(values)
            axis.plot(list(means), list(means.values()), color=colour, linestyle=style, linewidth=1.6, **_POINTS)
    axis.set_title("Held-out accuracy by list length", fontsize=10)
    axis.set_xlabel("candidates shown", fontsize=9)
    _tidy(axis)
    shown = [Line2D([], [], color="#555555", linestyle=style, **_POINTS) for style in (":", "-")]
    axis.legend(shown, ["first measurement", "last"], fontsize=8, frameon=False)
