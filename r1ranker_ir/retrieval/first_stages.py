"""First stages as data: a line of text that says where a run comes from, and the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from r1ranker_ir.doors import Door
from r1ranker_ir.errors import InputError

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus
    from r1ranker_ir.data.trec_runs import Run


class Searches(Protocol):
    """What finds the candidates of a corpus's queries, an entry for every query, in their order."""

    def __call__(
        self, corpus: Corpus, depth: int, queries: Mapping[str, str] | None, *, source: str, progress: bool
    ) -> Run: ...


@dataclass(frozen=True)
class FirstStageKind:
    """A first stage, declared beside what searches.

    Args:
        name: how it is asked for; a source may follow it, behind a colon.
        search: makes its run.
        summary: what it does, in a few words for `--help`.
        source: what has to follow the colon, such as `INDEX`; empty for nothing.
        reads_file: the source is a run's file, which belongs to what it was made with.
        tag: of the run that it writes; its name where it is empty.
        listed: its place in lists of first stages.
    """

    name: str
    search: Searches = field(hash=False)
    summary: str = ""
    source: str = ""
    reads_file: bool = False
    tag: str = ""
    listed: int = 100


FIRST_STAGES: Door[FirstStageKind] = Door(
    FirstStageKind, "r1ranker_ir.first_stages", "r1ranker_ir.retrieval.declared", "first stage"
)
"""First stages by name: the modules of `retrieval.declared`, and entry points of installed packages."""


def forms() -> str:
    """How first stages are written."""
    written = [form_of(kind) for kind in FIRST_STAGES.values()]
    return f"{', '.join(written[:-1])} or {written[-1]}"


def form_of(kind: FirstStageKind) -> str:
    """How a first stage is written."""
    return f"{kind.name}:{kind.source}" if kind.source else kind.name


@dataclass(frozen=True)
class FirstStage:
    """A first stage's name, and its index or file; `str()` gives the text that `parse_first_stage` reads."""

    kind: str
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in FIRST_STAGES or bool(self.declared.source) != bool(self.source.strip()):
            raise InputError(f"first stage {str(self)!r} is unknown: use {forms()}")

    @property
    def declared(self) -> FirstStageKind:
        """What there is to know of it."""
        return FIRST_STAGES[self.kind]

    def __str__(self) -> str:
        return f"{self.kind}:{self.source}" if self.source else self.kind


def parse_first_stage(text: str) -> FirstStage:
    """Reads a first stage: its name, such as `bm25s`, and its source where it takes one, as in `run:FILE`."""
    kind, _, source = text.partition(":")
    return FirstStage(kind, source)


def check_depth(depth: int) -> None:
    """Refuses a search for no document."""
    if depth < 1:
        raise InputError(f"depth is {depth}: ask for at least 1 document")


def retrieve(
    first_stage: FirstStage,
    corpus: Corpus,
    depth: int,
    queries: Mapping[str, str] | None = None,
    *,
    progress: bool = False,
) -> Run:
    """Gets the run of a first stage for a corpus's queries (text by id), an entry for every query, in their order."""
    check_depth(depth)
    return first_stage.declared.search(corpus, depth, queries, source=first_stage.source, progress=progress)
