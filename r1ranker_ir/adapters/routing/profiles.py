"""Files of language models: profiles in JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, ConfigDict, Field

from r1ranker_ir.adapters.routing.llms import LLMProfile, check_profiles
from r1ranker_ir.adapters.routing.tables import is_table, read_table
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.described import described
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.records import OpenRecord, Words, checked_record
from r1ranker_ir.files.small_files import RECORD_BYTES, read_small_text
from r1ranker_ir.quoting import quoted

_WAY_OUT = "give a .json or .csv file"


class _Entry(OpenRecord):
    name: Words
    price_in: Annotated[float, Field(ge=0, validation_alias=AliasChoices("price_in", "input_price"))]
    price_out: Annotated[float, Field(ge=0, validation_alias=AliasChoices("price_out", "output_price"))]
    description: Annotated[str, Field(validation_alias=AliasChoices("description", "feature"))] = ""
    size: str = ""


class _Row(_Entry):
    """An entry of a table, whose numbers are written out."""

    model_config = ConfigDict(strict=False)


def read_profiles(path: str | Path) -> tuple[LLMProfile, ...]:
    """Reads the profiles of language models, in the file's order; other fields than these are not looked at.

    JSON is a list of objects with `name`, `price_in` and `price_out`, perhaps `description` and `size`, or an object of
    such objects by name; `input_price`, `output_price` and `feature` are understood as well. A CSV file has these
    columns.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file of language models {str(path)!r} does not exist: {_WAY_OUT}")
    if is_table(path):
        return check_profiles((_profile(_Row, row.where, row.cells) for row in read_table(path)[1]), str(path))
    if path.suffix != ".json":
        raise InputError(f"file of language models {str(path)!r}: its ending is unknown: {_WAY_OUT}")
    try:
        text = read_small_text(path, str(path), _WAY_OUT, error=DataFileError, most=RECORD_BYTES)
        content = parse_json(text, unique=True)
    except DataFileError:
        raise
    except ValueError as error:
        raise DataFileError(f"{path}: not valid JSON ({error}): a list or an object of profiles is needed") from None
    if isinstance(content, dict):
        named = content.items()
        entries = [
            (f"{path}: {quoted(name)}", {"name": name, **row} if isinstance(row, dict) else row) for name, row in named
        ]
    elif isinstance(content, list):
        entries = [(f"{path}[{place}]", row) for place, row in enumerate(content)]
    else:
        raise DataFileError(f"{path}: a JSON {type(content).__name__} where a list or an object of profiles is needed")
    return check_profiles((_profile(_Entry, *entry) for entry in entries), str(path))


def _profile(kind: type[_Entry], where: str, row: object) -> LLMProfile:
    given = {name: value for name, value in row.items() if value not in (None, "")} if isinstance(row, Mapping) else row
    # What is no profile may be a configuration of a gateway, with its keys: values are described, not shown.
    entry = checked_record(kind, given, where, shown=lambda value: described(value, shows_words=True))
    return LLMProfile(**entry.model_dump())
