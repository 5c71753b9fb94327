"""What `r1ranker data` does: records from a source, without what test data hold, become files of samples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from r1ranker_ir.adapters.ranking_bench import STEPS, ranking_bench_requests
from r1ranker_ir.data.corpora import TEST_SPLIT, Corpus, FolderCorpus, open_corpus
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import share_of
from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs

from .from_requests import requested_records
from .from_runs import Retrieval, retrieved_records
from .leakage import Leak, TestData, count_leaks, test_data_of, without_leaks
from .records import Sample
from .sample_files import SampleWriter
from .samples import Sampling, count_windows, samples_of
from .teacher import Teacher, Teaching

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"
HELD_OUT = "the held-out lists"
_SHOWN_LEAKS = 5


@dataclass(frozen=True)
class DataCommandArguments:
    """What `r1ranker data` is asked for."""

    output: Path
    sampling: Sampling = field(default_factory=Sampling)
    teaching: Teaching | None = None
    corpus: str | None = None
    run: str | None = None
    requests: Path | None = None
    ranking_bench: str | None = None
    split: str | None = None
    source: str | None = None
    queries: int | None = None
    depth: int = 100
    add_positives: bool | None = None
    judged_only: bool = False
    test_corpora: tuple[str, ...] = ()
    leaks: Literal["error", "drop"] = "error"
    hold_out: float | None = None
    hold_out_output: Path | None = None

    def __post_init__(self) -> None:
        given = {"corpus": self.corpus, "requests": self.requests, "ranking-bench": self.ranking_bench}
        named = [f"--{name}" for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise InputError(
                f"{'no source is' if not named else f'{len(named)} sources are'} given"
                f"{f' ({chr(32).join(named)})' if named else ''}: give one of --corpus (with --run), --requests, "
                f"--ranking-bench and --traces (with --corpus)"
            )
        if (self.corpus is None) != (self.run is None):
            raise InputError("--corpus and --run go together: the run gives the negatives, the corpus the rest")
        if self.requests is not None and self.split is not None:
            raise InputError("--split is for folders and Ranking-bench: a file of requests has no splits")
        if (self.hold_out is None) != (self.hold_out_output is None):
            raise InputError("--hold-out and --hold-out-output go together: give both or neither")
        if self.hold_out is not None and not 0 < self.hold_out < 1:
            raise InputError(f"--hold-out is {self.hold_out}: give a share above 0 and below 1")
        if self.hold_out_output is not None and self.hold_out_output.resolve() == self.output.resolve():
            raise InputError(f"--output and --hold-out-output are the same file, {str(self.output)!r}: give two")
        if self.ranking_bench == STEPS and not self.sampling.makes_steps:
            raise InputError(
                f"--ranking-bench {STEPS} holds step samples, and --strategy {self.sampling.strategy} needs whole "
                "lists: use --ranking-bench direct"
            )
        if self.queries is not None and self.queries < 1:
            raise InputError(f"--queries is {self.queries}: ask for at least 1")


@dataclass
class Part:
    """What one file was made of."""

    name: str
    strategy: str
    queries: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    windows_dropped: int = 0

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(self.lengths.values())


@dataclass
class Summary:
    """What making the data has come to."""

    training: Part
    held_out: Part | None = None
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    test_queries: int = 0
    leaks: Counter[str] = field(default_factory=Counter)
    shared: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The summary in words, one line per subject."""
        parts = [part for part in (self.training, self.held_out) if part is not None]
        lines = [_part_line(part) for part in parts]
        dropped = sum((part.dropped for part in parts), self.dropped)
        lines.append(f"{self.read} queries read, {sum(dropped.values())} dropped{_reasons(dropped)}")
        if self.left_out:
            lines.append(f"{sum(self.left_out.values())} documents left out{_reasons(self.left_out)}")
        if windows := sum(part.windows_dropped for part in parts):
            lines.append(f"{windows} windows without differing gains left out")
        if self.test_queries:
            lines.append(f"{sum(self.leaks.values())} leaks of {self.test_queries} test queries{_reasons(self.leaks)}")
        if self.held_out is not None:
            lines.append(f"{sum(self.shared.values())} shared with {HELD_OUT} and dropped{_reasons(self.shared)}")
        return lines


def make_data(arguments: DataCommandArguments, *, progress: bool = False, announce: bool = False) -> Summary:
    """Makes the files that the arguments ask for.

    With a held-out part the source is read twice: first for the held-out lists, then for training samples that share
    neither query nor positive with them. Which queries are held out depends on their ids alone.
    """
    named = {"--run": arguments.run, "--requests": arguments.requests, "--ranking-bench": arguments.ranking_bench}
    inputs = [NamedFile(option, path) for option, path in named.items()]
    inputs += corpus_inputs("--corpus", arguments.corpus)
    inputs += [file for name in arguments.test_corpora for file in corpus_inputs("--test-corpus", name)]
    outputs = NamedFile("--output", arguments.output), NamedFile("--hold-out-output", arguments.hold_out_output)
    check_outputs(outputs, inputs, announce=announce)
    sampling = arguments.sampling
    if arguments.ranking_bench == STEPS:
        sampling = replace(sampling, as_given=True)
    summary = Summary(Part(str(arguments.output), sampling.strategy))
    with ExitStack() as stack:
        # Opened first, so that a name that can't be written to costs no reading.
        made = [(stack.enter_context(SampleWriter(arguments.output)), summary.training)]
        if arguments.hold_out_output is not None:
            summary.held_out = Part(str(arguments.hold_out_output), "direct")
            made.append((stack.enter_context(SampleWriter(arguments.hold_out_output)), summary.held_out))
        making = _Making(arguments, sampling, _open_source(arguments), test_data_of(arguments.test_corpora), summary)
        summary.test_queries = len(making.test.queries)
        for writer, part in made[1:]:
            making.hold_out(writer, part, progress=progress)
        making.train(*made[0], progress=progress)
        for writer, part in made:
            if not part.samples:
                raise InputError(_nothing_left(summary, part))
            writer.describe({"arguments": _described(arguments), "counts": _counts(summary, part)})
    return summary


@dataclass(frozen=True)
class _Making:
    """What both passes over a source need: what to make of it, and what must not be in it."""

    arguments: DataCommandArguments
    sampling: Sampling
    source: _Opened
    test: TestData
    summary: Summary
    held: TestData = field(default_factory=TestData)

    def hold_out(self, writer: SampleWriter, part: Part, *, progress: bool) -> None:
        """Writes the held-out lists, and remembers their queries and positives."""
        lists = replace(self.sampling, strategy="direct", positives=1)
        for record in _with_bar(self.source.records(Counter(), Counter()), progress, "held out"):
            clean = without_leaks(record, self.test.leaks_of(record, self.source.collection))
            if clean is not None and self._is_held_out(record):
                self.held.add_record(clean, HELD_OUT)
                _write(writer, samples_of(clean, lists, part.dropped), part)

    def train(self, writer: SampleWriter, part: Part, *, progress: bool) -> None:
        """Writes the training samples, without what test data and held-out lists hold."""
        summary, sampling = self.summary, self.sampling
        teacher = None if self.arguments.teaching is None else Teacher(self.arguments.teaching)
        found: list[Leak] = []
        for record in _with_bar(self.source.records(summary.dropped, summary.left_out), progress, "training"):
            summary.read += 1
            leaks = self.test.leaks_of(record, self.source.collection)
            summary.leaks += count_leaks(leaks)
            if leaks and self.arguments.leaks == "error":
                found += leaks[: _SHOWN_LEAKS - len(found)]
            clean = None if found else without_leaks(record, leaks)  # after a leak only the rest of them is counted
            if clean is None or self._is_held_out(record):
                continue
            shared = self.held.leaks_of(clean)
            summary.shared += count_leaks(shared)
            clean = without_leaks(clean, shared)
            if clean is not None:
                samples = samples_of(clean, sampling, part.dropped)
                if sampling.strategy == "windows":
                    part.windows_dropped += count_windows(clean, sampling.window_size, sampling.stride) - len(samples)
                _write(writer, samples if teacher is None else map(teacher.taught, samples), part)
        summary.read += sum(summary.dropped.values())
        if found:
            raise InputError(_leak_message(found, summary))

    def _is_held_out(self, record: JudgedRequest) -> bool:
        share = self.arguments.hold_out
        return share is not None and share_of(record.request.query_id) < share


def _write(writer: SampleWriter, samples: Iterable[Sample], part: Part) -> None:
    before = part.samples
    for sample in samples:
        writer.write(sample)
        part.lengths[len(sample.record.request.candidates)] += 1
    part.queries += part.samples > before


@dataclass(frozen=True)
class _Opened:
    """A source that can be read again and again."""

    records: Callable[[Counter[str], Counter[str]], Iterator[JudgedRequest]]
    collection: str | None = None


def _open_source(arguments: DataCommandArguments) -> _Opened:
    limits: dict[str, Any] = {"queries": arguments.queries, "source": arguments.source}
    if arguments.requests is not None:
        path = arguments.requests
        return _Opened(lambda dropped, left_out: requested_records(path, **limits))
    if arguments.ranking_bench is not None:
        where, split = arguments.ranking_bench, arguments.split or TRAIN_SPLIT
        return _Opened(lambda dropped, left_out: ranking_bench_requests(where, dropped, split=split, **limits))
    assert arguments.corpus is not None and arguments.run is not None
    corpus = open_training_corpus(arguments.corpus, arguments.split)
    add = arguments.sampling.strategy != "windows" if arguments.add_positives is None else arguments.add_positives
    retrieval = Retrieval(arguments.depth, add_positives=add, judged_only=arguments.judged_only, **limits)
    return _Opened(partial(retrieved_records, corpus, read_run(arguments.run), retrieval), corpus.collection)


def open_training_corpus(name_or_folder: str, split: str | None = None) -> Corpus:
    """Opens a corpus to train on."""
    corpus = open_corpus(name_or_folder, split)
    if split is None and isinstance(corpus, FolderCorpus):
        if TRAIN_SPLIT in corpus.splits():
            return open_corpus(name_or_folder, TRAIN_SPLIT)
        logger.warning(
            "folder %s has no qrels/train.tsv: its %s judgments are used; don't evaluate on them afterwards",
            corpus.name,
            TEST_SPLIT,
        )
    return corpus


def _with_bar(records: Iterator[JudgedRequest], progress: bool, name: str) -> Iterator[JudgedRequest]:
    from tqdm import tqdm

    return iter(tqdm(records, desc=name, unit=" queries", disable=not progress))


def _described(arguments: DataCommandArguments) -> dict[str, Any]:
    """The arguments as plain data, without the names of the files, which change nothing in them."""
    said = asdict(arguments)
    for name in ("output", "hold_out_output"):
        del said[name]
    said["requests"] = None if arguments.requests is None else str(arguments.requests)
    return said


def _counts(summary: Summary, part: Part) -> dict[str, Any]:
    return {
        "read": summary.read,
        "queries": part.queries,
        "samples": part.samples,
        "lengths": {str(length): count for length, count in sorted(part.lengths.items())},
        "dropped": dict(summary.dropped + part.dropped),
        "left_out": dict(summary.left_out),
        "windows_dropped": part.windows_dropped,
        "leaks": dict(summary.leaks),
        "shared": dict(summary.shared),
    }


def _part_line(part: Part) -> str:
    lengths = ", ".join(f"{length}: {count}" for length, count in sorted(part.lengths.items()))
    return f"{part.name}: {part.samples} samples ({part.strategy}) of {part.queries} queries; by list length {lengths}"


def _reasons(counter: Counter[str]) -> str:
    found = ", ".join(f"{count} {reason}" for reason, count in counter.most_common())
    return f": {found}" if found else ""


def _leak_message(found: list[Leak], summary: Summary) -> str:
    total = sum(summary.leaks.values())
    shown = "; ".join(map(str, found)) + ("; …" if total > len(found) else "")
    return (
        f"{total} leaks of test data into training{_reasons(summary.leaks)}. {shown}. Train on another split, or leave "
        f"these queries and positives out with --leaks drop (leaks='drop')"
    )


def _nothing_left(summary: Summary, part: Part) -> str:
    dropped = summary.dropped + part.dropped
    hint = ": raise --hold-out" if part is summary.held_out else ""
    return (
        f"no sample is left for {part.name}{hint}: {summary.read} queries read, "
        f"{sum(dropped.values())} dropped{_reasons(dropped)}"
        + (f"; leaks{_reasons(summary.leaks)}" if summary.leaks else "")
        + (f"; shared with {HELD_OUT}{_reasons(summary.shared)}" if summary.shared else "")
    )
