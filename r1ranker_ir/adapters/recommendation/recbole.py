"""RecBole's atomic files: `.inter` for choices, `.item` for items.

Cells are split by tabs, and the first line names each column with its type: `user_id:token`. A cell of type `token_seq`
holds words split by spaces. See https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.interactions import (
    Interaction,
    Interactions,
    UserHistory,
    histories_of,
    read_titles,
    unknown_item,
)
from r1ranker_ir.adapters.recommendation.source_lines import rows_of, source_lines, time_of
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import split_columns

logger = logging.getLogger(__name__)

USER, ITEM, LIST, TIME = "user_id", "item_id", "item_id_list", "timestamp"
TITLES = ("title", "movie_title", "item_name", "app_name", "name")
"""Names under which RecBole's data sets have their titles; the first that a file has counts."""
TYPES = ("token", "token_seq", "float", "float_seq")


def read_recbole(path: Path, problems: Problems) -> Interactions:
    """Reads the `.inter` file, or the only one of a folder, and the `.item` file of the same name or the only one.

    With a column `item_id_list:token_seq` a line is a user: the list is what was chosen so far, `item_id` what came
    next. Without it a line is a choice, in the order of `timestamp`, or else in the file's.
    """
    inter = path if path.is_file() else _only(path, ".inter")
    item = inter.with_name(f"{inter.name.partition('.')[0]}.item")
    if not item.is_file():
        item = _only(inter.parent, ".item")
    titles = read_titles(_items(item, problems), problems)
    columns, rows = _table(inter, problems)
    _check_columns(inter, columns, (USER, ITEM))
    if LIST in columns:
        histories = tuple(_users(columns, rows, titles, problems))
    else:
        histories = histories_of(_choices(inter, columns, rows, problems), titles, problems)
    return Interactions((path if path.is_dir() else inter.with_suffix("")).resolve().name, histories, titles)


def _items(path: Path, problems: Problems) -> Iterator[tuple[str, str, str]]:
    columns, rows = _table(path, problems)
    _check_columns(path, columns, (ITEM,))
    title = next((name for name in TITLES if name in columns), None)
    if title is None:
        raise DataFileError(
            f"{path}:1: no column with titles (there are {', '.join(columns)}): name it title:token_seq"
        )
    for where, cells in rows:
        yield where, cells[columns[ITEM]], cells[columns[title]]


def _users(
    columns: Mapping[str, int], rows: Iterator[tuple[str, list[str]]], titles: Mapping[str, str], problems: Problems
) -> Iterator[UserHistory]:
    seen: set[str] = set()
    for where, cells in rows:
        user, target = cells[columns[USER]], cells[columns[ITEM]]
        if not user:
            problems.add(where, "blank user id", "give each line the user's id")
        elif user in seen:
            problems.add(where, "user has a line already", f"{user!r}: give one line a user, the latest")
        elif target not in titles:
            unknown_item(problems, where, target)
        else:
            seen.add(user)
            choices = split_columns(cells[columns[LIST]])
            for item in choices:
                if item not in titles:
                    unknown_item(problems, where, item)
            yield UserHistory(user, tuple(item for item in choices if item in titles), target, where)


def _choices(
    path: Path, columns: Mapping[str, int], rows: Iterator[tuple[str, list[str]]], problems: Problems
) -> Iterator[Interaction]:
    if TIME not in columns:
        logger.warning("%s has no column %s: its lines count as being in the order of time", path, TIME)
    for where, cells in rows:
        time = time_of(cells[columns[TIME]], where, problems) if TIME in columns else 0.0
        if time is not None:
            yield Interaction(cells[columns[USER]], cells[columns[ITEM]], time, where)


def _table(path: Path, problems: Problems) -> tuple[Mapping[str, int], Iterator[tuple[str, list[str]]]]:
    """Opens a file: column name to its place, and the rows with theirs."""
    lines = source_lines(path, ("utf-8",))
    _, header = next(lines, (1, ""))
    columns: dict[str, int] = {}
    for place, cell in enumerate(header.split("\t")):
        name, _, kind = cell.partition(":")
        if kind not in TYPES:
            raise DataFileError(
                f"{path}:1: column {cell!r} is not name:type, split by tabs: an atomic file begins with a line such as "
                f"'user_id:token\\titem_id:token', with types of {', '.join(TYPES)}"
            )
        columns[name] = place
    return columns, rows_of(path, lines, "\t", len(columns), problems)


def _check_columns(path: Path, columns: Mapping[str, int], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in columns]:
        raise DataFileError(
            f"{path}:1: no column {missing[0]!r} (there are {', '.join(columns)}): rename the right one"
        )


def _only(folder: Path, suffix: str) -> Path:
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no {suffix} file in {str(folder)!r}: RecBole's atomic files are needed")
    names = ", ".join(path.name for path in found)
    raise InputError(f"{len(found)} {suffix} files in {str(folder)!r} ({names}): give one of them with --source")
