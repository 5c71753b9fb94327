"""What all pictures have in common: an empty figure, colours, and the way into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.files.partial import whole_file

if TYPE_CHECKING:
    from r1ranker_ir.eval.measuring.significance import MeanEstimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow: too pale on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""As many as there are colours, for those who can't tell these apart."""
GREY = "#9a9a9a"
"""For what stands back."""


def look_of(number: int) -> tuple[str, str]:
    """The colour and the marker of the n-th thing in a picture; they repeat after 49."""
    return COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def new_figure(width: float, height: float, *, feature: str, extra: str) -> Any:
    """Makes an empty figure, outside of pyplot, which keeps figures and picks a window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra(feature, extra, error) from error
    return Figure(figsize=(width, height), layout="constrained")


def prepare_folder(folder: str | Path, *, feature: str, extra: str, option: str = "--output") -> None:
    """Makes a folder for results, and makes sure that there is what draws pictures, before anything is measured."""
    new_figure(1, 1, feature=feature, extra=extra)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't make folder {str(folder)!r}: {error.strerror}: choose another {option}") from error


def draw_estimate(axis: Any, cost: float, estimate: MeanEstimate, *, label: str, look: tuple[str, str]) -> None:
    """Draws a mean with its 95% interval over what it has cost."""
    low, high = estimate.interval or (estimate.mean, estimate.mean)
    axis.errorbar(
        cost,
        estimate.mean,
        yerr=[[max(0.0, estimate.mean - low)], [max(0.0, high - estimate.mean)]],
        color=look[0],
        marker=look[1],
        markersize=7,
        capsize=4,
        linestyle="none",
        label=label,
    )


def legend_below(figure: Any, axis: Any, columns: int, fontsize: int = 9) -> None:
    """One legend for all panels, outside of them, where it hides nothing."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=fontsize)


def scale_by_magnitudes(axis: Any) -> None:
    """Makes the horizontal scale logarithmic, with numbers that people write."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1 else f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def tidy(axis: Any) -> None:
    """Gives an axis small labels, a pale grid and no frame above and beside."""
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def write_png(figure: Any, path: str | Path) -> None:
    """Writes a figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    try:
        with whole_file(path) as growing:
            FigureCanvasAgg(figure).print_figure(growing, format="png", dpi=130)
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another picture file") from error
