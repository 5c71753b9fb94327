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
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.json_lines import json_lines
from r1ranker_ir.files.partial import growing_file
from r1ranker_ir.files.records import OpenRecord, Words, checked_record
from r1ranker_ir.prompts.answers import identifiers
from r1ranker_ir.quoting import quoted

from .records import Sample
from .sample_files import (
    COLUMNS,
    ROWS_AT_ONCE,
    SampleRow,
    needing_parquet,
    parquet_rows,
    row_of,
    sample_schema,
    sample_writer,
    storable,
)

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


def completion_of(thought: str, answer: Sequence[int], candidates: int) -> str:
    """An assistant's turn in the protocol's form: a thought, and places of candidates as the answer."""
    names = identifiers(candidates)
    return answered(thought, " > ".join(names[place] for place in answer))


def answered(thought: str, answer: str) -> str:
    """An assistant's turn in the protocol's form."""
    inner = f"{thought}\n" if thought else ""
    return f"{_THINK}\n{inner}{_THINK_END}\n<answer>{answer}</answer>"


class _Thinking(OpenRecord):
    """What may give a thought apart from its text; fields that are empty count as left out."""

    reasoning_content: str = ""
    reasoning: str = ""
    thinking: str = ""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        return {name: value for name, value in told.items() if name == "content" or not _is_empty(value)}

    def with_thought(self, text: str) -> str:
        """The text with the thought that was given apart, as it is learned."""
        given = [name for name in _THOUGHTS if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both hold a thought: give one")
        thought = getattr(self, given[0]).strip() if given else ""
        if thought and any(tag in each for tag in (_THINK, _THINK_END) for each in (thought, text)):
            raise ValueError(
                f"a thought in {given[0]} and a tag of a thought in the text: give it once, there or between {_THINK} "
                f"and {_THINK_END}"
            )
        return f"{_THINK}\n{thought}\n{_THINK_END}\n{text.lstrip()}" if thought else text


class _SampleRow(SampleRow, _Thinking):
    candidates: Annotated[list[str], Field(min_length=1)]
    completion: Words

    @model_validator(mode="after")
    def _thought_fits(self) -> Self:
        self.with_thought(self.completion)
        return self

    def learned(self) -> dict[str, Any]:
        count = len(self.candidates)
        return {
            **{name: getattr(self, name) for name in COLUMNS},
            "candidate_ids": self.candidate_ids or [str(number) for number in range(1, count + 1)],
            "gains": self.gains or [0.0] * count,
            "completion": self.with_thought(self.completion),
        }


class _TextRow(OpenRecord):
    prompt: Words
    completion: Words

    def learned(self) -> dict[str, Any]:
        return self.model_dump()


class _Turn(_Thinking):
    model_config = ConfigDict(extra="forbid")

    role: str
    content: str

    @model_validator(mode="after")
    def _thought_fits(self) -> Self:
        if self.role != "assistant" and self.with_thought("") != "":
            raise ValueError("only an assistant's turn has a thought: leave it out")
        self.with_thought(self.content)
        return self

    def learned(self) -> dict[str, str]:
        return {"role": self.role, "content": self.with_thought(self.content)}


class _TurnsRow(OpenRecord):
    prompt: Annotated[list[_Turn], Field(min_length=1)]
    completion: Annotated[list[_Turn], Field(min_length=1)]

    @model_validator(mode="after")
    def _can_be_learned(self) -> Self:
        if any(turn.with_thought("") for turn in self.prompt):
            raise ValueError("a turn of prompt has a thought of its own: models are shown earlier answers alone")
        turns = [turn.learned() for turn in self.completion]
        if {turns[0]["role"], turns[-1]["role"]} != {"assistant"}:
            raise ValueError("completion begins or ends with another turn than the assistant's: leave that out")
        for turn in turns:
            text = turn["content"].strip()
            if not text:
                raise ValueError(f"the {turn['role']}'s turn of completion is blank: give a text")
            if turn["role"] == "assistant" and _THINK in text.removeprefix(_THINK):
                raise ValueError(
                    f"an assistant's turn of completion has {_THINK} behind its beginning ({quoted(text)}): a turn has "
                    "one thought, with nothing before it"
                )
        if len(turns) > 1 and any(tag in turn["content"] for turn in turns for tag in (_THINK, _THINK_END)):
            raise ValueError(
                f"completion has {len(turns)} turns and a thought, which models write one turn at a time: make a row "
                "of each assistant's turn, with the turns before it as its prompt"
            )
        return self

    def learned(self) -> dict[str, Any]:
        return {name: [turn.learned() for turn in getattr(self, name)] for name in ("prompt", "completion")}


_Kind = type[_SampleRow] | type[_TextRow] | type[_TurnsRow]


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


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
        with sample_writer(path, "completion", private=private) as writer:
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
        import pyarrow
    numbered = chain.from_iterable(map(_rows, files))
    first = next(numbered)
    prompt = first[1].get("prompt")
    kind: _Kind = _SampleRow if "prompt" not in first[1] else _TextRow if isinstance(prompt, str) else _TurnsRow
    if kind is _SampleRow:
        schema = sample_schema("completion")
    else:
        turns = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
        column = pyarrow.string() if kind is _TextRow else turns
        schema = pyarrow.schema([("prompt", column), ("completion", column)])
    learned = (_learned(kind, row, where) for where, row in chain([first], numbered))
    tables = []
    while several := list(islice(learned, ROWS_AT_ONCE)):
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


def _learned(kind: _Kind, row: dict[str, Any], where: str) -> dict[str, Any]:
    """What is learned of a row, which is refused where that would be less than it says."""
    lost = [name for name in _NOT_LEARNED if not _is_empty(row.get(name))]
    if kind is not _SampleRow:
        lost += [name for name in _THOUGHTS if not _is_empty(row.get(name))]
    elif "context" not in row:
        lost += [name for name in ("messages", "text") if row.get(name)]
    if lost:
        raise DataFileError(
            f"{where}: the row has {' and '.join(lost)}, which would not be learned: write what it adds into prompt "
            "and completion, as two texts or two lists of turns"
        )
    learned: dict[str, Any] = storable(checked_record(kind, row, where).learned())
    return learned
