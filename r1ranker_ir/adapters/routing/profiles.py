"""Files of language models: profiles in JSON or CSV, and LiteLLM configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, ConfigDict, Field

from r1ranker_ir.adapters.routing.litellm_models import profiles_of_model_list
from r1ranker_ir.adapters.routing.llms import LLMProfile, check_profiles
from r1ranker_ir.adapters.routing.tables import is_table, read_table
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.described import described
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.records import OpenRecord, Words, checked_record
from r1ranker_ir.files.small_files import RECORD_BYTES, SETTINGS_BYTES, read_small_text
from r1ranker_ir.files.yaml_text import parse_yaml
from r1ranker_ir.quoting import quoted

_WAY_OUT = "give a .json, .csv or .yaml file"
_OTHER_NAMES = {"price_in": "input_price", "price_out": "output_price", "description": "feature"}


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
    columns. YAML, and JSON with `model_list`, is a LiteLLM configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file of language models {str(path)!r} does not exist: {_WAY_OUT}")
    if is_table(path):
        rows = (
            (_Row, row.where, {name: cell for name, cell in row.cells.items() if cell}) for row in read_table(path)[1]
        )
        return check_profiles((_profile(*row) for row in rows), str(path))
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise InputError(f"file of language models {str(path)!r}: its ending is unknown: {_WAY_OUT}")
    content = _parsed(path)
    if _is_configuration(path, content):
        return profiles_of_model_list(_model_list(content), where=f"{path}: model_list")
    if isinstance(content, dict):
        entries = [
            (_Entry, f"{path}: {quoted(name)}", {"name": name, **row} if isinstance(row, dict) else row)
            for name, row in content.items()
        ]
    elif isinstance(content, list):
        entries = [(_Entry, f"{path}[{place}]", row) for place, row in enumerate(content)]
    else:
        raise DataFileError(f"{path}: a JSON {type(content).__name__} where a list or an object of profiles is needed")
    return check_profiles((_profile(*entry) for entry in entries), str(path))


def read_model_list(path: str | Path) -> list[Any] | None:
    """LiteLLM's `model_list` in a file that `read_profiles` has read; `None` if it is not a LiteLLM configuration."""
    path = Path(path)
    if is_table(path):
        return None
    content = _parsed(path)
    return list(_model_list(content)) if _is_configuration(path, content) else None


def _profile(kind: type[_Entry], where: str, row: object) -> LLMProfile:
    given = {name: value for name, value in row.items() if value is not None} if isinstance(row, Mapping) else row
    for name, other in _OTHER_NAMES.items():
        if isinstance(given, dict) and name in given and other in given:
            raise DataFileError(f"{where}: fields {name!r} and {other!r} are both given: give one of them")
    entry = checked_record(kind, given, where, shown=lambda value: described(value, shows_words=True))
    try:
        return LLMProfile(**entry.model_dump())
    except InputError as error:
        raise DataFileError(f"{where}: {error}") from None


def _is_configuration(path: Path, content: Any) -> bool:
    return path.suffix != ".json" or (isinstance(content, dict) and "model_list" in content)


def _model_list(content: Any) -> Any:
    return content.get("model_list") if isinstance(content, dict) else content


def _parsed(path: Path) -> Any:
    is_json = path.suffix == ".json"
    most = RECORD_BYTES if is_json else SETTINGS_BYTES
    text = read_small_text(path, str(path), _WAY_OUT, error=DataFileError, most=most)
    if not is_json:
        return parse_yaml(text, str(path), feature="reading a LiteLLM configuration", extra="litellm")
    try:
        return parse_json(text, unique=True)
    except ValueError as error:
        raise DataFileError(f"{path}: not valid JSON ({error}): a list or an object of profiles is needed") from None
