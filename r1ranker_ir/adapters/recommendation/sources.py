"""Sources of recommendation data: RecBole's atomic files, and MovieLens 100K and 1M as GroupLens gives them out.

RecBole's cells are split by tabs, and the first line names each column with its type: `user_id:token`. A cell of type
`token_seq` holds words split by spaces. See https://recbole.io/docs/user_guide/data/atomic_files.html

MovieLens is in Latin-1; 10M has the files of 1M in UTF-8, and is read as well. A rating counts as a choice, whatever it
is.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.interactions import (
    Interaction,
    Interactions,
    UserHistory,
    histories_of,
    read_titles,
    unknown_item,
)
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import WHITE_SPACE, readable_lines, split_columns
from r1ranker_ir.files.plain_data import number_of

logger = logging.getLogger(__name__)

USER, ITEM, LIST, TIME = "user_id", "item_id", "item_id_list", "timestamp"
TITLES = ("title", "movie_title", "item_name", "app_name", "name")
"""Names under which RecBole's data sets have their titles; the first that a file has counts."""
TYPES = ("token", "token_seq", "float", "float_seq")


class Layout(NamedTuple):
    """The files of a version of MovieLens, what splits their columns, and how many a movie has."""

    ratings: str
    ratings_mark: str
    movies: str
    movies_mark: str
    movies_columns: int


LAYOUTS = (Layout("u.data", "\t", "u.item", "|", 24), Layout("ratings.dat", "::", "movies.dat", "::", 3))

_Row = tuple[str, dict[str, str]]
"""Where a line stands, and column to cell."""


def open_interactions(path: str | Path, problems: Problems | None = None) -> Interactions:
    """Reads a folder with RecBole's atomic files or MovieLens, an `.inter` file, or MovieLens' file of ratings."""
    path, problems = Path(path), Problems() if problems is None else problems
    if not path.exists():
        raise InputError(f"source {str(path)!r} does not exist: give a folder with RecBole's or MovieLens' files")
    folder = path if path.is_dir() else path.parent
    layout = next((each for each in LAYOUTS if (folder / each.ratings).is_file()), None)
    if layout is not None and path in (folder, folder / layout.ratings):
        interactions = _read_movielens(folder, layout, problems)
    elif path.suffix == ".inter" or (path.is_dir() and any(path.glob("*.inter"))):
        interactions = _read_recbole(path, problems)
    else:
        known = ", ".join(layout.ratings for layout in LAYOUTS)
        raise InputError(
            f"source {str(path)!r} is in no known format: give a folder with an .inter file (RecBole) or with {known} "
            "(MovieLens), or one of these files"
        )
    if not interactions.histories:
        raise DataFileError(f"source {str(path)!r} holds no user with a known item ({problems.line()})")
    return interactions


def _read_movielens(folder: Path, layout: Layout, problems: Problems) -> Interactions:
    """Reads MovieLens; ratings of the same second stay in the file's order."""
    movies, ratings = folder / layout.movies, folder / layout.ratings
    if not movies.is_file():
        raise InputError(f"{str(folder)!r} has {layout.ratings} and no {layout.movies}, which holds the titles: add it")
    columns = (ITEM, "title", *map(str, range(layout.movies_columns - 2)))
    of_items = _rows(movies, _lines(movies, latin_1=True), layout.movies_mark, columns, problems)
    titles = read_titles(((where, cells[ITEM], cells["title"]) for where, cells in of_items), problems)
    rows = _rows(ratings, _lines(ratings, latin_1=True), layout.ratings_mark, (USER, ITEM, "rating", TIME), problems)
    histories = histories_of(_choices(rows, problems), titles, problems)
    return Interactions(folder.resolve().name, histories, titles, "movie")


def _read_recbole(path: Path, problems: Problems) -> Interactions:
    """Reads the `.inter` file, or the only one of a folder, and the `.item` file of the same name or the only one.

    With a column `item_id_list:token_seq` a line is a user: the list is what was chosen so far, `item_id` what came
    next. Without it a line is a choice, in the order of `timestamp`, or else in the file's.
    """
    inter = path if path.is_file() else _only(path, ".inter")
    item = inter.with_name(f"{inter.name.partition('.')[0]}.item")
    if not item.is_file():
        item = _only(inter.parent, ".item")
    columns, of_items = _table(item, problems, (ITEM,))
    title = next((name for name in TITLES if name in columns), None)
    if title is None:
        raise DataFileError(
            f"{item}:1: no column with titles (there are {', '.join(columns)}): name it title:token_seq"
        )
    titles = read_titles(((where, cells[ITEM], cells[title]) for where, cells in of_items), problems)
    columns, rows = _table(inter, problems, (USER, ITEM))
    if LIST in columns:
        histories = tuple(_users(rows, titles, problems))
    else:
        if TIME not in columns:
            logger.warning("%s has no column %s: its lines count as being in the order of time", inter, TIME)
        histories = histories_of(_choices(rows, problems), titles, problems)
    return Interactions((path if path.is_dir() else inter.with_suffix("")).resolve().name, histories, titles)


def _users(rows: Iterable[_Row], titles: Mapping[str, str], problems: Problems) -> Iterator[UserHistory]:
    seen: set[str] = set()
    for where, cells in rows:
        user, target = cells[USER], cells[ITEM]
        if not user:
            problems.add(where, "blank user id", "give each line the user's id")
        elif user in seen:
            problems.add(where, "user has a line already", f"{user!r}: give one line a user, the latest")
        elif target not in titles:
            unknown_item(problems, where, target)
        else:
            seen.add(user)
            choices = split_columns(cells[LIST])
            for item in choices:
                if item not in titles:
                    unknown_item(problems, where, item)
            yield UserHistory(user, tuple(item for item in choices if item in titles), target, where)


def _choices(rows: Iterable[_Row], problems: Problems) -> Iterator[Interaction]:
    for where, cells in rows:
        time, said = math.nan, cells.get(TIME, "0")
        with contextlib.suppress(DataFileError):
            time = number_of(said, where)
        if math.isfinite(time):
            yield Interaction(cells[USER], cells[ITEM], time, where)
        else:
            problems.add(where, "time is no number", repr(said))


def _table(path: Path, problems: Problems, needed: Sequence[str]) -> tuple[list[str], Iterator[_Row]]:
    """Opens an atomic file: its columns, and the rows."""
    lines = _lines(path)
    _, header = next(lines, (1, ""))
    columns = []
    for cell in header.split("\t"):
        name, _, kind = cell.partition(":")
        if kind not in TYPES:
            raise DataFileError(
                f"{path}:1: column {cell!r} is not name:type, split by tabs: an atomic file begins with a line such as "
                f"'user_id:token\\titem_id:token', with types of {', '.join(TYPES)}"
            )
        columns.append(name)
    if missing := [name for name in needed if name not in columns]:
        raise DataFileError(
            f"{path}:1: no column {missing[0]!r} (there are {', '.join(columns)}): rename the right one"
        )
    return columns, _rows(path, lines, "\t", columns, problems)


def _only(folder: Path, suffix: str) -> Path:
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{len(found)} {suffix} files in {str(folder)!r} ({names}): give one of them with --source")
    return found[0]


def _lines(path: Path, *, latin_1: bool = False) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file that are not blank; with `latin_1`, that is the encoding of what is no UTF-8."""
    for number, raw in readable_lines(path):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            if not latin_1:
                raise DataFileError(f"{path}:{number}: not utf-8: convert the file") from None
            line = raw.decode("latin-1")
        if line.strip(WHITE_SPACE):
            yield number, line.rstrip("\r\n")


def _rows(
    path: Path, lines: Iterator[tuple[int, str]], mark: str, columns: Sequence[str], problems: Problems
) -> Iterator[_Row]:
    """Yields lines split into cells, with their places; lines of another width are problems."""
    for number, line in lines:
        where = f"{path.name}:{number}"
        cells = [cell.strip(WHITE_SPACE) for cell in line.split(mark)]
        if len(cells) == len(columns):
            yield where, dict(zip(columns, cells, strict=True))
        else:
            problems.add(where, f"not {len(columns)} columns", f"{len(cells)} where {mark!r} splits the line")
