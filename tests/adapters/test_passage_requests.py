"""Ranking requests of passages: one relevant passage among others of a run, drawn by seed, and what is left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker, write_corpus
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.adapters.passages import PassageProtocol, passage_requests
from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.request_files import JudgedRequest, read_requests
from r1ranker_ir.data.trec_runs import RunEntry, write_run
from r1ranker_ir.errors import InputError

TEXTS = {f"d{number}": f"passage number {number}" for number in range(12)} | {"blank": " ", "twin": "Passage  number 1"}
QRELS = {("q1", "d1"): 3, ("q1", "d2"): 1, ("q2", "d3"): 1, ("q3", "d4"): 0, ("q4", "blank"): 2, ("q5", "d1"): 2}
RUN = {
    "q1": [f"d{number}" for number in range(12)] + ["twin", "blank", "gone"],
    "q2": ["d5", "d6", "d7", "d8"],  # without the relevant one
    "q3": ["d4"],
    "q4": ["d1", "d2", "d3"],
    "q9": ["d1"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    queries = {f"q{number}": f"what is {number}" for number in range(1, 6)}
    folder = write_corpus(tmp_path_factory.mktemp("collection") / "notes", TEXTS, queries, QRELS)
    write_run(run_of(RUN), folder / "run.trec")
    return folder


def run_of(ids: dict[str, list[str]]) -> dict[str, tuple[RunEntry, ...]]:
    return {
        query_id: tuple(RunEntry(doc_id, -float(rank)) for rank, doc_id in enumerate(doc_ids))
        for query_id, doc_ids in ids.items()
    }


def made(folder: Path, problems: Problems, counts: Counter[str] | None = None, **options: Any) -> list[JudgedRequest]:
    return list(passage_requests(open_corpus(folder), run_of(RUN), PassageProtocol(**options), problems, counts))


@given(seed=st.integers(0, 1000), candidates=st.integers(2, 5), random=st.booleans())
def test_one_is_relevant_and_the_others_are_not(folder: Path, seed: int, candidates: int, random: bool) -> None:
    problems, counts = Problems("skip"), Counter[str]()
    options = {"candidates": candidates, "negatives": "random" if random else "top", "seed": seed}
    first, second = made(folder, problems, counts, **options)
    for judged in (first, second):
        texts = [" ".join(candidate.text.split()).casefold() for candidate in judged.request.candidates]
        assert len(set(texts)) == candidates and all(texts)
        assert sorted(judged.gains) == [0.0] * (candidates - 1) + [1.0]
        assert (judged.source, judged.request.task, judged.request.aim) == ("notes", "passage", "")
    assert first.request.candidates[first.best[0]].id in ("d1", "d2")
    negatives = {c.id for c, gain in zip(first.request.candidates, first.gains, strict=True) if not gain}
    assert negatives.isdisjoint({"d1", "d2", "twin", "blank", "gone"})
    if not random:
        assert negatives == set(["d0", "d3", "d4", "d5"][: candidates - 1])
    assert counts == {"no passage judged relevant": 1, "no results in the run": 1}
    assert problems.counts == {"no relevant passage has a text": 1}
    # The same seed gives the same lists, whatever other queries there are.
    assert made(folder, Problems("skip"), **options) == [first, second]
    assert made(folder, Problems("skip"), queries=1, **options) == [first]


def test_the_relevant_ones_place_tells_nothing(folder: Path) -> None:
    places = Counter(made(folder, Problems("skip"), seed=seed, queries=1)[0].best[0] for seed in range(200))
    assert sorted(places) == [0, 1, 2, 3, 4] and min(places.values()) > 20


def test_lesser_grades_are_neither_relevant_nor_negatives(folder: Path) -> None:
    for seed in range(20):
        [only] = made(folder, Problems("skip"), seed=seed, min_gain=2, candidates=10)
        ids = {candidate.id for candidate in only.request.candidates}
        assert "d1" in ids and "d2" not in ids


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "query q4: no relevant passage has a text: of blank"),
        ({"candidates": 6}, "query q2: too few other passages in the run: 4 of 5; use a deeper run"),
        ({"candidates": 1}, "candidates is 1: give at least 2"),
    ],
)
def test_queries_that_cannot_be_used_are_named(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(folder, Problems("fail"), **options)
    with pytest.raises(InputError, match="none of the run's 1 queries"):
        list(passage_requests(open_corpus(folder), run_of({"q9": ["d1"]}), PassageProtocol(), Problems("fail")))


def test_the_command_writes_them_and_says_what_it_left_out(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "passage-5.jsonl"
    command = ["data", "passages", "--corpus", str(folder), "--run", str(folder / "run.trec"), "--output", str(output)]
    assert "--on-error skip" in r1ranker(*command, code=1).output and not output.exists()
    done = r1ranker(*command, "--on-error", "skip", "--seed", 3)
    assert (
        "passage-5.jsonl: 2 requests with 5 passages each; 2 queries passed over (1 × no passage judged relevant, "
        "1 × no results in the run); 1 rows left out (1 × no relevant passage has a text)"
    ) in done.stderr
    assert list(read_requests(output)) == made(folder, Problems("skip"), seed=3)
    none = r1ranker(*command, "--on-error", "skip", "--candidates", 50, code=1)
    assert "no request could be made" in none.output
