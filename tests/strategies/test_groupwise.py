"""Grades within groups: what is read, how groups are dealt, and what becomes of answers that can't be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import completion

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.rankers.systems import family_options
from r1ranker_ir.runs.traces import read_trace, trace_of
from r1ranker_ir.strategies.groupwise import read_grades


def request_of(count: int) -> RankingRequest:
    return RankingRequest("numbers", tuple(Candidate(f"d{n}", f"text {n}") for n in range(count)), query_id="q")


def oracle(**options: Any) -> Ranker:
    gains = {"q": {"d44": 3.0, "d20": 2.0, "d3": 1.0}}
    return Ranker("oracle", strategy="groupwise", backend="oracle", gains=gains, **options)


@pytest.mark.parametrize(
    ("output", "grades"),
    [
        ('<reason>[1]: 9</reason>\n<answer>\n```json\n{"[1]": 4, "[2]": 10}\n```\n</answer>', [4, 10]),
        ("<think>so</think><answer>[2]: 7.5, [1]: 0</answer>", [0, 7.5]),
        ('<answer>{"[1]]": 5, "[2]": 11, "[3]": 2}</answer>', [5, None]),
        ("<answer>[2] > [1]</answer>", [None, None]),
        ("<think>[1]: 3 and [2]: 4", [None, None]),
    ],
)
def test_grades_are_read_from_the_answer_alone(output: str, grades: list[float | None]) -> None:
    assert read_grades(output, 2) == grades


def test_groups_hold_every_candidate_once_a_round_and_grades_compare_across_them() -> None:
    ranker = oracle(window_size=10, rounds=2)
    [ranking] = ranker.rank([request_of(45)])
    assert [len(step.shown) for step in ranking.steps] == [10, 10, 10, 10, 5] * 2
    for first in (0, 5):
        shown = [place for step in ranking.steps[first : first + 5] for place in step.shown]
        assert sorted(shown) == list(range(45)) != shown
    assert [candidate.id for candidate in ranking.best_first[:4]] == ["d44", "d20", "d3", "d0"]
    assert ranking.repairs == 0 and ranker.rank([request_of(45)])[0].order == ranking.order


def test_one_group_is_shown_as_it_came_and_a_budget_leaves_the_rest_below() -> None:
    assert oracle().rank([request_of(5)])[0].steps[0].shown == (0, 1, 2, 3, 4)
    [ranking] = oracle(window_size=10, max_calls=2).rank([request_of(45)])
    graded = {place for step in ranking.steps for place in step.shown}
    assert ranking.budget_reached and set(ranking.order[:20]) == graded
    assert oracle().rank([request_of(1)])[0].steps == ()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="rounds=3"):
        oracle(votes=3, vote_among="thoughts").rank([request_of(3)])
    with pytest.raises(InputError, match="rounds"):
        Ranker("oracle", strategy="direct", backend="oracle", gains={}, rounds=2)


def test_a_server_grades_and_a_missing_grade_is_repaired(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    full, short = '<answer>{"[1]": 1, "[2]": 9, "[3]": 4}</answer>', '<answer>{"[1]": 1, "[3]": 4}</answer>'
    told = {"backend": "openai", "base_url": serve(completion(full), completion(short)).base_url}
    options = family_options("grouprank", {**told, "max_thought_tokens": 50})
    ranker = Ranker("served", strategy="groupwise", **options, max_repair_rate=1.0)
    call = next(ranker.program(request_of(3)))
    assert call.free and "[2]. text 1" in call.messages[-1].content
    [ranking] = ranker.rank([request_of(3)])
    # The second round showed them in another order.
    assert len(ranking.steps) == 2 and [step.repaired for step in ranking.steps] == [False, True]
    (tmp_path / "t.jsonl").write_text(json.dumps(trace_of(ranking, "groupwise")) + "\n", encoding="utf-8")
    [traced] = read_trace(tmp_path / "t.jsonl")
    assert traced.ranking.order == ranking.order
