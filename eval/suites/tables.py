"""Suites as data: which data sets a suite has, how each is measured, what it needs, and what others have published."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

from r1ranker_ir.adapters.ranking_bench import CONFIGURATIONS, HUB_NAME
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.request_corpus import ENDINGS
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.files.plain_data import parse_toml_text
from r1ranker_ir.files.small_files import read_small_text
from r1ranker_ir.quoting import quoted

FOLDER_MEASURES = "nDCG@10 RR@10 AP R@100"
"""What a corpus without a table is measured by."""
REQUEST_MEASURES = "RR nDCG@3 nDCG@5 nDCG@10 Success@3 Success@5 Success@10"
"""What a file of ranking requests is measured by, unless its table says otherwise: R1-Ranker's measures."""
FOLDER_FIRST_STAGE = "bm25s"
"""What searches a corpus without a table."""
_SHARED_KEYS = ("measures", "max_passage_tokens", "query_is_no_result", "excluded_grade", "terms")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Published:
    """A figure that somebody else has published."""

    system: str
    measure: str  # as ir_measures writes it
    value: float  # between 0 and 1
    source: str
    first_stage: str = ""  # what found the documents; empty for a first stage itself


@dataclass(frozen=True)
class DataSet:
    """One data set of a suite."""

    name: str  # of its folder too
    # an ir_datasets id or a folder; of ranking requests, their file, or where Ranking-bench is
    corpus: str
    split: str | None = None  # whose judgments a folder gives, or the split of Ranking-bench; ids carry their own
    measures: str = FOLDER_MEASURES  # as ir_measures writes them, split by spaces; the first one stands in overviews
    max_passage_tokens: int | None = None  # what is shown of a passage; None leaves it to the checkpoint
    index: str | None = None  # Pyserini's name of a prebuilt BM25 index of it
    query_is_no_result: bool = False  # a document with the query's own id is no result
    excluded_grade: int | None = None  # a judgment of this grade says that the document is no result for the query
    documents: int | None = None
    queries: int | None = None  # how many are judged
    download: int | None = None  # bytes of the corpus's own download
    shares: str | None = None  # the name of a download that other data sets use too
    shared_download: int = 0  # its bytes
    index_size: int | None = None  # bytes of the index's download
    terms: str = ""  # the licence step before a download
    published: tuple[Published, ...] = ()
    task_name: str = ""  # of Ranking-bench, whose rows of this task are the requests

    @property
    def is_of_requests(self) -> bool:
        """It holds ranking requests, whose candidates are given, and no corpus to search."""
        return bool(self.task_name) or self.corpus.endswith(ENDINGS)

    @property
    def origin(self) -> str:
        """Where its data are, in words: the corpus, and of Ranking-bench also the task."""
        if not self.task_name:
            return self.corpus
        where = f"{HUB_NAME}, {self.corpus}, {self.split}" if self.corpus in CONFIGURATIONS else self.corpus
        return f"{where}: {self.task_name}"


# What a data set's section may hold, and of which type.
_KINDS: Mapping[str, type] = {
    name: (get_args(hint) or (hint,))[0]
    for name, hint in get_type_hints(DataSet).items()
    if name not in ("name", "published", "shared_download")
}


@dataclass(frozen=True)
class Suite:
    """Data sets that are run together."""

    name: str  # of the output folder too
    title: str  # what reports call it
    datasets: tuple[DataSet, ...]  # in the order in which they are run
    first_stage: str = FOLDER_FIRST_STAGE  # where the caller names none
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # data sets that count as one in means


def suite_names() -> tuple[str, ...]:
    """Returns the names of the packaged suites."""
    return tuple(sorted(Path(entry.name).stem for entry in _folder().iterdir() if entry.name.endswith(".toml")))


def open_suite(name: str) -> Suite:
    """Finds a packaged suite, a TOML file like one, a file of requests, a folder in BEIR layout, or an ir_datasets id.

    An id that a packaged suite has comes with that suite's settings and published figures.
    """
    if name in suite_names():
        return read_suite((_folder() / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")
    path = Path(name).expanduser()
    if path.suffix == ".toml" and path.is_file():
        text = read_small_text(path, str(path), "give a suite's TOML file", error=DataFileError)
        return read_suite(text, str(path))
    if path.name.endswith(ENDINGS) and path.is_file():
        short = _NOT_IN_NAMES.sub("_", path.name.removesuffix(".gz").removesuffix(".jsonl")).strip(".") or "requests"
        return Suite(short, f"The requests of {path.name}", (DataSet(short, name, measures=REQUEST_MEASURES),))
    try:
        open_corpus(name)
    except InputError as error:
        raise InputError(f"{error}. The suites are {', '.join(suite_names())}") from error
    if path.is_dir():
        short = _NOT_IN_NAMES.sub("_", path.resolve().name) or "corpus"
        return Suite(short, f"The folder {path.name or short}", (DataSet(short, name),))
    short = _NOT_IN_NAMES.sub("_", name.replace("/", "-"))
    for suite in map(open_suite, suite_names()):
        for dataset in suite.datasets:
            if dataset.corpus == name:
                return Suite(short, f"{suite.title}: {dataset.name}", (dataset,), suite.first_stage)
    return Suite(short, f"ir_datasets' {name}", (DataSet(short, name),))


def read_suite(text: str, source: str) -> Suite:
    """Reads a suite's table; `source` is the file's name, for errors and for the suite's name."""
    try:
        content = parse_toml_text(text)
    except ValueError as error:
        raise DataFileError(f"{source}: not valid TOML: {error}") from None
    top = {"title": str, "first_stage": str, "datasets": dict, "groups": dict, "shared": dict, "published": list}
    _check(content, top | {key: _KINDS[key] for key in _SHARED_KEYS}, source, needed=("datasets",))
    common = {key: content[key] for key in _SHARED_KEYS if key in content}
    shared: dict[str, Any] = content.get("shared", {})
    published = _read_published(content.get("published", []), tuple(content["datasets"]), source)
    datasets = []
    for name, row in content["datasets"].items():
        where = f"{source}: [datasets.{name}]"
        if _NOT_IN_NAMES.search(name) or name.strip(".") != name:
            raise DataFileError(f"{where}: a name becomes a folder: use letters, digits, '-', '_' and inner dots")
        _check(row, _KINDS, where, needed=("corpus",))
        if row.get("shares") is not None and not isinstance(shared.get(row["shares"]), int):
            raise DataFileError(f"{where}: shares is {quoted(row['shares'])}: give its bytes under [shared]")
        figures = tuple(figure for dataset, figure in published if dataset == name)
        dataset = DataSet(name, published=figures, shared_download=shared.get(row.get("shares"), 0), **(common | row))
        if dataset.is_of_requests and "measures" not in common | row:
            dataset = replace(dataset, measures=REQUEST_MEASURES)
        datasets.append(dataset)
    groups = {name: tuple(members) for name, members in content.get("groups", {}).items()}
    for name, members in groups.items():
        if unknown := [member for member in members if member not in content["datasets"]]:
            raise DataFileError(f"{source}: [groups] {name}: there is no data set {unknown[0]!r}")
    title = content.get("title", Path(source).stem)
    return Suite(Path(source).stem, title, tuple(datasets), content.get("first_stage", FOLDER_FIRST_STAGE), groups)


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


def needs_of(dataset: DataSet, *, with_index: bool) -> str:
    """Says what a data set needs before it can be run."""
    counts = {"documents": dataset.documents, "queries": dataset.queries}
    counted = [f"{count:,} {named}" for named, count in counts.items() if count is not None]
    parts = [", ".join(counted)] if counted else []
    downloads = downloads_of(dataset)
    if with_index and dataset.index and dataset.index_size is not None:
        downloads.append(f"{size_of(dataset.index_size)} for Pyserini's index {dataset.index}")
    if downloads:
        parts.append(f"downloads, unless they are on this disk: {' + '.join(downloads)}")
    elif dataset.task_name and dataset.corpus in CONFIGURATIONS:
        parts.append(f"datasets downloads {HUB_NAME}, unless it is on this disk")
    elif not dataset.is_of_requests and not Path(dataset.corpus).expanduser().is_dir():
        parts.append(f"ir_datasets downloads {dataset.corpus}, unless it is on this disk")
    if dataset.terms:
        parts.append(f"terms: {dataset.terms}")
    return "; ".join(parts) or "nothing to download"


def downloads_of(dataset: DataSet) -> list[str]:
    """Says what ir_datasets downloads for a data set: what it shares with others, and what is its own."""
    shared = [f"{size_of(dataset.shared_download)} (shared)"] if dataset.shares is not None else []
    return shared + ([size_of(dataset.download)] if dataset.download else [])


def _folder() -> Any:
    return resources.files(__package__)


def _check(row: Any, kinds: Mapping[str, type], where: str, needed: Sequence[str]) -> None:
    """Refuses keys that are unknown, missing, or of another type."""
    if not isinstance(row, dict):
        raise DataFileError(f"{where} is {quoted(row)}: give a section")
    for key, value in row.items():
        if key not in kinds:
            raise DataFileError(f"{where}: unknown key {key!r}: use {', '.join(kinds)}")
        if type(value) is not kinds[key]:
            raise DataFileError(f"{where}: {key} is {quoted(value)}: give a TOML value of type {kinds[key].__name__}")
    for key in needed:
        if not row.get(key):
            raise DataFileError(f"{where}: {key!r} is missing")


def _read_published(rows: Sequence[Any], names: Sequence[str], source: str) -> list[tuple[str, Published]]:
    """Reads the blocks of figures as pairs of a data set's name and a figure."""
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{source}: [[published]] {number}"
        kinds = {"system": str, "first_stage": str, "measure": str, "source": str, "values": dict}
        _check(row, kinds, where, needed=("system", "measure", "source", "values"))
        for name, value in row["values"].items():
            if name not in names:
                raise DataFileError(f"{where}: there is no data set {name!r}")
            if not isinstance(value, float) or not 0 <= value <= 1:
                raise DataFileError(f"{where}: {name} = {quoted(value)}: give a number between 0.0 and 1.0")
            figure = Published(row["system"], row["measure"], value, row["source"], row.get("first_stage", ""))
            found.append((name, figure))
    return found


def size_of(count: int) -> str:
    """Writes a number of bytes in GB, MB or kB."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{max(1, round(count / 1000))} kB"
