"""MovieLens 100K (`u.data`, `u.item`) and 1M (`ratings.dat`, `movies.dat`), as GroupLens gives them out.

Both are in Latin-1; 10M has the files of 1M in UTF-8, and is read as well. A rating counts as a choice, whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.interactions import Interaction, Interactions, histories_of, read_titles
from r1ranker_ir.adapters.recommendation.source_lines import source_rows, time_of
from r1ranker_ir.errors import InputError

# Text in Latin-1 with a letter beyond ASCII is no UTF-8, and text in UTF-8 would be garbled by Latin-1.
_ENCODINGS = ("utf-8", "latin-1")


@dataclass(frozen=True)
class Layout:
    """The files of a version of MovieLens, what splits their columns, and how many a movie has."""

    ratings: str
    ratings_mark: str
    movies: str
    movies_mark: str
    movies_columns: int


LAYOUTS = (Layout("u.data", "\t", "u.item", "|", 24), Layout("ratings.dat", "::", "movies.dat", "::", 3))


def layout_of(folder: Path) -> Layout | None:
    """The version of MovieLens that a folder holds."""
    return next((layout for layout in LAYOUTS if (folder / layout.ratings).is_file()), None)


def read_movielens(folder: Path, layout: Layout, problems: Problems) -> Interactions:
    """Reads MovieLens; ratings of the same second stay in the file's order."""
    movies = folder / layout.movies
    if not movies.is_file():
        raise InputError(f"{str(folder)!r} has {layout.ratings} and no {layout.movies}, which holds the titles: add it")
    rows = source_rows(movies, _ENCODINGS, layout.movies_mark, layout.movies_columns, problems)
    titles = read_titles(((where, cells[0], cells[1]) for where, cells in rows), problems)
    ratings = source_rows(folder / layout.ratings, _ENCODINGS, layout.ratings_mark, 4, problems)
    choices = (
        Interaction(user, item, time, where)
        for where, (user, item, _, stamp) in ratings
        if (time := time_of(stamp, where, problems)) is not None
    )
    return Interactions(folder.resolve().name, histories_of(choices, titles, problems), titles, "movie")
