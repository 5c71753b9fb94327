"""What all pictures have in common: an empty figure, colours, and the way into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.files.locks import make_output_folder
from r1ranker_ir.files.partial import whole_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow: too pale on white."""
GREY = "#9a9a9a"
"""For what stands back."""


def new_figure(width: float, height: float, *, feature: str, extra: str) -> Any:
    """Makes an empty figure, outside of pyplot, which keeps figures and picks a window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra(feature, extra, error) from error
    return Figure(figsize=(width, height), layout="constrained")


def prepare_folder(folder: str | Path, *, feature: str, extra: str) -> None:
    """Makes a folder for results, and makes sure that there is what draws pictures, before anything is measured."""
    new_figure(1, 1, feature=feature, extra=extra)
    make_output_folder(folder, "--output")


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
