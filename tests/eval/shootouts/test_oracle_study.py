"""The study of strategies with an oracle: budgets, what is counted, and the picture."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ir_measures import Qrel, nDCG

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.shootouts.oracle_study import CONTENDERS, Contender, plot_study, study_strategies
from r1ranker_ir.types import Candidate, RankingRequest

NDCG = nDCG @ 10


def collection(queries: int, count: int) -> tuple[list[RankingRequest], list[Qrel]]:
    drawing = random.Random(0)
    requests, qrels = [], []
    for number in range(queries):
        candidates = tuple(Candidate(f"d{place}", f"document {place}") for place in range(count))
        requests.append(RankingRequest(f"query {number}", candidates, query_id=f"q{number}"))
        qrels += [Qrel(f"q{number}", f"d{place}", drawing.choice([-2, 0, 0, 0, 1, 2, 3])) for place in range(count)]
    return requests, qrels


def test_without_noise_all_are_perfect_and_more_calls_are_no_worse() -> None:
    requests, qrels = collection(3, 40)
    points = study_strategies(
        [*requests, RankingRequest("q", (), query_id="not judged")], qrels, [NDCG], budgets=(8, 2)
    )
    assert list(dict.fromkeys(point.contender for point in points)) == [each.name for each in CONTENDERS]
    for contender in CONTENDERS:
        own = [point for point in points if point.contender == contender.name]
        assert own[-1].measured[NDCG] == pytest.approx(1)
        assert own[-1].ended == 0
        reached = [point.measured[NDCG] for point in own]
        assert reached == pytest.approx(sorted(reached))
        assert all(point.calls <= point.max_calls for point in own if point.max_calls is not None)
        assert [point.max_calls for point in own] == [2, 8, None][: len(own)]
    windows = [point for point in points if point.contender == "sliding windows"]
    assert [(point.max_calls, point.calls, point.ended) for point in windows] == [(2, 2, 1), (8, 3, 0)]
    assert windows[0].tokens < windows[1].tokens


def test_noise_costs_something(tmp_path: Path) -> None:
    requests, qrels = collection(4, 30)
    contenders = [Contender("windows", "direct"), Contender("heap", "setwise", {"window_size": 4})]
    quiet, loud = (
        study_strategies(requests, qrels, [NDCG], contenders=contenders, noise=noise, budgets=(4,))
        for noise in (0.1, 5.0)
    )
    assert loud[-1].measured[NDCG] + 0.2 < quiet[-1].measured[NDCG]
    plot_study(loud, tmp_path / "study.png", title="with noise")
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_study_is_an_error(tmp_path: Path) -> None:
    requests, _ = collection(1, 3)
    with pytest.raises(InputError, match=r"none of the queries has judgments \(1 others have\)"):
        study_strategies(requests, [Qrel("other", "d1", 1)], [NDCG])
    with pytest.raises(InputError, match="no points"):
        plot_study([], tmp_path / "study.png")
