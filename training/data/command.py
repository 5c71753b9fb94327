"""What `r1ranker data` does: records from a source, without what test data hold, become files of samples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from r1ranker_ir.adapters.ranking_bench import STEPS, ranking_bench_requests
from r1ranker_ir.data.corpora import TEST_SPLIT, Corpus, FolderCorpus, open_corpus
from r1ranker_ir.data.request_files import JudgedRequest, gives_answer_away, read_requests, warn_of_answers_given_away
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import share_of
from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs

from .arguments import DataCommandArguments
from .from_runs import Retrieval, retrieved_records
from .leakage import Leak, TestData, test_data_of, without_leaks
from .records import Sample
from .sample_files import SampleWriter, sample_writer
from .samples import Sampling, count_windows, samples_of
from .teacher import Teacher

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"
HELD_OUT = "the held-out lists"
TOO_NEAR = "without a gain, and too near to the query"
SHOWN_LEAKS = 5
"""How many leaks a message names."""


@dataclass
class Part:
    """What one file was made of."""

    name: str
    strategy: str
    queries: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    windows_dropped: int = 0

    def write(self, writer: SampleWriter, samples: Iterable[Sample]) -> None:
        """Writes the samples of one query, and counts them."""
        before = self.lengths.total()
        for sample in samples:
            writer.write(sample)
            self.lengths[len(sample.record.request.candidates)] += 1
        self.queries += self.lengths.total() > before

    def line(self) -> str:
        """The samples by length."""
        lengths = ", ".join(f"{length}: {count}" for length, count in sorted(self.lengths.items()))
        made = f"{self.lengths.total()} samples ({self.strategy}) of {self.queries} queries"
        return f"{self.name}: {made}; by list length {lengths}"


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
        dropped = sum((part.dropped for part in parts), self.dropped)
        lines = [part.line() for part in parts]
        lines.append(f"{self.read} queries read, {dropped.total()} dropped{_reasons(dropped)}")
        if self.left_out:
            lines.append(f"{self.left_out.total()} documents left out{_reasons(self.left_out)}")
        if windows := sum(part.windows_dropped for part in parts):
            lines.append(f"{windows} windows without differing gains left out")
        if self.test_queries:
            lines.append(f"{_counted_leaks(self.leaks)} of {self.test_queries} test queries{_reasons(self.leaks)}")
        if self.held_out is not None:
            lines.append(f"{self.shared.total()} shared with {HELD_OUT} and dropped{_reasons(self.shared)}")
        return lines

    def counts(self, part: Part) -> dict[str, Any]:
        """What the metadata of a part's file say of it."""
        return {
            "read": self.read,
            "queries": part.queries,
            "samples": part.lengths.total(),
            "lengths": {str(length): count for length, count in sorted(part.lengths.items())},
            "dropped": dict(self.dropped + part.dropped),
            "left_out": dict(self.left_out),
            "windows_dropped": part.windows_dropped,
            "leaks": dict(self.leaks),
            "shared": dict(self.shared),
        }


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
        writer, held_writer = stack.enter_context(sample_writer(arguments.output)), None
        if arguments.hold_out_output is not None:
            summary.held_out = Part(str(arguments.hold_out_output), "direct")
            held_writer = stack.enter_context(sample_writer(arguments.hold_out_output))
        making = _Making(arguments, sampling, summary, progress=progress)
        made = [(writer, summary.training)]
        if held_writer is not None and summary.held_out is not None:
            making.hold_out(held_writer, summary.held_out)
            made.append((held_writer, summary.held_out))
        making.train(writer, summary.training)
        for each, part in made:
            if not part.lengths:
                hint = "" if part is summary.training else ": raise --hold-out"
                raise InputError(f"no sample is left for {part.name}{hint}: {'; '.join(summary.lines()[len(made) :])}")
            each.describe({"arguments": _described(arguments), "counts": summary.counts(part)})
    return summary


class _Making:
    """Both passes over a source: what to make of it, and what must not be in it."""

    def __init__(
        self, arguments: DataCommandArguments, sampling: Sampling, summary: Summary, *, progress: bool
    ) -> None:
        self._arguments, self._sampling, self._summary, self._progress = arguments, sampling, summary, progress
        self._collection: str | None = None
        if arguments.corpus is not None and arguments.run is not None:
            self._corpus = open_training_corpus(arguments.corpus, arguments.split)
            self._run, self._collection = read_run(arguments.run), self._corpus.collection
        self._test = test_data_of(arguments.test_corpora)
        self._held = TestData()
        summary.test_queries = len(self._test.queries)

    def _records(self, name: str, dropped: Counter[str], left_out: Counter[str]) -> Iterator[JudgedRequest]:
        """Reads the source, with a bar on terminals."""
        from tqdm import tqdm

        given = self._arguments
        if given.requests is not None:
            records = _requested(given.requests, given.queries, given.source)
        elif given.ranking_bench is not None:
            split, limit = given.split or TRAIN_SPLIT, given.queries
            records = ranking_bench_requests(
                given.ranking_bench, dropped, split=split, queries=limit, source=given.source
            )
        else:
            add = self._sampling.strategy != "windows" if given.add_positives is None else given.add_positives
            retrieval = Retrieval(given.depth, add, given.judged_only, given.queries, given.source)
            records = retrieved_records(self._corpus, self._run, retrieval, dropped, left_out)
        return iter(tqdm(records, desc=name, unit=" queries", disable=not self._progress))

    def hold_out(self, writer: SampleWriter, part: Part) -> None:
        """Writes the held-out lists, and remembers their queries and positives."""
        lists = replace(self._sampling, strategy="direct", positives=1)
        for record in self._records("held out", Counter(), Counter()):
            clean = without_leaks(record, self._test.leaks_of(record, self._collection))
            if clean is not None and self._is_held_out(record):
                self._held.add_record(clean, HELD_OUT)
                part.write(writer, samples_of(clean, lists, part.dropped))

    def train(self, writer: SampleWriter, part: Part) -> None:
        """Writes the training samples, without what test data and held-out lists hold."""
        summary, sampling = self._summary, self._sampling
        teacher = None if self._arguments.teaching is None else Teacher(self._arguments.teaching)
        found: list[Leak] = []
        for record in self._records("training", summary.dropped, summary.left_out):
            summary.read += 1
            leaks = self._test.leaks_of(record, self._collection)
            summary.leaks.update(leak.what for leak in leaks)
            if leaks and self._arguments.leaks == "error":
                found += leaks[: SHOWN_LEAKS - len(found)]
            clean = None if found else without_leaks(record, leaks)  # after a leak only the rest of them is counted
            if clean is None or self._is_held_out(record):
                continue
            shared = self._held.leaks_of(clean)
            summary.shared.update(leak.what for leak in shared)
            if (clean := without_leaks(clean, shared)) is not None:
                judged = clean if teacher is None else teacher.without_doubtful(clean)
                doubtful = len(clean.gains) - len(judged.gains)
                summary.left_out.update({TOO_NEAR: doubtful} if doubtful else {})
                samples = samples_of(judged, sampling, part.dropped)
                if sampling.strategy == "windows":
                    part.windows_dropped += count_windows(clean, sampling.window_size, sampling.stride) - len(samples)
                part.write(writer, samples if teacher is None else map(teacher.taught, samples))
        summary.read += summary.dropped.total()
        if found:
            more = "; …" if summary.leaks.total() > len(found) else ""
            raise InputError(
                f"{_counted_leaks(summary.leaks)} of test data into training{_reasons(summary.leaks)}. "
                f"{'; '.join(map(str, found))}{more}. Train on another split, or leave these queries and positives out "
                "with --leaks drop (leaks='drop')"
            )

    def _is_held_out(self, record: JudgedRequest) -> bool:
        share = self._arguments.hold_out
        return share is not None and share_of(record.request.query_id) < share


def _requested(path: Path, queries: int | None, source: str | None) -> Iterator[JudgedRequest]:
    """Reads the first requests of a file, under the source that they name or another one."""
    read = given_away = 0
    for record in read_requests(path, queries=queries):
        read, given_away = read + 1, given_away + gives_answer_away(record)
        yield record if source is None else replace(record, source=source)
    warn_of_answers_given_away(given_away, read, str(path))


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


def _described(arguments: DataCommandArguments) -> dict[str, Any]:
    """The arguments as plain data, without the names of the files, which change nothing in them."""
    said = asdict(arguments)
    for name in ("output", "hold_out_output"):
        del said[name]
    said["requests"] = None if arguments.requests is None else str(arguments.requests)
    return said


def _counted_leaks(leaks: Counter[str]) -> str:
    return "1 leak" if leaks.total() == 1 else f"{leaks.total()} leaks"


def _reasons(counter: Counter[str]) -> str:
    found = ", ".join(f"{count} {reason}" for reason, count in counter.most_common())
    return f": {found}" if found else ""
