"""What language models' answers to questions were worth, and what they cost, as files tell it.

Two forms, as JSON Lines or as a CSV file with a header:

- wide, a question a line: `query`, and the effects in an object `effect` from name to number, or in a column for each
  language model. What they cost, where it is known: objects `cost`, `input_tokens` and `output_tokens` (or one number
  for all), or columns such as `NAME|cost` (`|total_cost`, as RouterBench has it, is understood as well).
- long, an answer a line: `query`, `llm` and `effect`, where known `cost`, `input_tokens` and `output_tokens`.

Both may name the question by `id`; otherwise its first line's number does. `tag` is the kind of question.
`question` and `prompt` stand for `query`, `sample_id` for `id`, `model` for `llm`.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1ranker_ir.adapters.problems import LeftOutError, Problems
from r1ranker_ir.adapters.routing.tables import is_table, read_table
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import parse_json_line, readable_lines
from r1ranker_ir.quoting import quoted

logger = logging.getLogger(__name__)

_QUERY = ("query", "question", "prompt")
_ID = ("id", "sample_id")
_LLM = ("llm", "model")
_TAG = ("tag",)
_AMOUNTS = ("cost", "input_tokens", "output_tokens")
_QUANTITIES = ("effect", *_AMOUNTS)
_FIELDS = (*_QUERY, *_ID, *_LLM, *_TAG, *_QUANTITIES)
_SUFFIXES = {**{name: name for name in _AMOUNTS}, "total_cost": "cost"}

_Line = tuple[str, int, dict[str, Any]]
"""File and line, the line's number, and an object as JSON Lines have it."""


@dataclass(frozen=True)
class Observation:
    """A question, and how language models, by name, fared on it.

    Args:
        effects: the worth of each answer, more for better.
        costs: its cost, in any one unit; `None` where not known, as the tokens that it read and wrote.
        where: file and line.
        tag: the kind of question; empty where it is not known.
    """

    query: str
    query_id: str
    effects: Mapping[str, float]
    costs: Mapping[str, float] | None = None
    input_tokens: Mapping[str, float] | None = None
    output_tokens: Mapping[str, float] | None = None
    where: str = ""
    tag: str = ""


@dataclass
class _Question:
    """What the lines of one question, the first of them at `where`, hold, as yet unchecked.

    Args:
        given: quantity to language model to value.
        lines: language model to file and line of its answer, where that has a line of its own.
    """

    where: str
    query_id: str
    query: str
    tag: str = ""
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)


def read_observations(path: str | Path, problems: Problems) -> list[Observation]:
    """Reads a file in either form, `.jsonl`, `.csv` or `.tsv`: questions with effects of the same language models.

    `problems` takes the questions that can't be used.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file of observations {str(path)!r} does not exist: give a .jsonl or .csv file")
    if not is_table(path) and not path.name.removesuffix(".gz").endswith(".jsonl"):
        raise InputError(f"file of observations {str(path)!r}: its ending is unknown: give a .jsonl or .csv file")
    lines = _table_lines(path, problems) if is_table(path) else _json_lines(path, problems)
    seen: set[str] = set()
    complete = []
    for question in _questions(lines, problems):
        with problems.leaving_out():
            if question.query_id in seen:
                own = f"{question.query_id!r}: give each question one of its own"
                raise LeftOutError(question.where, "an id given twice", own)
            seen.add(question.query_id)
            complete.append(_observation(question))
    names = dict.fromkeys(name for observation in complete for name in observation.effects)
    observations = []
    for observation in complete:
        if lacking := [name for name in names if name not in observation.effects]:
            detail = f"{lacking[0]!r}, which other questions have"
            problems.add(observation.where, "no effect of a language model", detail)
        else:
            observations.append(observation)
    if not observations:
        raise DataFileError(f"{path}: no question is left that could be used: {problems.line()}")
    effects = [effect for observation in observations for effect in observation.effects.values()]
    if min(effects) < 0 or max(effects) > 1:  # effects in per cent would drown the costs
        logger.warning(
            "%s: effects go from %g to %g, while costs go from 0 to 1: scale them, or choose the weights accordingly",
            *(path, min(effects), max(effects)),
        )
    return observations


def _observation(question: _Question) -> Observation:
    effects = question.given.get("effect", {})
    if not question.query.strip():
        raise LeftOutError(question.where, "a blank question", "give at least one word")
    if not effects:
        raise LeftOutError(question.where, "no effect of a language model", "give at least one")
    numbers = {}
    for quantity, by_name in question.given.items():
        numbers[quantity] = {name: _checked(value, quantity, name, question) for name, value in by_name.items()}
        if odd := sorted(set(by_name) ^ set(effects)):
            different = f"{quantity} and effect of different language models"
            raise LeftOutError(question.where, different, f"{odd[0]!r} has one only")
    costs, read, written = (numbers.get(quantity) for quantity in _AMOUNTS)
    return Observation(
        question.query, question.query_id, numbers["effect"], costs, read, written, question.where, question.tag
    )


def _checked(value: Any, quantity: str, name: str, question: _Question) -> float:
    """A finite number, also one that a table has written out."""
    where, number = question.lines.get(name, question.where), math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number):
        missing = value is None or value == ""
        reason = f"no {quantity} of a language model" if missing else f"{quantity} is no number"
        raise LeftOutError(where, reason, f"that of {name!r} is {quoted(value)}: give a finite number")
    if quantity != "effect" and number < 0:
        raise LeftOutError(where, f"{quantity} below 0", f"that of {name!r} is {quoted(value)}: give at least 0")
    return number


def _questions(lines: Iterable[_Line], problems: Problems) -> list[_Question]:
    """The question of each line of the wide form; of the long form, those of one id, or else of one text, together."""
    questions: dict[object, _Question] = {}
    unfit: set[object] = set()
    for where, number, line in lines:
        key: object = None
        try:
            query, query_id, llm = (_one_of(line, names) for names in (_QUERY, _ID, _LLM))
            if not isinstance(query, str):
                raise LeftOutError(where, "no question", f"query is {quoted(query)}: give a text")
            if isinstance(query_id, bool) or not isinstance(query_id, str | int | None) or query_id == "":
                raise LeftOutError(where, "not an id", f"{quoted(query_id)}: give a text or a whole number")
            if not isinstance(tag := _one_of(line, _TAG) or "", str):
                raise LeftOutError(where, "not a tag", f"{quoted(tag)}: give a text")
            effects = line.get("effect")
            wide = isinstance(effects, dict)
            if llm is None and not wide:
                wanted = "give an object from language model to number"
                raise LeftOutError(where, "no effects", f"effect is {quoted(effects)}: {wanted}")
            key = number if wide else ("id", query_id) if query_id is not None else ("query", query)
            name = str(number if query_id is None else query_id)
            question = questions.setdefault(key, _Question(where, name, query, tag))
            given = {of: value for of in _QUANTITIES if (value := line.get(of)) is not None}
            if isinstance(effects, dict):
                for of, value in given.items():
                    question.given[of] = value if isinstance(value, dict) else dict.fromkeys(effects, value)
                continue
            if not isinstance(llm, str) or not llm.strip():
                raise LeftOutError(where, "no language model", f"llm is {llm!r}: give its name")
            if question.query != query:
                other = f"{name!r}: that of {question.where} asks otherwise"
                raise LeftOutError(where, "one id of two questions", other)
            if llm in question.lines:
                raise LeftOutError(where, "an answer given twice", f"of {llm!r}: give one per question, e.g. the mean")
            question.lines[llm] = where
            for of, value in {"effect": None, **given}.items():
                question.given.setdefault(of, {})[llm] = value
        except LeftOutError as error:
            problems.add(*error.args)
            unfit.add(key)
    return [question for key, question in questions.items() if key not in unfit]


def _json_lines(path: Path, problems: Problems) -> Iterator[_Line]:
    fields: dict[str, None] = {}
    for number, raw in readable_lines(path):
        where = f"{path}:{number}"
        try:
            line = parse_json_line(raw, where, first=number == 1)
        except DataFileError as error:
            problems.add(where, "not a JSON object", str(error).removeprefix(f"{where}: "))
            continue
        if line is not None:
            fields |= dict.fromkeys(line)
            yield where, number, line
    _warn_of_unused(path, [name for name in fields if name not in _FIELDS])


def _table_lines(path: Path, problems: Problems) -> Iterator[_Line]:
    header, rows = read_table(path, problems)
    if _one_of(dict.fromkeys(header, True), _QUERY) is None:
        raise DataFileError(f"{path}:1: no column 'query': the columns are {', '.join(header)}")
    long = "effect" in header and any(name in header for name in _LLM)
    own = _FIELDS if long else (*_QUERY, *_ID, *_TAG)
    # Which quantity and language model a column of a wide table stands for.
    columns: dict[str, tuple[str, str]] = {}
    for column in header:
        name, bar, suffix = column.rpartition("|")
        if column not in own and not long and (not bar or suffix in _SUFFIXES):
            columns[column] = (_SUFFIXES[suffix], name) if bar else ("effect", column)
    _warn_of_unused(path, [column for column in header if column not in own and column not in columns])
    for row in rows:
        line: dict[str, Any] = {
            name: row.cells[name] if name in (*_QUERY, *_LLM) else row.cells[name] or None
            for name in own
            if name in row.cells
        }
        if not long:
            line["effect"] = {}
        for column, (quantity, name) in columns.items():
            if quantity == "effect" or row.cells[column]:
                line.setdefault(quantity, {})[name] = row.cells[column]
        yield row.where, row.line, line


def _one_of(line: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)


def _warn_of_unused(path: Path, names: list[str]) -> None:
    """A field of another name than is known may be a slip of the pen."""
    if names:
        logger.warning("%s: not used: %s", path, ", ".join(names))
