"""Which format a source of recommendation data has."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.interactions import Interactions
from r1ranker_ir.adapters.recommendation.movielens import LAYOUTS, layout_of, read_movielens
from r1ranker_ir.adapters.recommendation.recbole import read_recbole
from r1ranker_ir.errors import DataFileError, InputError


def open_interactions(path: str | Path, problems: Problems | None = None) -> Interactions:
    """Reads a folder with RecBole's atomic files or MovieLens, an `.inter` file, or MovieLens' file of ratings."""
    path, problems = Path(path), Problems() if problems is None else problems
    if not path.exists():
        raise InputError(f"source {str(path)!r} does not exist: give a folder with RecBole's or MovieLens' files")
    layout = layout_of(path if path.is_dir() else path.parent)
    ratings = None if layout is None else layout.ratings
    if layout is not None and (path.is_dir() or path.name == ratings):
        interactions = read_movielens(path if path.is_dir() else path.parent, layout, problems)
    elif path.suffix == ".inter" or (path.is_dir() and any(path.glob("*.inter"))):
        interactions = read_recbole(path, problems)
    else:
        known = ", ".join(layout.ratings for layout in LAYOUTS)
        raise InputError(
            f"source {str(path)!r} is in no known format: give a folder with an .inter file (RecBole) or with {known} "
            "(MovieLens), or one of these files"
        )
    if not interactions.histories:
        raise DataFileError(f"source {str(path)!r} holds no user with a known item ({problems.line()})")
    return interactions
