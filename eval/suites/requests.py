"""Data sets of ranking requests: where they come from, what of them is run, and how the ranker reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.adapters.ranking_bench import CONFIGURATIONS, ranking_bench_requests
from r1ranker_ir.data.request_corpus import ENDINGS, judgments_of, with_run_ids
from r1ranker_ir.data.request_files import JudgedRequest, gives_answer_away, read_requests, warn_of_answers_given_away
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import RankingRequest

from .baselines import Baseline, baselines_of, expected_by_chance, first_choices
from .data import JudgedQueries
from .results import RequestsResult
from .tables import DataSet, Suite

if TYPE_CHECKING:
    from ir_measures import Measure


def with_source(suite: Suite, source: str) -> Suite:
    """Has Ranking-bench's tasks read a folder of `<task>.jsonl` files, or a file with Ranking-bench's columns."""
    others = [dataset.name for dataset in suite.datasets if not dataset.task_name]
    if others:
        raise InputError(
            f"--source replaces the data of Ranking-bench's tasks, and {others[0]!r} of suite {suite.name!r} is not "
            "one of them: leave it out, or use the suite ranking-bench"
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(
            f"--source {source!r} does not exist: give a folder with <task>.jsonl for each task, such as "
            f"{suite.datasets[0].name}.jsonl, or a file with Ranking-bench's columns"
        )
    found = []
    for dataset in suite.datasets:
        update: dict[str, str | None] = {"corpus": source, "split": None}
        if path.is_dir():
            paths = [path / f"{dataset.name}{ending}" for ending in ENDINGS]
            corpus = next((each for each in paths if each.is_file()), paths[0])
            update |= {"corpus": str(corpus), "task_name": ""}
        found.append(dataset.model_copy(update=update))
    return replace(suite, datasets=tuple(found))


def read_dataset_requests(
    dataset: DataSet, measures: Sequence[Measure], queries: int | None = None
) -> tuple[JudgedQueries, RequestsResult]:
    """Reads a data set's requests, of which only the first `queries` are run, and all that is known without a model."""
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
    judgments, baselines, choices = judgments_of(run), baselines_of(run), first_choices(run)
    chance = expected_by_chance(judgments.qrels, measures)
    topics = {each.request.query_id: each.request.query for each in run if each.best}
    lengths = [len(each.request.candidates) for each in run]
    facts = {
        "task_name": dataset.task_name or None,
        "given": len(given),
        "run": len(run),
        "candidates": [min(lengths), max(lengths)],
        "without_best_candidate": len(run) - len(topics),
        "judgments": "gains as grades" if judgments.graded else "the best candidates",
        "dropped_rows": dict(dropped),
        "renamed": sum(_ids_of(before) != _ids_of(after) for before, after in zip(chosen, run, strict=True)),
        "baselines": {each.name: each.lacking if each.run is None else each.file for each in baselines},
    }
    limited = "" if len(run) == len(given) else f", of which the first {len(run)} were run"
    long = f"{min(lengths)} to {max(lengths)}" if min(lengths) < max(lengths) else f"{lengths[0]}"
    counted = f"{len(given)} requests{limited}; {long} candidates each"
    told = list(_notes(facts, chance, choices, baselines))
    described = RequestsResult(facts, counted, told, baselines, chance, {"": choices})
    return JudgedQueries(topics, judgments.qrels, {}, sum(bool(judged.best) for judged in given), run), described


def _notes(
    facts: dict[str, Any], chance: dict[str, Any], choices: dict[str, float], baselines: Sequence[Baseline]
) -> Iterator[str]:
    """What is relevant, what random orders reach, and what is missing."""
    said = "Relevant is the candidate of the greatest gain, or each of them (gains are no whole numbers)."
    if facts["judgments"] == "gains as grades":
        said = "Gains are whole numbers and the grades of relevance: each candidate with a gain above 0 is relevant."
    if without := facts["without_best_candidate"]:
        said += f" {without} of {facts['run']} requests have no gain above 0: they are ranked, and count in no measure."
    yield said
    values = chance["per_query"].values()
    unknown = dict.fromkeys(name for each in values for name, value in each.items() if value is None)
    said = "Random is exact: the mean over all orders of each request's candidates."
    yield said + (f" There is no formula here for {', '.join(unknown)}." if unknown else "")

    if choices:
        yield (
            f"First choices: means of {', '.join(choices)} over all {facts['run']} requests; at random, over each "
            f"request's candidates."
        )
    yield from (f"No figures for {each.name}: {each.lacking}." for each in baselines if each.run is None)
    if dropped := Counter(facts["dropped_rows"]):
        reasons = ", ".join(f"{count} × {reason}" for reason, count in dropped.most_common())
        yield f"Rows of the source that could not be used: {dropped.total()} ({reasons})."
    if facts["renamed"]:
        yield (
            f"{facts['renamed']} requests have ids, or ids of candidates, that a TREC run can't hold (white space, "
            f"repetitions): the runs and `requests.jsonl` have others in their place."
        )


def request_checksums(dataset: DataSet, written: Path) -> dict[str, str]:
    """Digests the data that a result depends on."""
    digests = {"requests": file_digest(written)}
    if dataset.corpus not in CONFIGURATIONS:
        digests["file"] = file_digest(Path(dataset.corpus).expanduser())
    return digests


@dataclass(frozen=True)
class ListedRequests:
    """Requests in memory, with a position each."""

    listed: Sequence[RankingRequest]

    def __len__(self) -> int:
        return len(self.listed)

    def __iter__(self) -> Iterator[RankingRequest]:
        return iter(self.listed)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, RankingRequest]]:
        """Position and request, from one position to the one before another."""
        yield from enumerate(self.listed[start:stop], start=start)


@dataclass(frozen=True)
class RequestFileSource:
    """A file of ranking requests, named so that another process can find it too."""

    path: str  # absolute
    shuffle: int | None = None  # a seed to shuffle each request's candidates with; None keeps the file's order

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


def _ids_of(judged: JudgedRequest) -> tuple[str, ...]:
    request = judged.request
    return (request.query_id, *(candidate.id for candidate in request.candidates))
