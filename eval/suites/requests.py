"""Data sets of ranking requests: where they come from, what of them is run, and how the ranker reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.adapters.ranking_bench import CONFIGURATIONS, ranking_bench_requests
from r1ranker_ir.data.request_corpus import ENDINGS, judgments_of, with_run_ids
from r1ranker_ir.data.request_files import JudgedRequest, gives_answer_away, read_requests, warn_of_answers_given_away
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import RankingRequest

from .baselines import baselines_of, expected_by_chance, random_choices, value_names
from .data import JudgedQueries
from .results import RequestsResult
from .tables import DataSet, Suite

if TYPE_CHECKING:
    from ir_measures import Measure


@dataclass(frozen=True)
class DataSetRequests:
    """The requests of a data set.

    Args:
        run: those that are run, with ids that a TREC run can hold.
        given: how many there are.
        judged: how many of these have a best candidate.
        dropped: how many rows no request could be made of, by reason.
        renamed: how many of those that are run have an id, or a candidate's id, that is not the source's own.
    """

    run: tuple[JudgedRequest, ...]
    given: int
    judged: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    renamed: int = 0


def with_source(suite: Suite, source: str) -> Suite:
    """Has a suite of Ranking-bench's tasks read files in place of the hub.

    Args:
        suite: the suite.
        source: a folder with a file of ranking requests for each task, `<task>.jsonl` or `<task>.jsonl.gz`; or a file
            with Ranking-bench's columns.

    Returns:
        The suite with these sources.

    Raises:
        InputError: if it has a data set that is no task of Ranking-bench, or there is no such folder or file.
    """
    others = [dataset.name for dataset in suite.datasets if not dataset.task_name]
    if others:
        raise InputError(
            f"--source replaces the data of Ranking-bench's tasks, and {others[0]!r} of suite {suite.name!r} is not "
            "one of them: leave it out, or use the suite ranking-bench"
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return replace(suite, datasets=tuple(_in_folder(dataset, path) for dataset in suite.datasets))
    if path.is_file():
        return replace(suite, datasets=tuple(replace(each, corpus=source, split=None) for each in suite.datasets))
    raise InputError(
        f"--source {source!r} does not exist: give a folder with <task>.jsonl for each task, such as "
        f"{suite.datasets[0].name}.jsonl, or a file with Ranking-bench's columns"
    )


def read_dataset_requests(dataset: DataSet, queries: int | None = None) -> DataSetRequests:
    """Reads a data set's requests.

    Args:
        dataset: whose `is_of_requests` holds.
        queries: only the first so many are run; all if `None`.

    Returns:
        The requests.

    Raises:
        InputError: if there is no such file, it holds no request, or none of those to run has a best candidate.
        DataFileError: if a line is malformed.
        MissingExtraError: if Ranking-bench's rows are asked for and datasets is not installed.
    """
    dropped: Counter[str] = Counter()
    if dataset.task_name:
        split = dataset.split or "test"
        given = list(ranking_bench_requests(dataset.corpus, dropped, split=split, task_name=dataset.task_name))
    else:
        given = list(read_requests(Path(dataset.corpus).expanduser()))
    if not given:
        raise InputError(f"{dataset.origin} holds no ranking request: there is nothing to rank")
    chosen = given[:queries]
    warn_of_answers_given_away(sum(map(gives_answer_away, chosen)), len(chosen), dataset.origin)
    if not any(judged.best for judged in chosen):
        raise InputError(
            f"none of the {len(chosen)} requests of {dataset.origin} has a candidate with a gain above 0: nothing can "
            f"be measured on them"
        )
    run = with_run_ids(chosen)
    renamed = sum(_ids_of(before.request) != _ids_of(after.request) for before, after in zip(chosen, run, strict=True))
    return DataSetRequests(run, len(given), sum(bool(judged.best) for judged in given), dict(dropped), renamed)


def described_requests(requests: DataSetRequests, measures: Sequence[Measure]) -> tuple[JudgedQueries, RequestsResult]:
    """Finds what the requests are measured on, and all that is to be known of them before a model ranks them.

    Args:
        requests: of a data set.
        measures: what is to be measured.

    Returns:
        The requests that have a best candidate, with judgments; and their description, with baselines.
    """
    run = requests.run
    judgments = judgments_of(run)
    topics = {each.request.query_id: each.request.query for each in run if each.best}
    lengths = [len(each.request.candidates) for each in run]
    told = value_names(run)
    described = RequestsResult(
        given=requests.given,
        run=len(run),
        lengths=(min(lengths), max(lengths)),
        without_best=len(run) - len(topics),
        graded=judgments.graded,
        dropped=requests.dropped,
        renamed=requests.renamed,
        baselines=baselines_of(run),
        chance=expected_by_chance(judgments.qrels, measures),
        choices={"": random_choices(run)},
        partial_values=[
            name for name in dict.fromkeys(name for each in run for name in each.values) if name not in told
        ],
    )
    return JudgedQueries(topics, judgments.qrels, {}, requests.judged, run), described


def request_checksums(dataset: DataSet, written: Path) -> dict[str, str]:
    """Digests the data that a result depends on.

    Args:
        dataset: says where they are from.
        written: the file of the requests that were run.

    Returns:
        SHA-256 of the requests, and of the file that they come from, unless that is the hub's.
    """
    digests = {"requests": file_digest(written)}
    if dataset.corpus not in CONFIGURATIONS:
        digests["file"] = file_digest(Path(dataset.corpus).expanduser())
    return digests


@dataclass(frozen=True)
class ListedRequests:
    """Requests in memory, with a position each.

    Args:
        listed: the requests.
    """

    listed: Sequence[RankingRequest]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.listed)

    def __iter__(self) -> Iterator[RankingRequest]:
        """Yields them in order."""
        return iter(self.listed)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, RankingRequest]]:
        """Yields position and request, from one position to the one before another."""
        yield from enumerate(self.listed[start:stop], start=start)


@dataclass(frozen=True)
class RequestFileSource:
    """A file of ranking requests, named so that another process can find it too.

    Args:
        path: the file, found from any working folder.
        shuffle: a seed to shuffle each request's candidates with; `None` keeps the file's order.
    """

    path: str
    shuffle: int | None = None

    def requests(self) -> ListedRequests:
        """Reads the file; task and aim come along."""
        listed = []
        for judged in read_requests(self.path):
            request = judged.request
            if self.shuffle is not None:
                candidates = list(request.candidates)
                seeded_by(f"{self.shuffle}:{request.query_id}").shuffle(candidates)
                request = replace(request, candidates=tuple(candidates))
            listed.append(request)
        return ListedRequests(listed)


def _in_folder(dataset: DataSet, folder: Path) -> DataSet:
    paths = [folder / f"{dataset.name}{ending}" for ending in ENDINGS]
    path = next((each for each in paths if each.is_file()), paths[0])
    return replace(dataset, corpus=str(path), split=None, task_name="")


def _ids_of(request: RankingRequest) -> tuple[str, ...]:
    return (request.query_id, *(candidate.id for candidate in request.candidates))
