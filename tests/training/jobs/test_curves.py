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


def size_of(path: Path, **histories: list[Any]) -> tuple[int, int]:
    """The width and height of a picture that is drawn."""
    plot_curves(histories, path, title="Seeds" if len(histories) > 2 else "")
    data = path.read_bytes()
    assert data.startswith(PNG)
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


LOG: list[dict[str, Any]] = [
    {"step": 0, "held_out/RR": 0.4},
    {"step": 1, "generated_tokens": 50.0, "loss": 2.0},
    {"step": 1, "held_out/RR": 0.5},
    {"step": 2, "generated_tokens": 90.0, "reward": 1.0},
    {"step": 2, "held_out/RR": 0.6},
    {"step": 3, "loss": 1, "reward": float("nan")},
]


@pytest.mark.parametrize(
    ("log", "key", "x", "expected"),
    [
        (LOG, "loss", "step", ([1.0, 3.0], [2.0, 1.0])),
        (LOG, "reward", "step", ([2.0], [1.0])),
        (LOG, "kl", "step", ([], [])),
        # The position is that of the entry before; the last value at a position counts.
        (LOG, "held_out/RR", "step", ([0.0, 1.0, 2.0], [0.4, 0.5, 0.6])),
        (LOG, "held_out/RR", "generated_tokens", ([50.0, 90.0], [0.5, 0.6])),
        ([*history(3), {"step": 2, "loss": 9.0}], "loss", "step", ([1.0, 2.0, 3.0], [1.0, 9.0, 1 / 3])),
    ],
)
def test_series_holds_what_was_logged(log: list[dict[str, Any]], key: str, x: str, expected: Any) -> None:
    assert series_of(log, key, x) == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(allow_nan=True, allow_infinity=True))))
def test_series_ascends_and_is_finite(points: list[tuple[int, float]]) -> None:
    positions, values = series_of([{"step": step, "loss": value} for step, value in points], "loss")
    assert positions == sorted(set(positions))
    assert len(positions) == len(values)
    assert all(abs(value) != float("inf") and value == value for value in values)


def test_history_is_read_from_a_file_a_folder_and_the_last_checkpoint(tmp_path: Path) -> None:
    for missing, said in ((tmp_path, r"holds no trainer_state\.json"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(InputError, match=said):
            read_history(missing)
    for step in (2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history(step)}), encoding="utf-8")
    (tmp_path / "checkpoint-best").mkdir()
    assert len(read_history(tmp_path)) == 10
    assert len(read_history(tmp_path / "checkpoint-2" / "trainer_state.json")) == 2
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}', encoding="utf-8")
    assert read_history(tmp_path) == []


@pytest.mark.parametrize("content", ["{", '{"log_history": [1]}', "{}"])
def test_malformed_state_names_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataFileError, match=r"trainer_state\.json"):
        read_history(path)


def test_picture_has_a_panel_for_each_value(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    four = history(kl=0.1, entropy=0.5) + [{"step": 3, "held_out/accuracy@2": 0.9, "held_out/accuracy@3": 0.8}]
    one, three, tall = (size_of(path, run=[log]) for log in (history(), history(kl=0.1, entropy=0.5), four))
    assert three == (3 * one[0], one[1])
    assert tall[0] == three[0]
    assert tall[1] > three[1] * 1.5
    # Components share a panel until runs are compared.
    values = {"rewards/exclusion_reward/mean": 0.5, "rewards/format_reward/mean": -0.1}
    single, two = (size_of(path, **{name: [history(**values)] for name in names}) for names in ("a", "ab"))
    assert two[0] * 2 == single[0] * 3
    # Runs of other steps are drawn together.
    seeds = [history(40), history(35), [{"step": step, "loss": 0.1} for step in range(5, 60, 7)]]
    assert size_of(path, seeds=seeds, single=[history(1)], never=[[]])[0] > 300


def test_what_can_not_be_drawn_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'run' holds a value over 'step'"):
        plot_curves({"run": [[{"step": 1, "learning_rate": 0.1}]]}, tmp_path / "curves.png")
    with pytest.raises(InputError, match="generated_tokens"):
        plot_curves({"run": [history()]}, tmp_path / "curves.png", x="generated_tokens")
    with pytest.raises(InputError, match="choose another"):
        plot_curves({"run": [history()]}, tmp_path / "nowhere" / "curves.png")
