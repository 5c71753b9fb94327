"""The benchmark of waiting: all sides do the same work, and rank the same."""

from __future__ import annotations

from r1ranker_ir.eval.benchmarks.serving import Waiting, measure_server, measure_threads, serving_sheet
from r1ranker_ir.eval.benchmarks.slow_server import seconds_of


def test_all_sides_rank_the_same() -> None:
    rows = [
        *measure_server(Waiting(tokens=10, milliseconds=0.5, slots=4), queries=6, tasks=3, candidates=4),
        measure_threads(threads=2, candidates=3),
    ]
    assert [row.same for row in rows] == [True] * 3
    assert all(row.seconds > 0 and row.baseline > 0 for row in rows)
    assert [cells[0] for cells in serving_sheet(rows).rows] == [row.name for row in rows]


def test_replies_take_a_lognormal_time() -> None:
    drawn = [seconds_of(f"prompt {number}", 300, 0.6, 5) for number in range(4000)]
    mean = sum(drawn) / len(drawn)
    spread = (sum((each - mean) ** 2 for each in drawn) / len(drawn)) ** 0.5 / mean
    assert abs(mean - 1.5) < 0.06 and abs(spread - 0.6) < 0.06
    assert seconds_of("prompt 1", 300, 0.6, 5) == drawn[1]
