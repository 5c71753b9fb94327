"""Choices from a pandas frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.recommendation.interactions import Interaction, Interactions, histories_of, read_titles
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.json_lines import WHITE_SPACE

if TYPE_CHECKING:
    import pandas as pd


def interactions_of_frame(
    frame: pd.DataFrame,
    *,
    user: str,
    item: str,
    time: str | None = None,
    titles: Mapping[Any, str] | None = None,
    source: str = "frame",
    problems: Problems | None = None,
) -> Interactions:
    """Takes users' choices from a pandas frame, one per row, given the names of its columns.

    Without a column of times (numbers, or dates) the order of rows counts; without `titles` (item to title, a dict or a
    Series) items are titles themselves. Whole numbers, also in a column of floats, are ids without a decimal point.
    """
    problems = Problems() if problems is None else problems
    if not hasattr(frame, "columns"):
        raise InputError(f"{type(frame).__name__} given where a pandas frame is needed: make one of it")
    for column in (user, item, *([] if time is None else [time])):
        if column not in frame.columns:
            raise InputError(f"the frame has no column {column!r}: it has {', '.join(map(repr, frame.columns))}")
    named = frame[item].dropna().unique() if titles is None else titles.keys()
    texts = {} if titles is None else titles
    rows = ((f"titles[{key!r}]", _text(key), _text(texts[key] if titles is not None else key)) for key in named)
    known = read_titles(rows, problems)
    return Interactions(source, histories_of(_rows(frame, user, item, time, problems), known, problems), known)


def _rows(frame: pd.DataFrame, user: str, item: str, time: str | None, problems: Problems) -> Iterator[Interaction]:
    import pandas as pd

    if time is None:
        times = [0.0] * len(frame)
    else:
        column = frame[time]
        if not pd.api.types.is_datetime64_any_dtype(column):
            column = pd.to_numeric(column, errors="coerce")
        times = column.rank(method="dense").tolist()  # of dates, too; what is missing stays NaN
    given = times if time is None else frame[time]
    for label, who, what, when, said in zip(frame.index, frame[user], frame[item], times, given, strict=True):
        where = f"row {label!r}"
        if math.isfinite(when):
            yield Interaction(_text(who), _text(what), when, where)
        else:
            problems.add(where, "time is no number", f"column {time!r} holds {said!r}")


def _text(value: Any) -> str:
    """Writes an id; blank where it is missing."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip(WHITE_SPACE)
