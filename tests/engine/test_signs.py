"""Whether a run says that its model does not rank: constant answers, echoes, oracles, and the embedded model."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, manifest_of, r1ranker
from hypothesis import given
from hypothesis import strategies as st
from servers import completion, serving

from r1ranker_ir.engine.signs import Signs, sentences, signs_of
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Candidate, RankingRequest

Say = Callable[[Sequence[str]], str]


@contextmanager
def server(say: Say) -> Iterator[str]:
    """A server whose model answers by the identifiers that a prompt shows."""
    with serving(lambda asked: completion(f"<think>hm</think><answer>{say(list(asked.shown))}</answer>")) as running:
        yield running.base_url


def requests(lists: int, candidates: int) -> list[RankingRequest]:
    texts = [
        tuple(Candidate(f"d{place}", f"text {number} {place}") for place in range(candidates))
        for number in range(lists)
    ]
    return [RankingRequest(f"query {number}", shown, query_id=f"q{number}") for number, shown in enumerate(texts)]


def gains(asked: Sequence[RankingRequest], seed: int | None) -> dict[str, dict[str, float]]:
    """Gains in the order of the candidates, or shuffled."""
    found = {}
    for request in asked:
        values = [float(len(request.candidates) - place) for place in range(len(request.candidates))]
        if seed is not None:
            random.Random(f"{seed} {request.query_id}").shuffle(values)
        found[request.query_id] = {each.id: value for each, value in zip(request.candidates, values, strict=True)}
    return found


def told(ranker: Ranker, asked: Sequence[RankingRequest], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is warned of meanwhile."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "r1ranker_ir"):
        ranker.rank(asked)
    return [record.message for record in caplog.records if record.name == "r1ranker_ir.rankers.ranker"]


def served(say: Say, strategy: str, asked: Sequence[RankingRequest], caplog: pytest.LogCaptureFixture) -> list[str]:
    with server(say) as url:
        ranker = Ranker("stub", strategy=strategy, backend="openai", base_url=url, max_repair_rate=1.0)
        return told(ranker, asked, caplog)


@pytest.mark.parametrize(
    ("strategy", "answer", "words"),
    [
        ("iterative", "[1]", "name the first candidate shown"),
        ("iterative", "[3]", "name the third candidate shown"),
        ("setwise", "[1]", "name the first candidate shown"),
        ("setwise", "[5]", "name the last candidate shown"),
        ("direct", "[2]", "name the second candidate shown"),
    ],
)
def test_a_constant_answer_is_told(strategy: str, answer: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    # A direct answer of one identifier is a repaired one; one that puts the same first place before the others is not.
    def say(shown: Sequence[str]) -> str:
        rest = [each for each in shown if each != answer]
        return " > ".join([answer, *rest]) if strategy == "direct" else answer

    said = served(say, strategy, requests(8 if strategy == "iterative" else 20, 5), caplog)
    assert any(words in each and "stub" in each and "r1ranker doctor" in each for each in said), said


def test_equal_grades_are_told(caplog: pytest.LogCaptureFixture) -> None:
    [said] = served(lambda shown: "[5]", "pointwise", requests(6, 5), caplog)
    assert "in 6 of 6 lists all grades are equal" in said


def test_an_echo_of_the_input_is_told(caplog: pytest.LogCaptureFixture) -> None:
    repaired = "(6 answers were repaired, which fills in that order)"
    for strategy, say, cause in (
        ("direct", " > ".join, ""),
        ("iterative", lambda shown: shown[-1], ""),
        ("direct", lambda shown: "none of them", repaired),
    ):
        [said] = served(say, strategy, requests(6, 5), caplog)
        assert cause in said
        assert "6 of 6 lists come out in the order in which they went in" in said
        assert "either it was the model's own already, or the model repeats its input" in said


def test_a_service_that_ranks_query_by_query_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with server(lambda shown: "[1]") as url:
        ranker = Ranker("stub", strategy="iterative", backend="openai", base_url=url)
        said = [told(ranker, [request], caplog) for request in requests(12, 5)]
    assert [len(each) for each in said].count(1) == 1
    assert sum(map(len, said)) == 1
    assert said[0] == []  # one query is too little to tell by


def oracle(strategy: str, asked: Sequence[RankingRequest], seed: int | None, **options: Any) -> Ranker:
    return Ranker("oracle", strategy=strategy, backend="oracle", gains=gains(asked, seed), **options)


@pytest.mark.parametrize("strategy", ["iterative", "direct", "setwise", "pointwise"])
@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_an_oracle_is_no_matter_of_warnings(
    strategy: str, count: int, noise: float, caplog: pytest.LogCaptureFixture
) -> None:
    asked = requests(40, count)
    assert told(oracle(strategy, asked, 1, noise=noise), asked, caplog) == []


@pytest.mark.parametrize("options", [{"votes": 3}, {"show_best_first": True}, {"layout": "mark"}, {"window_size": 4}])
def test_ways_to_show_a_list_are_no_matter_of_warnings(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    asked = requests(20, 8)
    assert told(oracle("iterative", asked, 3, noise=0.5, **options), asked, caplog) == []


@pytest.mark.parametrize("strategy", ["iterative", "direct", "setwise", "pointwise"])
def test_a_first_stage_that_is_right_already_is_told_as_that(strategy: str, caplog: pytest.LogCaptureFixture) -> None:
    asked = requests(20, 8)
    said = told(oracle(strategy, asked, None), asked, caplog)
    assert len(said) == 1 and "either it was the model's own already" in said[0]
    assert told(oracle(strategy, asked[:2], None), asked[:2], caplog) == []


def test_agreement_with_a_good_first_stage_is_no_matter_of_warnings(caplog: pytest.LogCaptureFixture) -> None:
    for lists, count, noise in ((60, 2, 0.4), (30, 2, 0.3), (40, 5, 0.4)):
        asked = requests(lists, count)
        for strategy in ("iterative", "direct", "setwise"):
            assert told(oracle(strategy, asked, None, noise=noise), asked, caplog) == []


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_the_embedded_model_is_no_matter_of_warnings(strategy: str, tmp_path: Path, bm25_run: Path) -> None:
    words = f"rerank --depth 5 --queries 7 --no-cache --reranker r1ranker-{strategy}-tiny".split()
    told = r1ranker(*words, "--corpus", COLLECTION, "--run", bm25_run, "--output", tmp_path / "out.trec")
    assert "r1ranker doctor" not in told.stderr


def test_rerank_suite_and_shootout_say_it(tmp_path: Path, bm25_run: Path) -> None:
    entries = tmp_path / "entries.yaml"
    with server(lambda shown: "[1]") as url:
        stub = {"model": "stub", "strategy": "iterative", "backend": "openai", "base_url": url}
        entries.write_text(json.dumps([{"name": "stub", **stub}]))
        model = (*"--reranker stub --strategy iterative --backend openai --no-cache --base-url".split(), url)
        few, common = ("--depth", 5, "--queries", 6), ("--corpus", COLLECTION, "--run", bm25_run, "--output")
        results = (
            r1ranker("rerank", *common, tmp_path / "out", *model, *few),
            r1ranker("suite", COLLECTION, "--output", tmp_path / "suite", *model, *few),
            r1ranker("shootout", *common, tmp_path / "shootout", "--rerankers", entries, *few),
        )
    for result in results:
        assert result.stderr.count("24 of 24 answers name the first candidate shown") == 1
    report = (tmp_path / "suite" / "README.md").read_text()
    assert "**Mind:** 24 of 24 answers name the first candidate shown" in report
    assert list(manifest_of(tmp_path / "suite")["datasets"][0]["signs"]) == ["place"]


@given(st.integers(0, 6), st.integers(1, 7), st.integers(0, 3))
def test_signs_of_parts_add_up_to_those_of_the_whole(lists: int, count: int, seed: int) -> None:
    asked = requests(lists, count)
    ranker = oracle("iterative", asked, seed)
    found = [signs_of(ranking, "worst") for ranking in ranker.rank(asked)]
    whole, rest = sum(found, Signs()), sum(found[2:], Signs())
    assert sum(found[:2], Signs()) + rest == ranker.summary.signs == whole
    assert whole - sum(found[:2], Signs()) == rest
    assert sentences(Signs()) == {}
