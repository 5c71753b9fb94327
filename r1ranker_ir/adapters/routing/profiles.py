"""What is known of language models before they are asked: prices, size, what they are good at."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ranker_ir.adapters.routing.tables import is_table, read_table
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.described import described
from r1ranker_ir.files.plain_data import parse_json
from r1ranker_ir.files.small_files import RECORD_BYTES, SETTINGS_BYTES, read_small_text
from r1ranker_ir.files.yaml_text import parse_yaml
from r1ranker_ir.quoting import quoted
from r1ranker_ir.types import Candidate

_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SIZE = re.compile(r"(?:(\d+)\s*[x×]\s*)?(\d+(?:\.\d+)?)\s*([KMBT])\b", re.IGNORECASE)
_NAMES = {
    "name": ("name",),
    "price_in": ("price_in", "input_price"),
    "price_out": ("price_out", "output_price"),
    "description": ("description", "feature"),
    "size": ("size",),
}


@dataclass(frozen=True)
class LLMProfile:
    """A language model that could answer.

    Args:
        name: what it is called, by the gateway as in files of observations.
        price_in: dollars per million tokens that it reads; `None` where not known.
        price_out: dollars per million tokens that it writes; `None` where not known.
        description: what it is good at, for the ranker to read.
        size: its parameters, such as `8B` or `8x7B`.

    Raises:
        InputError: if the name is blank, a price is negative or no finite number, only one is known, or another field
            is no text.
    """

    name: str
    price_in: float | None = None
    price_out: float | None = None
    description: str = ""
    size: str = ""

    def __post_init__(self) -> None:
        for field_name in ("name", "description", "size"):
            if not isinstance(text := getattr(self, field_name), str):
                raise InputError(f"a language model's {field_name} is {described(text)}: a text is needed")
        if not self.name.strip():
            raise InputError(f"a language model's name is {self.name!r}: give it one")
        for field_name, price, other in (
            ("price_in", self.price_in, self.price_out),
            ("price_out", self.price_out, self.price_in),
        ):
            if (price is None and other is not None) or (price is not None and not _is_price(price)):
                shown = described(price, shows_words=True)
                raise InputError(
                    f"language model {self.name!r}: {field_name} is {shown}: dollars per million tokens are needed"
                )

    @property
    def parameters(self) -> float | None:
        """How many parameters the size says, all experts together; `None` where it says none."""
        found = _SIZE.search(self.size)
        return None if found is None else int(found[1] or 1) * float(found[2]) * _UNITS[found[3].upper()]

    @property
    def text(self) -> str:
        """What a ranker reads: what tells language models apart comes first, as small rankers read no further."""
        known = self.price_in is not None
        price = f"${self.price_in:g}/${self.price_out:g} per million tokens" if known else ""
        head = ", ".join(part for part in (self.name, self.size, price) if part)
        return f"{head}: {self.description}" if self.description else head

    def candidate(self) -> Candidate:
        """The candidate of a ranking request."""
        return Candidate(self.name, self.text)

    def price(self, tokens_in: float, tokens_out: float) -> float | None:
        """What an answer costs.

        Args:
            tokens_in: tokens that are read.
            tokens_out: tokens that are written.

        Returns:
            Dollars; `None` where the prices are not known.
        """
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def check_profiles(profiles: Iterable[LLMProfile], where: str = "llms") -> tuple[LLMProfile, ...]:
    """Checks that there are language models to choose from, each once."""
    checked = tuple(profiles)
    if not checked:
        raise InputError(f"{where} holds no language model: give at least one")
    for place, profile in enumerate(checked):
        if not isinstance(profile, LLMProfile):
            raise InputError(f"{where}[{place}] is {described(profile)}: give an LLMProfile")
    if repeated := [name for name, times in Counter(profile.name for profile in checked).items() if times > 1]:
        raise InputError(f"{where} holds {repeated[0]!r} more than once: give each language model a name of its own")
    return checked


def read_profiles(path: str | Path) -> tuple[LLMProfile, ...]:
    """Reads the profiles of language models."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file of language models {str(path)!r} does not exist: give a .json, .csv or .yaml file")
    if is_table(path):
        _, rows = read_table(path)
        return check_profiles((_profile(row.cells, row.where, text=True) for row in rows), str(path))
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise InputError(
            f"file of language models {str(path)!r}: its ending is unknown: give a .json, .csv or .yaml file"
        )
    content = _parsed(path)
    if _is_configuration(path, content):
        from r1ranker_ir.adapters.routing.litellm_models import profiles_of_model_list

        return profiles_of_model_list(_model_list(content), where=f"{path}: model_list")
    if isinstance(content, dict):
        entries = [
            (f"{path}: {quoted(name)}", {"name": name, **_object(row, f"{path}: {quoted(name)}")})
            for name, row in content.items()
        ]
    elif isinstance(content, list):
        entries = [(f"{path}[{place}]", _object(row, f"{path}[{place}]")) for place, row in enumerate(content)]
    else:
        raise DataFileError(f"{path}: a JSON {type(content).__name__} where a list or an object of profiles is needed")
    return check_profiles((_profile(row, where) for where, row in entries), str(path))


def read_model_list(path: str | Path) -> list[Any] | None:
    """Reads the deployments of a file that `read_profiles` has read."""
    path = Path(path)
    if is_table(path):
        return None
    content = _parsed(path)
    return list(_model_list(content)) if _is_configuration(path, content) else None


def _is_configuration(path: Path, content: Any) -> bool:
    return path.suffix != ".json" or (isinstance(content, dict) and "model_list" in content)


def _model_list(content: Any) -> Any:
    return content.get("model_list") if isinstance(content, dict) else content


def _parsed(path: Path) -> Any:
    is_json = path.suffix == ".json"
    most = RECORD_BYTES if is_json else SETTINGS_BYTES
    text = read_small_text(path, str(path), "give a .json, .csv or .yaml file", error=DataFileError, most=most)
    if not is_json:
        return parse_yaml(text, str(path), feature="reading a LiteLLM configuration", extra="litellm")
    try:
        return parse_json(text, unique=True)
    except ValueError as error:
        raise DataFileError(f"{path}: not valid JSON ({error}): a list or an object of profiles is needed") from None


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataFileError(f"{where} is {described(row)}: an object with price_in and price_out is needed")
    return row


def _profile(row: Mapping[str, Any], where: str, *, text: bool = False) -> LLMProfile:
    """Makes a profile of a file's entry; in a table (`text`) numbers are written out, and empty cells are missing."""
    found: dict[str, Any] = {}
    for field_name, names in _NAMES.items():
        given = [name for name in names if row.get(name) is not None and not (text and row[name] == "")]
        if len(given) > 1:
            raise DataFileError(f"{where}: {given[0]!r} and {given[1]!r} are both given: give one of them")
        if given:
            found[field_name] = row[given[0]]
    for needed in ("name", "price_in", "price_out"):
        if needed not in found:
            raise DataFileError(
                f"{where}: {' or '.join(map(repr, _NAMES[needed]))} is missing: name and prices are needed"
            )
    try:
        for name in ("price_in", "price_out"):
            found[name] = _number(name, found[name], text=text)
        for name in ("name", "description", "size"):
            found[name] = _checked(name, found.get(name, ""), str, "text")
        return LLMProfile(**found)
    except ValueError as error:
        raise DataFileError(f"{where}: {error}") from None


def _number(name: str, value: Any, *, text: bool) -> float:
    if not text:
        return float(_checked(name, value, int | float, "number"))
    try:
        return float(value)
    except ValueError:
        pass
    # Outside of the clause, since Python's own error repeats the value.
    raise InputError(f"{name!r} is {described(value, shows_words=True)}: a number is needed")


def _checked(name: str, value: Any, kind: Any, needed: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputError(f"{name!r} is {described(value, shows_words=True)}: a {needed} is needed")
    return value
