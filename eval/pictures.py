"""What all pictures have in common: an empty figure, colours, and the way into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1ranker_ir.errors import InputError, missing_extra

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow: too pale on white."""


def new_figure(width: float, height: float, *, feature: str, extra: str) -> Any:
    """Makes an empty figure, outside of pyplot, which keeps figures and picks a window system.

    Args:
        width: in inches.
        height: in inches.
        feature: what wants to draw, as the subject of a sentence.
        extra: the extra that brings matplotlib for it.

    Returns:
        matplotlib's `Figure`.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra(feature, extra, error) from error
    return Figure(figsize=(width, height), layout="constrained")


def write_png(figure: Any, path: str | Path) -> None:
    """Writes a figure as a PNG.

    Args:
        figure: matplotlib's `Figure`.
        path: where to write it.

    Raises:
        InputError: if the file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    try:
        FigureCanvasAgg(figure).print_figure(path, format="png", dpi=130)
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror}: choose another picture file") from error
