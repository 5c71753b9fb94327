"""What `r1ranker data synthesize` does: queries, labels and orders of a teacher become SFT and RL files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from r1ranker_ir.data.corpora import Corpus, FolderCorpus, has_queries, open_corpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.digests import text_digest
from r1ranker_ir.files.locks import folder_lock
from r1ranker_ir.files.partial import write_whole
from r1ranker_ir.files.paths import check_folder, corpus_inputs, folder_inputs
from r1ranker_ir.rankers.source import RankerSource
from r1ranker_ir.retrieval.first_stages import parse_first_stage, retrieve
from r1ranker_ir.training.data.command import open_training_corpus
from r1ranker_ir.training.data.completion_files import CompletedSample, write_completions
from r1ranker_ir.training.data.from_runs import source_of
from r1ranker_ir.training.data.from_traces import KEPT as STEP_KEPT
from r1ranker_ir.training.data.from_traces import select_steps
from r1ranker_ir.training.data.leakage import POSITIVE_LEAKS, TestData, test_data_of
from r1ranker_ir.training.data.prompting import sample_of
from r1ranker_ir.training.data.records import Sample
from r1ranker_ir.training.data.sample_files import row_of, write_samples
from r1ranker_ir.training.data.samples import Sampling, record_rng, samples_of, shuffled_sample
from r1ranker_ir.types import RankingRequest

from .consistency import Consistency, consistency_of
from .costs import Meter, total
from .journal import Journal
from .judged import KEPT, judged_means
from .lists import found_request, labelled_list
from .queries import Query, chosen_passages, judged_texts, new_queries, own_queries, written_queries
from .report import Report
from .settings import Synthesis
from .teachers import Encoder, Labelled, Roles, Teachers, Try, open_teachers

SFT, RL, REPORT, JOURNAL = "sft.parquet", "rl.parquet", "report.json", "synthesis.jsonl"
"""The files of the output folder."""

# What does not change an answer, or where it comes from.
_NO_MATTER = frozenset(
    {"cache", "batch_size", "base_url", "timeout", "request_timeout", "max_retries", "wait", "device"}
)
NOT_GRADED = "not graded: the teacher failed"
QUERIES, LISTS, CANDIDATES, STEPS = "queries", "lists", "candidates", "answers"


def synthesize(
    corpus: str,
    roles: Roles,
    output: str | Path,
    settings: Synthesis | None = None,
    *,
    progress: bool = False,
) -> Report:
    """Synthesizes training data into a folder, and says what was dropped and why.

    A folder that holds work of the same settings is gone on with: what was finished is not asked for again.
    """
    settings = settings or Synthesis()
    folder, stage = Path(output), parse_first_stage(settings.first_stage)
    inputs = [*corpus_inputs("--corpus", corpus), *folder_inputs("--first-stage", stage.source or None, ("",))]
    inputs += [file for name in settings.test_corpora for file in corpus_inputs("--test-corpus", name)]
    check_folder(folder, "--output", inputs)
    opened = open_corpus(corpus, settings.split)
    writes = settings.write_queries or not has_queries(opened)
    if not writes and isinstance(opened, FolderCorpus) and opened.splits():
        opened = open_training_corpus(corpus, settings.split)
    if writes and stage.declared.reads_file:
        raise InputError(
            f"first stage {str(stage)!r} is a run, which has no entries for queries that are written: use one that "
            "searches"
        )
    with folder_lock(folder, "--output", private=True):
        journal = Journal(folder / JOURNAL, _identity(corpus, roles, settings))
        making = _Making(opened, settings, journal, open_teachers(roles, writes=writes), progress)
        with journal:
            report = making.run(writes=writes)
        kept = [each for each in making.outcomes if each["reason"] == KEPT]
        made_of = {"made_by": "synthesis", "corpus": opened.name, "arguments": asdict(settings)}
        made_of["counts"] = {step: dict(reasons) for step, reasons in report.dropped.items()}
        if kept:
            report.rl_samples = write_samples(folder / RL, (sample_of(row) for row in _rows(kept, "rl")), made_of)
        answers = [CompletedSample(sample_of(row), row["completion"]) for row in _rows(kept, "sft")]
        if answers:
            report.sft_samples = write_completions(folder / SFT, answers, made_of, private=True)
        write_whole(folder / REPORT, json.dumps(report.to_dict(), indent=1) + "\n")
    if not kept:
        raise InputError(f"no list is kept, see {str(folder / REPORT)!r}: {'; '.join(report.lines()[2:])}")
    return report


def _rows(outcomes: Sequence[Mapping[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    return (row for each in outcomes for row in each[name])


@dataclass
class _Making:
    """One run: the corpus, who teaches, and where finished work is written down."""

    corpus: Corpus
    settings: Synthesis
    journal: Journal
    teachers: Teachers
    progress: bool

    def run(self, *, writes: bool) -> Report:
        """Does all steps, the finished ones from the journal."""
        report, test = Report(written=writes), test_data_of(self.settings.test_corpora)
        costs: dict[str, list[dict[str, float]]] = {}
        dropped = report.of(QUERIES)
        if writes:
            passages = chosen_passages(self.corpus, self.settings, test, report.of("passages"))
            candidates = self._written(passages, report, costs)
        else:
            candidates = own_queries(self.corpus, self.settings, dropped)
        near_test = judged_texts(self.settings.test_corpora)
        queries = new_queries(candidates, test, near_test, self.corpus.collection, dropped)
        report.queries = len(queries)
        if not queries:
            raise InputError(f"no query is left of corpus {self.corpus.name!r}: {'; '.join(report.lines()[2:])}")
        stage = parse_first_stage(self.settings.first_stage)
        texts = {query.id: query.text for query in queries}
        run = retrieve(stage, self.corpus, self.settings.depth, texts, progress=self.progress)
        self.outcomes: list[dict[str, Any]] = []
        for chunk in self._chunks(queries, "labels and orders"):
            found = self.journal.brought(
                "lists",
                [query.id for query in chunk],
                lambda chunk=chunk: self._lists(chunk, run, test),  # type: ignore[misc]
            )
            self.outcomes += found["outcomes"]
            report.of(CANDIDATES).update(found["left_out"])
            report.of(STEPS).update(found["steps"])
            for step, cost in found["costs"].items():
                costs.setdefault(step, []).append(cost)
        report.of(LISTS).update(each["reason"] for each in self.outcomes if each["reason"] != KEPT)
        report.add(self.outcomes)
        report.finished_before = self.journal.taken
        report.costs = {step: total(each) for step, each in costs.items()}
        if not writes and (gains := _judgments(self.corpus)):
            report.judged = judged_means(self.outcomes, gains)
        return report

    def _written(
        self, passages: Sequence[tuple[str, str]], report: Report, costs: dict[str, list[dict[str, float]]]
    ) -> list[Query]:
        queries = []
        for chunk in self._chunks(passages, "queries"):
            ids = [doc_id for doc_id, _ in chunk]
            found = self.journal.brought("queries", ids, lambda chunk=chunk: self._write(chunk))  # type: ignore[misc]
            costs.setdefault("queries", []).append(found["cost"])
            for doc_id, (text, fault) in zip(ids, found["written"], strict=True):
                if fault:
                    report.of(QUERIES)[fault] += 1
                else:
                    queries.append(Query(f"for-{doc_id}", text, doc_id))
        return queries

    def _write(self, passages: Sequence[tuple[str, str]]) -> dict[str, Any]:
        assert self.teachers.writer is not None
        meter = Meter(self.teachers.writer)
        return {"written": written_queries(self.teachers.writer, passages), "cost": asdict(meter.cost())}

    def _chunks(self, each: Sequence[Any], name: str) -> Iterator[Sequence[Any]]:
        from tqdm import tqdm

        with tqdm(total=len(each), desc=name, unit=" queries", disable=not self.progress) as bar:
            for start in range(0, len(each), self.settings.at_once):
                yield (chunk := each[start : start + self.settings.at_once])
                bar.update(len(chunk))

    def _lists(self, queries: Sequence[Query], run: Mapping[str, Sequence[RunEntry]], test: TestData) -> dict[str, Any]:
        """Grades the candidates of some queries, makes lists of them, and has these ordered."""
        report, reasons = Report(), dict[str, str]()
        left_out = report.of(CANDIDATES)
        wanted = dict.fromkeys(entry.doc_id for query in queries for entry in run.get(query.id, ()))
        texts = self.corpus.documents(wanted)
        found = [(query, found_request(query, run.get(query.id, ()), texts, left_out)) for query in queries]
        requests = [(query, each) for query, each in found if isinstance(each, RankingRequest)]
        reasons |= {query.id: each for query, each in found if isinstance(each, str)}
        labelled: list[Labelled] = []
        meter = Meter(self.teachers.labels.ranker)
        grades = self.teachers.labels.grades([request for _, request in requests])
        graded = asdict(meter.cost())
        for (query, request), given in zip(requests, grades, strict=True):
            made = NOT_GRADED if given is None else self._list(query, request, given, test, report)
            if isinstance(made, str):
                reasons[query.id] = made
            else:
                labelled.append(made)
        meter = Meter(self.teachers.orders.ranker)
        tries = self.teachers.orders.tries(labelled, self.settings)
        ordered = asdict(meter.cost())
        measured = consistency_of([each.record for each in labelled], tries, self.settings)
        lists = {
            each.record.request.query_id: self._outcome(each, some, how, report)
            for each, some, how in zip(labelled, tries, measured, strict=True)
        }
        empty: dict[str, Any] = {"ids": [], "gains": [], "orders": [], "consistency": None, "rl": [], "sft": []}
        outcomes = [
            {"id": query.id, "query": query.text, "passage": query.passage}
            | (lists.get(query.id) or {"reason": reasons[query.id], **empty})
            for query in queries
        ]
        return {
            "outcomes": outcomes,
            "left_out": report.of(CANDIDATES),
            "steps": report.of(STEPS),
            "costs": {"labels": graded, "orders": ordered},
        }

    def _list(
        self, query: Query, request: RankingRequest, grades: Sequence[float], test: TestData, report: Report
    ) -> Labelled | str:
        """The list of a query, without positives of test queries."""
        leaks = [
            place
            for place, each in enumerate(request.candidates)
            if round(grades[place]) >= self.settings.min_grade
            and test.test_of_passage(each.id, each.text, self.corpus.collection) is not None
        ]
        left_out = report.of(CANDIDATES)
        left_out.update([POSITIVE_LEAKS] * len(leaks))
        kept = [place for place in range(len(grades)) if place not in leaks]
        request = replace(request, candidates=tuple(request.candidates[place] for place in kept))
        told = [grades[place] for place in kept]
        return labelled_list(query, request, told, source_of(self.corpus), self.settings, left_out)

    def _outcome(
        self, labelled: Labelled, tries: Sequence[Try], measured: Consistency, report: Report
    ) -> dict[str, Any]:
        record, strategy = labelled.record, self.teachers.orders.strategy
        ids = [candidate.id for candidate in record.request.candidates]
        outcome: dict[str, Any] = {
            "reason": measured.reason or KEPT,
            "ids": ids,
            "gains": list(record.gains),
            "orders": [each.order for each in tries if each.usable],
            "consistency": asdict(measured),
            "rl": [],
            "sft": [],
        }
        if measured.reason:
            return outcome
        good = (each for each in tries if each.usable)
        fitting = [each for each, ndcg in zip(good, measured.ndcg, strict=True) if ndcg >= self.settings.min_ndcg]
        judgments = {record.request.query_id: dict(zip(ids, record.gains, strict=True))}
        steps = (step for each in fitting for step in each.steps)
        selection = select_steps(steps, judgments, min_ndcg=self.settings.min_ndcg, source=record.source)
        report.of(STEPS).update({reason: count for reason, count in selection.counts.items() if reason != STEP_KEPT})
        outcome["rl"] = [row_of(sample) for sample in self._samples(record, strategy)]
        outcome["sft"] = [row_of(each.sample) | {"completion": each.completion} for each in selection.completed]
        return outcome

    def _samples(self, record: JudgedRequest, strategy: str) -> list[Sample]:
        """What reinforcement learning asks: the list, shuffled; for eliminations their steps."""
        sampling = Sampling(strategy, len(record.gains), positives=1, seed=self.settings.seed)
        if sampling.makes_steps:
            return samples_of(record, sampling, Counter())
        return [shuffled_sample(record, strategy, record_rng(self.settings.seed, record))]


def _judgments(corpus: Corpus) -> Mapping[str, Mapping[str, float]]:
    try:
        return gains_of(corpus.qrels())
    except InputError:  # a corpus need not be judged
        return {}


def _identity(corpus: str, roles: Roles, settings: Synthesis) -> dict[str, Any]:
    """All that decides what is made, as plain data; what a model is told besides its name as a digest."""
    told = {"teacher": roles.teacher, "labels": roles.labels, "writer": roles.writer}
    said = {name: None if role is None else _role(role) for name, role in told.items()}
    return {"corpus": corpus, **said, "label_strategy": roles.label_strategy, **asdict(settings)}


def _role(role: RankerSource | Encoder) -> str:
    if isinstance(role, Encoder):
        return f"encoder {role.model}"
    stated = {name: value for name, value in role.stated().items() if name not in _NO_MATTER}
    return f"{role.strategy} by {role.model}, options {text_digest(repr(sorted(stated.items())))[:12]}"
