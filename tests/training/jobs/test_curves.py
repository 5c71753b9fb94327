"""Curves: what is read from logs, and what is drawn of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.training.jobs.curves import plot_curves, read_history, series_of

PNG = b"\x89PNG\r\n\x1a\n"


def history(steps: int = 3, **values: float) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 1 / step, **values} for step in range(1, steps + 1)]


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(PNG)
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_series_holds_what_was_logged() -> None:
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "reward": 1.0}, {"step": 3, "loss": 1, "reward": float("nan")}]
    assert series_of(log, "loss") == ([1.0, 3.0], [2.0, 1.0])
    assert series_of(log, "reward") == ([2.0], [1.0])
    assert series_of(log, "kl") == ([], [])


def test_series_takes_the_position_of_the_entry_before() -> None:
    log: list[dict[str, Any]] = [
        {"step": 0, "held_out/RR": 0.4},
        {"step": 1, "generated_tokens": 50.0, "loss": 2.0},
        {"step": 1, "held_out/RR": 0.5},
        {"step": 2, "generated_tokens": 90.0, "loss": 1.0},
        {"step": 2, "held_out/RR": 0.6},
    ]
    assert series_of(log, "held_out/RR") == ([0.0, 1.0, 2.0], [0.4, 0.5, 0.6])
    assert series_of(log, "held_out/RR", "generated_tokens") == ([50.0, 90.0], [0.5, 0.6])


def test_last_value_at_a_step_counts() -> None:
    log = [*history(3), {"step": 2, "loss": 9.0}]
    assert series_of(log, "loss") == ([1.0, 2.0, 3.0], [1.0, 9.0, 1 / 3])


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(allow_nan=True, allow_infinity=True))))
def test_series_ascends_and_is_finite(points: list[tuple[int, float]]) -> None:
    positions, values = series_of([{"step": step, "loss": value} for step, value in points], "loss")
    assert positions == sorted(set(positions))
    assert len(positions) == len(values)
    assert all(abs(value) != float("inf") and value == value for value in values)


def test_history_is_read_from_a_file_a_folder_and_the_last_checkpoint(tmp_path: Path) -> None:
    for step in (2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        content = {"log_history": history(step)}
        (folder / "trainer_state.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "checkpoint-best").mkdir()
    assert len(read_history(tmp_path)) == 10
    assert len(read_history(tmp_path / "checkpoint-2" / "trainer_state.json")) == 2
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}', encoding="utf-8")
    assert read_history(tmp_path) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"log_history": 3}', '{"log_history": [1]}', "{}"])
def test_malformed_state_names_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataFileError, match=r"trainer_state\.json"):
        read_history(path)


def test_missing_state_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no trainer_state\.json"):
        read_history(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_history(tmp_path / "nowhere")


def test_picture_has_a_panel_for_each_value(tmp_path: Path) -> None:
    plot_curves({"run": [history()]}, tmp_path / "one.png")
    plot_curves({"run": [history(kl=0.1, entropy=0.5)]}, tmp_path / "three.png")
    four = history(kl=0.1, entropy=0.5) + [{"step": 3, "held_out/accuracy@2": 0.9, "held_out/accuracy@3": 0.8}]
    plot_curves({"run": [four]}, tmp_path / "four.png")
    one, three, tall = (size_of(tmp_path / f"{name}.png") for name in ("one", "three", "four"))
    assert three == (3 * one[0], one[1])
    assert tall[0] == three[0]
    assert tall[1] > three[1] * 1.5


def test_components_share_a_panel_until_runs_are_compared(tmp_path: Path) -> None:
    values = {"rewards/exclusion_reward/mean": 0.5, "rewards/format_reward/mean": -0.1}
    plot_curves({"run": [history(**values)]}, tmp_path / "one.png")
    plot_curves({"a": [history(**values)], "b": [history(**values)]}, tmp_path / "two.png")
    assert size_of(tmp_path / "two.png")[0] * 2 == size_of(tmp_path / "one.png")[0] * 3


def test_runs_of_other_steps_are_drawn_together(tmp_path: Path) -> None:
    seeds = [history(40), history(35), [{"step": step, "loss": 0.1} for step in range(5, 60, 7)]]
    plot_curves({"seeds": seeds, "single": [history(1)], "never logged": [[]]}, tmp_path / "curves.png", title="Seeds")
    assert size_of(tmp_path / "curves.png")[0] > 300


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'run' holds a value over 'step'"):
        plot_curves({"run": [[{"step": 1, "learning_rate": 0.1}]]}, tmp_path / "curves.png")
    with pytest.raises(InputError, match="generated_tokens"):
        plot_curves({"run": [history()]}, tmp_path / "curves.png", x="generated_tokens")


def test_unwritable_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose another"):
        plot_curves({"run": [history()]}, tmp_path / "nowhere" / "curves.png")
