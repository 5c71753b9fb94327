"""What language models' answers to questions were worth, and what they cost, as files tell it.

Two forms, as JSON Lines or as a CSV file with a header:

- wide, a question a line: `query`, and the effects in an object `effect` from name to number, or in a column for each
  language model. What they cost, where it is known: objects `cost`, `input_tokens` and `output_tokens` (or one number
  for all), or columns such as `NAME|cost` (`|total_cost`, as RouterBench has it, is understood as well).
- long, an answer a line: `query`, `llm` and `effect`, where known `cost`, `input_tokens` and `output_tokens`.

Both may name the question by `id`; otherwise its first line's number does. `question` and `prompt` stand for `query`,
`sample_id` for `id`, `model` for `llm`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from r1ranker_ir.adapters.problems import LeftOutError, Problems
from r1ranker_ir.adapters.routing.tables import is_table, read_table
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import parse_json_line, readable_lines
from r1ranker_ir.quoting import quoted

logger = logging.getLogger(__name__)

_QUERY = ("query", "question", "prompt")
_ID = ("id", "sample_id")
_LLM = ("llm", "model")
_AMOUNTS = ("cost", "input_tokens", "output_tokens")
_QUANTITIES = ("effect", *_AMOUNTS)
_FIELDS = (*_QUERY, *_ID, *_LLM, *_QUANTITIES)
_SUFFIXES = {**{name: name for name in _AMOUNTS}, "total_cost": "cost"}


@dataclass(frozen=True)
class Observation:
    """A question, and how language models, by name, fared on it.

    Args:
        effects: the worth of each answer, more for better.
        costs: its cost, in any one unit; `None` where not known, as the tokens that it read and wrote.
        where: file and line.
    """

    query: str
    query_id: str
    effects: Mapping[str, float]
    costs: Mapping[str, float] | None = None
    input_tokens: Mapping[str, float] | None = None
    output_tokens: Mapping[str, float] | None = None
    where: str = ""


@dataclass
class _Row:
    """What the lines of one question, the first of them at `where`, hold, as yet unchecked.

    Args:
        given: quantity to language model to value.
        lines: language model to file and line of its answer, where that has a line of its own.
    """

    where: str
    query_id: str
    query: str
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)


class _Answer(NamedTuple):
    """A line of the long form: its question, the language model, the quantities, and whether it has an id."""

    row: _Row
    llm: Any
    values: dict[str, Any]
    named: bool


def read_observations(path: str | Path, problems: Problems) -> list[Observation]:
    """Reads a file in either form, `.jsonl`, `.csv` or `.tsv`: questions with effects of the same language models.

    `problems` takes the questions that can't be used.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file of observations {str(path)!r} does not exist: give a .jsonl or .csv file")
    if is_table(path):
        rows = _table_rows(path, problems)
    elif path.name.removesuffix(".gz").endswith(".jsonl"):
        rows = _json_rows(path, problems)
    else:
        raise InputError(f"file of observations {str(path)!r}: its ending is unknown: give a .jsonl or .csv file")
    seen: set[str] = set()
    complete = []
    for row in rows:
        with problems.leaving_out():
            if row.query_id in seen:
                own = f"{row.query_id!r}: give each question one of its own"
                raise LeftOutError(row.where, "an id given twice", own)
            seen.add(row.query_id)
            complete.append(_observation(row))
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
    _warn_of_scale(path, observations)
    return observations


def _observation(row: _Row) -> Observation:
    effects = row.given.get("effect", {})
    if not row.query.strip():
        raise LeftOutError(row.where, "a blank question", "give at least one word")
    if not effects:
        raise LeftOutError(row.where, "no effect of a language model", "give at least one")
    numbers = {}
    for quantity, by_name in row.given.items():
        numbers[quantity] = {name: _checked(value, quantity, name, row) for name, value in by_name.items()}
        if odd := sorted(set(by_name) ^ set(effects)):
            different = f"{quantity} and effect of different language models"
            raise LeftOutError(row.where, different, f"{odd[0]!r} has one only")
    costs, read, written = (numbers.get(quantity) for quantity in _AMOUNTS)
    return Observation(row.query, row.query_id, numbers["effect"], costs, read, written, row.where)


def _checked(value: Any, quantity: str, name: str, row: _Row) -> float:
    number, where = _number(value), row.lines.get(name, row.where)
    if number is None:
        missing = value is None or value == ""
        reason = f"no {quantity} of a language model" if missing else f"{quantity} is no number"
        raise LeftOutError(where, reason, f"that of {name!r} is {quoted(value)}: give a finite number")
    if quantity != "effect" and number < 0:
        raise LeftOutError(where, f"{quantity} below 0", f"that of {name!r} is {quoted(value)}: give at least 0")
    return number


def _number(value: Any) -> float | None:
    """A finite number, also one that a table has written out."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _json_rows(path: Path, problems: Problems) -> list[_Row]:
    wide: list[_Row] = []
    answers: list[_Answer] = []
    fields: dict[str, None] = {}
    for number, raw in readable_lines(path):
        where = f"{path}:{number}"
        with problems.leaving_out():
            try:
                line = parse_json_line(raw, where, first=number == 1)
            except DataFileError as error:
                raise LeftOutError(where, "not a JSON object", str(error).removeprefix(f"{where}: ")) from None
            if line is None:
                continue
            fields |= dict.fromkeys(line)
            row, named = _row_of(line, where, str(number))
            effects = line.get("effect")
            if (llm := _one_of(line, _LLM)) is not None and not isinstance(effects, dict):
                answers.append(_Answer(row, llm, {name: line.get(name) for name in _QUANTITIES}, named))
                continue
            if not isinstance(effects, dict):
                wanted = "give an object from language model to number"
                raise LeftOutError(where, "no effects", f"effect is {quoted(effects)}: {wanted}")
            for name in _QUANTITIES:
                if (value := line.get(name)) is not None:
                    row.given[name] = value if isinstance(value, dict) else dict.fromkeys(effects, value)
            wide.append(row)
    _warn_of_unused(path, [name for name in fields if name not in _FIELDS])
    if wide and answers:
        raise DataFileError(
            f"{wide[0].where} holds a question and {answers[0].row.where} an answer: give a file of either form"
        )
    return wide or _grouped(answers, problems)


def _row_of(line: Mapping[str, Any], where: str, number: str) -> tuple[_Row, bool]:
    """The question of a line, by its id or by the line's number, and whether it has an id."""
    query, query_id = _one_of(line, _QUERY), _one_of(line, _ID)
    if not isinstance(query, str):
        raise LeftOutError(where, "no question", f"query is {quoted(query)}: give a text")
    if isinstance(query_id, bool) or not isinstance(query_id, str | int | None) or query_id == "":
        raise LeftOutError(where, "not an id", f"{quoted(query_id)}: give a text or a whole number")
    return _Row(where, number if query_id is None else str(query_id), query), query_id is not None


def _table_rows(path: Path, problems: Problems) -> list[_Row]:
    header, rows = read_table(path, problems)
    query, query_id, llm = (next((name for name in names if name in header), None) for names in (_QUERY, _ID, _LLM))
    if query is None:
        raise DataFileError(f"{path}:1: no column 'query': the columns are {', '.join(header)}")
    long = llm is not None and "effect" in header
    if long:
        _warn_of_unused(path, [name for name in header if name not in _FIELDS])
    columns = {} if long else _columns(header, {query, query_id}, path)
    for column, (_, quantity) in columns.items():
        if quantity == "effect" and rows and all(_number(row.cells[column]) is None for row in rows):
            raise DataFileError(
                f"{path}: column {column!r} holds no number, but every column besides the question and its id stands "
                f"for a language model: remove it"
            )
    wide: list[_Row] = []
    answers: list[_Answer] = []
    for line, where, cells in rows:
        named = query_id is not None and cells[query_id] != ""
        row = _Row(where, cells[query_id] if query_id and named else str(line), cells[query])
        if long and llm is not None:
            answers.append(_Answer(row, cells[llm], {name: cells.get(name) or None for name in _QUANTITIES}, named))
            continue
        for column, (name, quantity) in columns.items():
            if quantity == "effect" or cells[column]:
                row.given.setdefault(quantity, {})[name] = cells[column]
        wide.append(row)
    return _grouped(answers, problems) if long else wide


def _columns(header: tuple[str, ...], others: set[str | None], path: Path) -> dict[str, tuple[str, str]]:
    """Which language model and quantity a column of a wide table stands for."""
    columns = {}
    parted = {column: column.rpartition("|") for column in header if column not in others}
    for column, (name, bar, suffix) in parted.items():
        if not bar:
            columns[column] = (column, "effect")
        elif suffix in _SUFFIXES:
            columns[column] = (name, _SUFFIXES[suffix])
    _warn_of_unused(path, [column for column in parted if column not in columns])
    return columns


def _grouped(answers: list[_Answer], problems: Problems) -> list[_Row]:
    """Puts the answers to a question together: those of one id, else of one text."""
    questions: dict[tuple[bool, str], _Row] = {}
    unfit: set[tuple[bool, str]] = set()
    for row, llm, values, named in answers:
        key = (named, row.query_id if named else row.query)
        question = questions.setdefault(key, row)
        try:
            if not isinstance(llm, str) or not llm.strip():
                raise LeftOutError(row.where, "no language model", f"llm is {llm!r}: give its name")
            if question.query != row.query:
                other = f"{row.query_id!r}: that of {question.where} asks otherwise"
                raise LeftOutError(row.where, "one id of two questions", other)
            if llm in question.given.get("effect", {}):
                twice = f"of {llm!r}: give one per question, such as the mean"
                raise LeftOutError(row.where, "an answer given twice", twice)
        except LeftOutError as error:
            problems.add(*error.args)
            unfit.add(key)
            continue
        question.lines[llm] = row.where
        for quantity, value in values.items():
            if quantity == "effect" or value is not None:
                question.given.setdefault(quantity, {})[llm] = value
    return [question for key, question in questions.items() if key not in unfit]


def _one_of(line: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)


def _warn_of_unused(path: Path, names: list[str]) -> None:
    """A field of another name than is known may be a slip of the pen."""
    if names:
        logger.warning("%s: not used: %s", path, ", ".join(names))


def _warn_of_scale(path: Path, observations: list[Observation]) -> None:
    """Costs are in [0, 1]: effects in per cent would drown them."""
    effects = [effect for observation in observations for effect in observation.effects.values()]
    if min(effects) < 0 or max(effects) > 1:
        logger.warning(
            "%s: effects go from %g to %g, while costs go from 0 to 1: scale them, or choose the weights accordingly",
            *(path, min(effects), max(effects)),
        )
