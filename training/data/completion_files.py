"""Files of prompts and completions, which supervised fine-tuning reads: Parquet or JSON Lines.

A row is either a sample with its completion (the columns of a sample file and `completion`), whose prompt is rendered
when training starts, or a `prompt` and a `completion` as TRL defines them: both text, or both lists of turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import json_lines
from r1ranker_ir.files.partial import growing_file
from r1ranker_ir.files.records import OpenRecord, Words, checked_record
from r1ranker_ir.quoting import quoted
from r1ranker_ir.types import Task

from .records import Sample, sample_strategies
from .sample_files import ROWS_AT_ONCE, SampleWriter, needing_parquet, parquet_rows, row_of, sample_schema, storable

if TYPE_CHECKING:
    import datasets

_SUFFIXES = (".parquet", ".jsonl")
_THINK, _THINK_END = "<think>", "</think>"
# Where other programs put the thought of an assistant's turn.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# What TRL's trainers take from a row besides, and this one does not: without it, a row says something else.
_NOT_LEARNED = ("tools", "chat_template_kwargs", "images", "image", "completion_mask", "assistant_masks")


@dataclass(frozen=True)
class CompletedSample:
    """A sample with an assistant's turn that answers it."""

    sample: Sample
    completion: str


class _SampleRow(OpenRecord):
    context: Words
    candidates: Annotated[list[str], Field(min_length=1)]
    strategy: str
    completion: Words
    task: Task = "passage"
    candidate_ids: list[str] | None = None
    gains: list[Annotated[float, Field(ge=0)]] | None = None


def write_completions(
    path: str | Path,
    completed: Iterable[CompletedSample],
    metadata: Mapping[str, Any] | None = None,
    *,
    private: bool = False,
) -> int:
    """Writes samples with completions; a file of that name is there only once it is whole."""
    path = Path(path)
    if _suffix(path) == ".parquet":
        with SampleWriter(path, "completion", private=private) as writer:
            for entry in completed:
                writer.write(entry.sample, completion=entry.completion)
            writer.describe(metadata or {})
        return writer.rows
    try:
        with growing_file(path, "output", private=private) as partial, partial.open("wb") as file:
            count = 0
            for entry in completed:
                # Half a surrogate pair, which a text may hold, is not UTF-8: it is written as JSON's own escape.
                line = json.dumps(row_of(entry.sample) | {"completion": entry.completion}, ensure_ascii=False) + "\n"
                file.write(line.encode("utf-8", "backslashreplace"))
                count += 1
        return count
    except OSError as error:
        raise InputError(f"can't write {str(path)!r}: {error.strerror or error}: choose another output") from error


def _suffix(path: Path) -> str:
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{str(path)!r}: completions are kept as {' or '.join(_SUFFIXES)}: give a name that ends so")
    return path.suffix


def _parquet_library() -> Any:
    with needing_parquet():
        import pyarrow
    return pyarrow


def _schema(kind: str) -> Any:
    """The Arrow schema of a kind of rows."""
    pyarrow = _parquet_library()
    if kind == "samples":
        return sample_schema("completion")
    turns = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    column = turns if kind == "turns" else pyarrow.string()
    return pyarrow.schema([("prompt", column), ("completion", column)])


def read_completions(paths: str | Path | Sequence[str | Path]) -> datasets.Dataset:
    """Reads files of prompts and completions.

    Of a sample with its completion, `context`, `candidates`, `strategy` and `completion` have to be there; `task` is
    `passage` where it is left out, candidates are then named by their number, gains are 0, and id and source empty.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise InputError("no file of prompts and completions is given: name at least one")
    with needing_parquet():
        import datasets
    pyarrow = _parquet_library()
    numbered = chain.from_iterable(map(_rows, files))
    first = next(numbered)
    kind = _kind(first[1])
    check = {"samples": _sample_row, "texts": _text_row, "turns": _turns_row}[kind]
    checked = (storable(check(row, where)) for where, row in chain([first], numbered))
    tables, schema = [], _schema(kind)
    while several := list(islice(checked, ROWS_AT_ONCE)):
        tables.append(pyarrow.Table.from_pylist(several, schema))
    return datasets.Dataset(pyarrow.concat_tables(tables))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, each with its place."""
    suffix = _suffix(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}: give one of prompts and completions")
    lines = ((f"{path}:{number}", row) for number, row in json_lines(path))
    rows = parquet_rows(path) if suffix == ".parquet" else lines
    first = next(rows, None)
    if first is None:
        raise DataFileError(f"{path}: it holds no row: give at least one prompt with its completion")
    yield first
    yield from rows


def _with_thought(told: Mapping[str, Any], content: str, where: str, what: str) -> str:
    """An assistant's text with the thought that a row gives apart, as it is learned."""
    given = [name for name in _THOUGHTS if told.get(name) not in (None, "", [])]
    if not given:
        return content
    thought = told[given[0]]
    if len(given) > 1 or not isinstance(thought, str):
        raise DataFileError(f"{where}: {what} has {' and '.join(given)}, {thought!r}: give one thought, as a text")
    if not thought.strip():
        return content
    if any(tag in text for tag in (_THINK, _THINK_END) for text in (thought, content)):
        raise DataFileError(
            f"{where}: {what} has a thought in {given[0]} and a tag of a thought in its text: give it once, "
            f"either there or between {_THINK} and {_THINK_END}"
        )
    return f"{_THINK}\n{thought.strip()}\n{_THINK_END}\n{content.lstrip()}"


def _kind(row: Mapping[str, Any]) -> str:
    if "prompt" not in row:
        return "samples"
    return "texts" if isinstance(row["prompt"], str) else "turns"


def _check_columns(row: Mapping[str, Any], where: str) -> None:
    """Refuses a row that would be learned without a part of it."""
    if told := [name for name in _NOT_LEARNED if row.get(name) not in (None, "", [], {})]:
        raise DataFileError(
            f"{where}: the row has {' and '.join(told)}, which would not be learned: remove it, or write what it adds "
            "into prompt and completion"
        )


def _sample_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    if other := [name for name in ("messages", "text") if row.get(name) and "context" not in row]:
        raise DataFileError(
            f"{where}: a row of {other[0]} does not say what is to be learned: give what is asked as prompt and the "
            "answer as completion, as two texts or two lists of turns"
        )
    _check_columns(row, where)
    # Columns of Parquet files that a row has nothing for.
    read = checked_record(_SampleRow, {name: value for name, value in row.items() if value not in (None, "")}, where)
    texts, names, gains = read.candidates, read.candidate_ids, read.gains
    names = [str(number) for number in range(1, len(texts) + 1)] if names is None else names
    gains = [0.0] * len(texts) if gains is None else gains
    for name, values in (("candidate_ids", names), ("gains", gains)):
        if len(values) != len(texts):
            raise DataFileError(f"{where}: field {name!r} has {len(values)} entries for {len(texts)} candidates")
    if read.strategy not in (known := sample_strategies()):
        raise DataFileError(f"{where}: field 'strategy' is {quoted(read.strategy)}: use one of {', '.join(known)}")
    return {
        **{name: str(row.get(name) or "") for name in ("id", "source", "aim")},
        "task": read.task,
        "strategy": read.strategy,
        "context": read.context,
        "candidate_ids": names,
        "candidates": texts,
        "gains": gains,
        "completion": _with_thought(row, read.completion, where, "the row"),
    }


def _text_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    _check_columns(row, where)
    for name in ("prompt", "completion"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataFileError(
                f"{where}: field {name} is {quoted(row.get(name))}: give a text, as in the file's first row"
            )
    if _with_thought(row, "", where, "the row"):
        raise DataFileError(
            f"{where}: the row has a thought beside its completion, and text is learned as it is: put the thought into "
            f"the completion, between {_THINK} and {_THINK_END}"
        )
    return {"prompt": row["prompt"], "completion": row["completion"]}


def _turns_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    _check_columns(row, where)
    if _with_thought(row, "", where, "the row"):
        raise DataFileError(f"{where}: the row has a thought beside its turns: put it into the assistant's turn")
    prompt, completion = (_turns(row.get(name), name, where) for name in ("prompt", "completion"))
    if {completion[0]["role"], completion[-1]["role"]} != {"assistant"}:
        raise DataFileError(f"{where}: field completion begins or ends with another turn than the assistant's")
    for turn in completion:
        _check_content(turn, where)
    thinks = any(tag in turn["content"] for turn in completion for tag in (_THINK, _THINK_END))
    if len(completion) > 1 and thinks:
        raise DataFileError(
            f"{where}: field completion has {len(completion)} turns and a thought, which models write one turn at a "
            "time: make a row of each assistant's turn, with the turns before it as its prompt"
        )
    return {"prompt": prompt, "completion": completion}


def _check_content(turn: Mapping[str, str], where: str) -> None:
    """Refuses a turn that could not be learned as it is."""
    text = turn["content"].strip()
    if not text:
        raise DataFileError(f"{where}: the {turn['role']}'s turn of field completion is blank: give a text")
    if turn["role"] == "assistant" and _THINK in text.removeprefix(_THINK):
        raise DataFileError(
            f"{where}: an assistant's turn of field completion has {_THINK} behind its beginning ({quoted(text)}): a "
            f"turn has one thought, with nothing before it"
        )


def _turns(value: Any, name: str, where: str) -> list[dict[str, str]]:
    turns = value if isinstance(value, list) else []
    told = [turn for turn in turns if isinstance(turn, dict) and isinstance(turn.get("content"), str)]
    if not told or len(told) != len(turns) or any(not isinstance(turn.get("role"), str) for turn in told):
        raise DataFileError(
            f"{where}: field {name} is {quoted(value)}: prompt and completion are two texts, or two lists of turns "
            f"with role and content"
        )
    return [_turn(turn, name, where) for turn in told]


def _turn(turn: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    """A turn as it is kept: with a thought that it gives apart, and without anything that would be left out."""
    known = ("role", "content", *_THOUGHTS)
    if other := [key for key, value in turn.items() if key not in known and value not in (None, "", [], {})]:
        raise DataFileError(
            f"{where}: a turn of field {name} has {', '.join(map(repr, other))}, which would not be learned: a turn "
            f"has role and content, and an assistant's its thought in {_THOUGHTS[0]}"
        )
    content = _with_thought(turn, turn["content"], where, f"a turn of field {name}")
    if content != turn["content"] and (name == "prompt" or turn["role"] != "assistant"):
        raise DataFileError(
            f"{where}: a turn of field {name} has a thought of its own: only an assistant's turn in the completion can "
            "have one, and of turns before it models are shown the answers alone"
        )
    return {"role": turn["role"], "content": content}
