"""Ranking requests as something that TREC runs are measured on: ids that a run can hold, and judgments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from r1ranker_ir.data.qrels import GREATEST_GRADE
from r1ranker_ir.data.request_files import JudgedRequest, read_requests
from r1ranker_ir.data.trec_runs import is_run_id, run_id_of
from r1ranker_ir.errors import InputError
from r1ranker_ir.files.json_lines import text_lines
from r1ranker_ir.files.plain_data import parse_json

if TYPE_CHECKING:
    from ir_measures import Qrel

ENDINGS = (".jsonl", ".jsonl.gz")
"""How the names of request files end."""


@dataclass(frozen=True)
class Judgments:
    """What counts as relevant in ranking requests, for each candidate of each request that has a best one.

    Gains are the grades where all of them are whole numbers (`graded`); otherwise a request's best candidates have
    grade 1 and the others 0.
    """

    qrels: tuple[Qrel, ...]
    graded: bool


def with_run_ids(requests: Iterable[JudgedRequest]) -> tuple[JudgedRequest, ...]:
    """Gives requests and candidates ids that a TREC run can hold: one word each, and none twice.

    Ids that are so already stay as they are. In others white space becomes `_`, and where that or a repetition makes
    an id that another has, `_2`, `_3` and so on follow.
    """
    given = list(requests)
    named = []
    for judged, query_id in zip(given, _words([judged.request.query_id for judged in given]), strict=True):
        request = judged.request
        ids = _words([candidate.id for candidate in request.candidates])
        pairs = zip(ids, request.candidates, strict=True)
        # Prompts go on calling a candidate what it was called.
        candidates = tuple(replace(each, id=doc_id, name=each.name or each.id) for doc_id, each in pairs)
        named.append(replace(judged, request=replace(request, query_id=query_id, candidates=candidates)))
    return tuple(named)


def judgments_of(requests: Sequence[JudgedRequest]) -> Judgments:
    """Makes judgments of the gains of requests with ids of `with_run_ids`."""
    from ir_measures import Qrel

    graded = all(gain.is_integer() and gain <= GREATEST_GRADE for judged in requests for gain in judged.gains)
    qrels = []
    for judged in requests:
        best = judged.best
        for place, (candidate, gain) in enumerate(zip(judged.request.candidates, judged.gains, strict=True)):
            if best:
                grade = int(gain) if graded else int(place in best)
                qrels.append(Qrel(judged.request.query_id, candidate.id, grade))
    return Judgments(tuple(qrels), graded)


def holds_requests(path: Path) -> bool:
    """Tells a file of ranking requests by its name and its first line."""
    if not path.name.endswith(ENDINGS) or not path.is_file():
        return False
    _, line = next(text_lines(path), (0, ""))
    try:
        row = parse_json(line, finite=False)
    except ValueError:
        return False
    return isinstance(row, dict) and "candidates" in row


class RequestCorpus:
    """A file of ranking requests where a corpus is asked for: queries and judgments, to measure and compare runs on."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.collection = str(path.resolve())
        self._path = path

    def queries(self) -> dict[str, str]:
        return {judged.request.query_id: judged.request.query for judged in self.requests()}

    def qrels(self) -> list[Qrel]:
        return list(judgments_of(self.requests()).qrels)

    def documents(self, ids: Iterable[str]) -> dict[str, str]:
        """Refuses: a candidate's text belongs to its request, with a task and an aim."""
        self.iterate_documents()

    def requests(self) -> tuple[JudgedRequest, ...]:
        """What the file holds, with ids of `with_run_ids`."""
        return with_run_ids(read_requests(self._path))

    def iterate_documents(self) -> NoReturn:
        """Refuses, as `documents` does."""
        raise InputError(
            f"{self.name!r} holds ranking requests, and no documents to search or to rerank a run of: rank and measure "
            f"the requests with r1ranker suite {self.name}"
        )


def _words(ids: Sequence[str]) -> list[str]:
    """One-word ids, none twice; the first of each that is a word keeps its own."""
    taken = {each for each in ids if is_run_id(each)}
    words: dict[str, None] = {}
    for each in ids:
        word = each
        if each not in taken or each in words:
            word = stem = run_id_of(each)
            number = 2
            while word in taken:
                word, number = f"{stem}_{number}", number + 1
        taken.add(word)
        words[word] = None
    return list(words)
