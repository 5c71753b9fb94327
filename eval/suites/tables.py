"""Suites as data: which data sets a suite has, how each is measured, what it needs, and what others have published."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from r1ranker_ir.adapters.ranking_bench import CONFIGURATIONS, HUB_NAME
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.request_corpus import ENDINGS
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.plain_data import parse_toml_text
from r1ranker_ir.files.records import Record, Words, checked_record
from r1ranker_ir.files.small_files import read_small_text

FOLDER_MEASURES = "nDCG@10 RR@10 AP R@100"
"""What a corpus without a table is measured by."""
REQUEST_MEASURES = "RR nDCG@3 nDCG@5 nDCG@10 Success@3 Success@5 Success@10"
"""What a file of ranking requests is measured by, unless its table says otherwise: R1-Ranker's measures."""
FOLDER_FIRST_STAGE = "bm25s"
"""What searches a corpus without a table."""
_FOLDER = resources.files(__package__)
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Published:
    """A figure that somebody else has published."""

    system: str
    measure: str  # as ir_measures writes it
    value: float  # between 0 and 1
    source: str
    first_stage: str = ""  # what found the documents; empty for a first stage itself


class _Shared(Record):
    """What data sets of a table may have in common."""

    measures: str = FOLDER_MEASURES  # as ir_measures writes them, split by spaces; the first one stands in overviews
    max_passage_tokens: int | None = None  # what is shown of a passage; None leaves it to the checkpoint
    query_is_no_result: bool = False  # a document with the query's own id is no result
    excluded_grade: int | None = None  # a judgment of this grade says that the document is no result for the query
    terms: str = ""  # the licence step before a download


class _Section(_Shared):
    """What a table says of a data set."""

    # an ir_datasets id or a folder; of ranking requests, their file, or where Ranking-bench is
    corpus: Words
    split: str | None = None  # whose judgments a folder gives, or the split of Ranking-bench; ids carry their own
    index: str | None = None  # Pyserini's name of a prebuilt BM25 index of it
    documents: int | None = None
    queries: int | None = None  # how many are judged
    task_name: str = ""  # of Ranking-bench, whose rows of this task are the requests

    @property
    def is_of_requests(self) -> bool:
        """It holds ranking requests, whose candidates are given, and no corpus to search."""
        return bool(self.task_name) or self.corpus.endswith(ENDINGS)


class DataSet(_Section):
    """One data set of a suite."""

    name: str  # of its folder too
    published: tuple[Published, ...] = ()

    @property
    def origin(self) -> str:
        """Where its data are, in words: the corpus, and of Ranking-bench also the task."""
        if not self.task_name:
            return self.corpus
        where = f"{HUB_NAME}, {self.corpus}, {self.split}" if self.corpus in CONFIGURATIONS else self.corpus
        return f"{where}: {self.task_name}"


@dataclass(frozen=True)
class Suite:
    """Data sets that are run together."""

    name: str  # of the output folder too
    title: str  # what reports call it
    datasets: tuple[DataSet, ...]  # in the order in which they are run
    first_stage: str = FOLDER_FIRST_STAGE  # where the caller names none
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # data sets that count as one in means


class _Figures(Record):
    """A block of figures that somebody else has published."""

    system: Words
    measure: Words
    source: Words
    first_stage: str = ""
    values: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]  # by data set


class _Table(_Shared):
    """A suite's file."""

    title: str | None = None
    first_stage: str = FOLDER_FIRST_STAGE
    datasets: Annotated[dict[str, _Section], Field(min_length=1)]
    groups: dict[str, list[str]] = Field(default_factory=dict)
    published: list[_Figures] = Field(default_factory=list)


def suite_names() -> tuple[str, ...]:
    """Returns the names of the packaged suites."""
    return tuple(sorted(Path(entry.name).stem for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")))


def open_suite(name: str) -> Suite:
    """Finds a packaged suite, a TOML file like one, a file of requests, a folder in BEIR layout, or an ir_datasets id.

    An id that a packaged suite has comes with that suite's settings and published figures.
    """
    if name in suite_names():
        return read_suite((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")
    path = Path(name).expanduser()
    if path.suffix == ".toml" and path.is_file():
        text = read_small_text(path, str(path), "give a suite's TOML file", error=DataFileError)
        return read_suite(text, str(path))
    if path.name.endswith(ENDINGS) and path.is_file():
        short = _NOT_IN_NAMES.sub("_", path.name.removesuffix(".gz").removesuffix(".jsonl")).strip(".") or "requests"
        return _alone(short, f"The requests of {path.name}", corpus=name, measures=REQUEST_MEASURES)
    try:
        open_corpus(name)
    except InputError as error:
        raise InputError(f"{error}. The suites are {', '.join(suite_names())}") from error
    if path.is_dir():
        short = _NOT_IN_NAMES.sub("_", path.resolve().name) or "corpus"
        return _alone(short, f"The folder {path.name or short}", corpus=name)
    short = _NOT_IN_NAMES.sub("_", name.replace("/", "-"))
    for suite in map(open_suite, suite_names()):
        for dataset in suite.datasets:
            if dataset.corpus == name:
                return Suite(short, f"{suite.title}: {dataset.name}", (dataset,), suite.first_stage)
    return _alone(short, f"ir_datasets' {name}", corpus=name)


def _alone(name: str, title: str, **said: Any) -> Suite:
    return Suite(name, title, (DataSet(name=name, **said),))


def read_suite(text: str, source: str) -> Suite:
    """Reads a suite's table; `source` is the file's name, for errors and for the suite's name."""
    try:
        content = parse_toml_text(text)
    except ValueError as error:
        raise DataFileError(f"{source}: not valid TOML: {error}") from None
    table = checked_record(_Table, content, source)
    common = table.model_dump(include=set(_Shared.model_fields), exclude_unset=True)
    datasets = []
    for name, section in table.datasets.items():
        where = f"{source}: [datasets.{name}]"
        if _NOT_IN_NAMES.search(name) or name.strip(".") != name:
            raise DataFileError(f"{where}: a name becomes a folder: use letters, digits, '-', '_' and inner dots")
        said = common | section.model_dump(exclude_unset=True)
        if "measures" not in said and section.is_of_requests:
            said["measures"] = REQUEST_MEASURES
        figures = tuple(
            Published(block.system, block.measure, block.values[name], block.source, block.first_stage)
            for block in table.published
            if name in block.values
        )
        datasets.append(DataSet(name=name, published=figures, **said))
    named = [(f"[[published]] {number}", block.values) for number, block in enumerate(table.published, start=1)]
    for where, names in (*named, *((f"[groups] {name}", members) for name, members in table.groups.items())):
        if unknown := [name for name in names if name not in table.datasets]:
            raise DataFileError(f"{source}: {where}: there is no data set {unknown[0]!r}")
    groups = {name: tuple(members) for name, members in table.groups.items()}
    stem = Path(source).stem
    return Suite(stem, stem if table.title is None else table.title, tuple(datasets), table.first_stage, groups)


def choose_datasets(suite: Suite, names: Sequence[str]) -> Suite:
    """Keeps some of a suite's data sets or groups, in its own order."""
    offered = [dataset.name for dataset in suite.datasets]
    wanted: set[str] = set()
    for name in names:
        if name not in offered and name not in suite.groups:
            close = difflib.get_close_matches(name, [*suite.groups, *offered], n=3)
            hint = f" (close: {', '.join(close)})" if close else ""
            raise InputError(f"suite {suite.name!r} has no data set {name!r}{hint}: it has {', '.join(offered)}")
        wanted.update(suite.groups.get(name, (name,)))
    datasets = tuple(dataset for dataset in suite.datasets if dataset.name in wanted)
    groups = {name: members for name, members in suite.groups.items() if wanted.issuperset(members)}
    return replace(suite, datasets=datasets, groups=groups)


def needs_of(dataset: DataSet, first_stage: str) -> str:
    """Says what a data set needs before it can be run."""
    counts = {"documents": dataset.documents, "queries": dataset.queries}
    counted = [f"{count:,} {named}" for named, count in counts.items() if count is not None]
    parts = [", ".join(counted)] if counted else []
    if dataset.task_name and dataset.corpus in CONFIGURATIONS:
        parts.append(f"datasets downloads {HUB_NAME}, unless it is on this disk")
    elif not dataset.is_of_requests and not Path(dataset.corpus).expanduser().is_dir():
        index = f", and Pyserini {dataset.index}" if first_stage == f"pyserini:{dataset.index}" else ""
        parts.append(f"ir_datasets downloads {dataset.corpus}{index}, unless it is on this disk")
    if dataset.terms:
        parts.append(f"terms: {dataset.terms}")
    return "; ".join(parts) or "nothing to download"
