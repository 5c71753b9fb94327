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
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import share_of
from r1ranker_ir.files.paths import NamedFile, check_outputs, corpus_inputs

from .from_requests import record_of, requested_records
from .from_runs import Retrieval, retrieved_records
from .leakage import Leak, TestData, count_leaks, without_leaks
from .records import Record, Sample
from .sample_files import SampleWriter
from .samples import Sampling, count_windows, samples_of

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"
HELD_OUT = "the held-out lists"
_SHOWN_LEAKS = 5


@dataclass(frozen=True)
class DataCommandArguments:
    """What `r1ranker data` is asked for.

    Args:
        output: the file of training samples.
        sampling: how records become samples.
        corpus: an ir_datasets id or a folder in BEIR layout; goes with `run`.
        run: a first-stage run of it.
        requests: a JSON Lines file of ranking requests.
        ranking_bench: a configuration of Ranking-bench, or a file with its columns. Exactly one source is given.
        split: whose judgments a folder gives (`train` if it has them, else `test`), or the split of Ranking-bench.
        source: the records' source; each source's own name if `None`.
        queries: only the first so many queries, requests or rows; all if `None`.
        depth: how many documents of the run a query keeps.
        add_positives: add positives that the run lacks; by default for every strategy but `windows`.
        judged_only: leave out what nobody has judged.
        test_corpora: corpora whose judged queries and their positives must not be trained on.
        leaks: what to do about them: stop with an error, or drop them.
        hold_out: the share of the queries to hold out, above 0 and below 1; none if `None`.
        hold_out_output: the file of their lists.

    Raises:
        InputError: if arguments are missing or do not go together.
    """

    output: Path
    sampling: Sampling = field(default_factory=Sampling)
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
    """What one file was made of.

    Args:
        name: of the file.
        strategy: of its samples.
        queries: how many records have samples in it.
        lengths: the number of samples by list length.
        dropped: the number of records without samples, by reason.
        windows_dropped: windows without differing gains.
    """

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
    """What making the data has come to.

    Args:
        training: the training samples.
        held_out: the held-out lists; `None` without.
        read: queries, requests or rows read.
        dropped: how many of them no record could be made of, by reason.
        left_out: documents left out of records, by reason.
        test_queries: how many test queries there are to leak.
        leaks: what the records share with test data, by what it is.
        shared: what training records share with held-out ones, and was dropped, by what it is.
    """

    training: Part
    held_out: Part | None = None
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    test_queries: int = 0
    leaks: Counter[str] = field(default_factory=Counter)
    shared: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The summary in words, a line a subject."""
        lines = [_part_line(part) for part in (self.training, self.held_out) if part is not None]
        parts = [part for part in (self.training, self.held_out) if part is not None]
        dropped = sum((part.dropped for part in parts), self.dropped)
        lines.append(f"{self.read} queries read, {sum(dropped.values())} dropped{_reasons(dropped)}")
        if self.left_out:
            lines.append(f"{sum(self.left_out.values())} documents left out{_reasons(self.left_out)}")
        windows = sum(part.windows_dropped for part in parts)
        if windows:
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

    Args:
        arguments: what to make of what.
        progress: show a bar on standard error.
        announce: log which outputs exist already and will be replaced.

    Returns:
        Counts of what was read, dropped and written.

    Raises:
        InputError: if a source can't be read, nothing is left to write, or test data leak and `leaks` is `error`.
        DataFileError: if a file is malformed.
        MissingExtraError: if pyarrow or datasets is not installed.
    """
    outputs = NamedFile("--output", arguments.output), NamedFile("--hold-out-output", arguments.hold_out_output)
    check_outputs(
        outputs,
        (
            *corpus_inputs("--corpus", arguments.corpus),
            NamedFile("--run", arguments.run),
            NamedFile("--requests", arguments.requests),
            NamedFile("--ranking-bench", arguments.ranking_bench),
            *(file for name in arguments.test_corpora for file in corpus_inputs("--test-corpus", name)),
        ),
        announce=announce,
    )
    sampling = _sampling(arguments)
    summary = Summary(Part(str(arguments.output), sampling.strategy))
    with ExitStack() as stack:
        # Opened first, so that a name that can't be written to costs no reading.
        training = stack.enter_context(SampleWriter(arguments.output))
        holding = None
        if arguments.hold_out_output is not None:
            holding = stack.enter_context(SampleWriter(arguments.hold_out_output))
            summary.held_out = Part(str(arguments.hold_out_output), "direct")
        opened = _open_source(arguments)
        test = TestData()
        for name in arguments.test_corpora:
            test.add_corpus(open_corpus(name))
        summary.test_queries = len(test.queries)
        held = TestData()
        if holding is not None and summary.held_out is not None:
            lists = replace(sampling, strategy="direct", positives=1)
            for record in _with_bar(opened.records(Counter(), Counter()), progress, "held out"):
                clean = without_leaks(record, test.leaks_of(record, opened.collection))
                if clean is not None and _is_held_out(record, arguments.hold_out):
                    held.add_record(clean, HELD_OUT)
                    _write(holding, samples_of(clean, lists, summary.held_out.dropped), summary.held_out)
        _make_training(arguments, opened, test, held, sampling, training, summary, progress=progress)
        for writer, part in ((training, summary.training), (holding, summary.held_out)):
            if writer is not None and part is not None:
                if not part.samples:
                    raise InputError(_nothing_left(summary, part))
                writer.describe({"arguments": _described(arguments), "counts": _counts(summary, part)})
    return summary


def _make_training(
    arguments: DataCommandArguments,
    opened: _Opened,
    test: TestData,
    held: TestData,
    sampling: Sampling,
    writer: SampleWriter,
    summary: Summary,
    *,
    progress: bool,
) -> None:
    part = summary.training
    found: list[Leak] = []
    for record in _with_bar(opened.records(summary.dropped, summary.left_out), progress, "training"):
        summary.read += 1
        leaks = test.leaks_of(record, opened.collection)
        summary.leaks += count_leaks(leaks)
        if leaks and arguments.leaks == "error":
            found += leaks[: _SHOWN_LEAKS - len(found)]
        if found:
            continue  # only to count the rest of them
        clean = without_leaks(record, leaks)
        if clean is None or _is_held_out(record, arguments.hold_out):
            continue
        shared = held.leaks_of(clean)
        summary.shared += count_leaks(shared)
        clean = without_leaks(clean, shared)
        if clean is None:
            continue
        samples = samples_of(clean, sampling, part.dropped)
        if sampling.strategy == "windows":
            part.windows_dropped += count_windows(clean, sampling.window_size, sampling.stride) - len(samples)
        _write(writer, samples, part)
    summary.read += sum(summary.dropped.values())
    if found:
        raise InputError(_leak_message(found, summary))


def _write(writer: SampleWriter, samples: Iterable[Sample], part: Part) -> None:
    before = part.samples
    for sample in samples:
        writer.write(sample)
        part.lengths[len(sample.record.candidates)] += 1
    part.queries += part.samples > before


def _is_held_out(record: Record, share: float | None) -> bool:
    if share is None:
        return False
    return share_of(record.id) < share


@dataclass(frozen=True)
class _Opened:
    """A source that can be read again and again.

    Args:
        records: reads it, given counters of dropped queries and of documents left out.
        collection: what its ids belong to; `None` if they mean nothing elsewhere.
    """

    records: Callable[[Counter[str], Counter[str]], Iterator[Record]]
    collection: str | None = None


def _open_source(arguments: DataCommandArguments) -> _Opened:
    limits: dict[str, Any] = {"queries": arguments.queries, "source": arguments.source}
    if arguments.requests is not None:
        path = arguments.requests
        return _Opened(lambda dropped, left_out: requested_records(path, **limits))
    if arguments.ranking_bench is not None:
        where, split = arguments.ranking_bench, arguments.split or TRAIN_SPLIT
        return _Opened(
            lambda dropped, left_out: map(record_of, ranking_bench_requests(where, dropped, split=split, **limits))
        )
    assert arguments.corpus is not None and arguments.run is not None
    corpus = open_training_corpus(arguments.corpus, arguments.split)
    add = arguments.sampling.strategy != "windows" if arguments.add_positives is None else arguments.add_positives
    retrieval = Retrieval(arguments.depth, add_positives=add, judged_only=arguments.judged_only, **limits)
    return _Opened(partial(retrieved_records, corpus, read_run(arguments.run), retrieval), corpus.collection)


def open_training_corpus(name_or_folder: str, split: str | None = None) -> Corpus:
    """Opens a corpus to train on.

    Args:
        name_or_folder: an ir_datasets id, or a folder in BEIR layout.
        split: whose judgments a folder gives; `train` if it has them, else `test` with a warning.

    Returns:
        The corpus.

    Raises:
        InputError: if there is no such corpus, or a split is given beside an id.
    """
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


def _sampling(arguments: DataCommandArguments) -> Sampling:
    if arguments.ranking_bench == STEPS:
        return replace(arguments.sampling, as_given=True)
    return arguments.sampling


def _with_bar(records: Iterator[Record], progress: bool, name: str) -> Iterator[Record]:
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
