"""Records of files checked by pydantic: what is wrong is said as `file:line: field 'a[2].b' is -1: …`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from r1ranker_ir.errors import DataFileError, R1RankerError
from r1ranker_ir.files.json_lines import json_lines
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import SETTINGS_BYTES, read_small_text
from r1ranker_ir.quoting import quoted


class Record(BaseModel):
    """A record of a file: types are not converted, numbers are finite, and unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class OpenRecord(Record):
    """A record that may have other fields as well, which are not looked at."""

    model_config = ConfigDict(extra="ignore")


def _id_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("give at least one word")
    return value


def _not_empty(value: str) -> str:
    # Not by pydantic's least length, for which half a surrogate pair is not text.
    if not value:
        raise ValueError("give a text that is not empty")
    return value


Id = Annotated[str, AfterValidator(_not_empty), BeforeValidator(_id_text)]
"""A text that is not empty, or a whole number."""
Words = Annotated[str, AfterValidator(_not_blank)]
"""A text that is not blank."""

_WANTED = {
    "string_type": "give a text",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "list_type": "give a list",
    "dict_type": "give an object",
    "too_short": "give at least {min_length}",
    "greater_than_equal": "give at least {ge:g}",
    "less_than_equal": "give at most {le:g}",
}
"""What to do about pydantic's kinds of errors, where its own words are those of Python."""

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def checked_record(
    kind: type[AnyRecord],
    value: object,
    where: str,
    *,
    error: Callable[[str], R1RankerError] = DataFileError,
    shown: Callable[[object], str] = quoted,
) -> AnyRecord:
    """Makes a record of plain data; `where` is its file and line, and `shown` writes a value that is refused."""
    try:
        return kind.model_validate(value)
    except ValidationError as refused:
        problem = _problem(kind, refused, shown)
    # Outside of the clause: pydantic's own error would stay its context, and shows values, which may be secret.
    raise error(f"{where}: {problem}")


def record_of_file(
    kind: type[AnyRecord],
    path: Path,
    way_out: str,
    *,
    error: Callable[[str], R1RankerError] = DataFileError,
    most: int = SETTINGS_BYTES,
    finite: bool = True,
    unique: bool = False,
) -> AnyRecord:
    """Makes a record of a JSON file of at most `most` bytes; `finite` and `unique` as for `parse_json`."""
    text = read_small_text(path, str(path), way_out, error=error, most=most)
    try:
        content = parse_json(text, finite=finite, unique=unique)
    except ValueError as unreadable:
        raise error(f"{path} is not valid JSON ({unreadable}): {way_out}") from unreadable
    return checked_record(kind, content, str(path), error=error)


def checked_lines(kind: type[AnyRecord], path: Path) -> Iterator[tuple[int, AnyRecord]]:
    """Yields the records of a JSON Lines file with the numbers of their lines."""
    for number, row in json_lines(path):
        yield number, checked_record(kind, row, f"{path}:{number}")


def _problem(kind: type[BaseModel], error: ValidationError, shown: Callable[[object], str]) -> str:
    """The first problem: the field, its value, and what it should be."""
    problems = error.errors(include_url=False)
    first = problems[0]
    if first["type"] == "missing":
        # A field that is not known beside it may be this one, misspelt.
        beside = (each for each in problems if each["loc"][:-1] == first["loc"][:-1])
        first = next((each for each in beside if each["type"] == "extra_forbidden"), first)
    place, told = first["loc"], first["msg"].removeprefix("Value error, ")
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
    field = f"field {name!r}" if place else "the record"
    if first["type"] == "missing":
        return f"{field} is missing: give it"
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"use {', '.join(known) or 'no such field'}"
        return f"{field} is unknown: {meant}"
    if first["type"] == "model_type":
        told = f"give an object with {', '.join(_fields_at(kind, place))}"
    if first["type"] in _WANTED:
        told = _WANTED[first["type"]].format(**first.get("ctx", {}))
    told = told.replace("Input should be", "it must be")
    of_the_whole = not place and first["type"] == "value_error"
    return f"{field}: {told}" if of_the_whole else f"{field} is {shown(first['input'])}: {told}"


def _fields_at(kind: Any, place: Iterable[int | str]) -> list[str]:
    """The fields of the record at a place within a record; none where that can't be told."""
    for step in place:
        fields = getattr(kind, "model_fields", {})
        kind = fields[step].annotation if step in fields else (get_args(kind) or (None,))[-1]
    return [field.alias or name for name, field in getattr(kind, "model_fields", {}).items()]
