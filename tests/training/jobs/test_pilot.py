"""A pilot over tasks: what training on each does to all, the order that follows, and a training in that order."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from r1ranker_ir import Candidate
from r1ranker_ir.cli.app import app
from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.completion_files import CompletedSample, write_completions
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import write_samples
from r1ranker_ir.training.jobs.comparison import compare, read_run
from r1ranker_ir.training.jobs.comparison_tables import sheets
from r1ranker_ir.training.jobs.record import read_ranks
from r1ranker_ir.training.jobs.transfers import best_order, lead_over_reverse, turns_of

pytestmark = pytest.mark.filterwarnings("ignore:.*_checkpointing. is deprecated:FutureWarning")
WORDS = "apple boat cloud desk eagle flute grape house".split()
CPU = ["--model", "tiny", "--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false"]
CPU += ["--report_to", "none", "--save_strategy", "no", "--no_curves", "--per_device_train_batch_size", "2"]


def r1ranker(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Completions and held-out lists of two tasks."""
    folder, rng = tmp_path_factory.mktemp("tasks"), random.Random(0)
    for task in ("fruit", "tools"):
        records = [
            judged(rng.choice(WORDS), [Candidate("a", rng.choice(WORDS)), Candidate("b", "x")], [1.0, 0.0], id=f"q{n}")
            for n in range(8)
        ]
        samples = [Sample("direct", record) for record in records]
        answer = "<think>\n[1]\n</think>\n<answer>[1] > [2]</answer>"
        write_completions(folder / f"{task}.parquet", [CompletedSample(each, answer) for each in samples])
        write_samples(folder / f"{task}-held.parquet", samples[:3] if task == "fruit" else samples[:2])
    return folder


def told(tasks: Path, *names: str, held: tuple[str, ...] = ("fruit-held", "tools-held")) -> list[str]:
    files = [str(tasks / f"{name}.parquet") for name in names]
    return [*CPU, "--train_files", *files, "--held_out_files", *(str(tasks / f"{name}.parquet") for name in held)]


# --- orders ---------------------------------------------------------------------------------------------------------


def test_an_order_worked_by_hand() -> None:
    # Trained on task 0, task 1 falls by 1; on 1, task 0 rises by a half; on 2, both fall.
    transfers = [[0.0, -1.0, 0.0], [0.5, 0.0, 0.0], [-0.2, -0.2, 0.0]]
    assert best_order(transfers) == [2, 0, 1]
    assert best_order([[0.0] * 3] * 3) == [0, 1, 2]


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_no_order_has_more_backward_transfer(transfers: list[list[int]]) -> None:
    def worth(order: tuple[int, ...]) -> int:
        return sum(transfers[later][earlier] for earlier, later in itertools.combinations(order, 2))

    orders = list(itertools.permutations(range(len(transfers))))
    best = max(map(worth, orders))
    assert best_order(transfers) == list(next(order for order in orders if worth(order) == best))


def test_a_lead_has_the_interval_of_all_tasks_together() -> None:
    # Task 1 after task 0 moves the lists of 0 by 1 and 0; the reverse moves those of 1 by -1 and -2.
    differences = [[[9.0, 9.0], [-1.0, -2.0]], [[1.0, 0.0], [9.0, 9.0]]]
    lead = lead_over_reverse(differences, [0, 1])
    half = 12.7062 * 0.5 * 2**0.5  # two means of two lists each, both with this half-width before the root
    assert (lead.mean, lead.low, lead.high) == (
        2.0,
        pytest.approx(2 - half, rel=1e-4),
        pytest.approx(2 + half, rel=1e-4),
    )
    assert lead_over_reverse(differences, [1, 0]).mean == -2.0
    assert lead_over_reverse([[[0.0], [1.0]], [[0.5], [0.0]]], [0, 1]).low is None
    with pytest.raises(InputError, match="13 tasks can't be put in order: give at most 12"):
        best_order([[0.0] * 13] * 13)


# --- the command ----------------------------------------------------------------------------------------------------


def test_a_pilot_measures_each_on_all_and_a_training_follows_its_order(tasks: Path, tmp_path: Path) -> None:
    pilot, given = tmp_path / "pilot", told(tasks, "fruit", "tools")
    said = r1ranker(
        "train", "pilot", "sft", *given, "--max_steps", "1", "--learning_rate", "1e-2", "--output_dir", pilot
    )
    assert "trained on fruit tools" in said and "before any" in said
    found = json.loads((pilot / "transfers.json").read_text(encoding="utf-8"))
    assert [(task["name"], task["lists"], task["data"]["name"]) for task in found["tasks"]] == [
        *(("fruit", 3, "fruit.parquet"), ("tools", 2, "tools.parquet")),
    ]
    assert (found["method"], found["base_model"], found["steps"], found["measure"]) == (
        "sft",
        "r1ranker-iterative-tiny",
        1,
        "RR",
    )
    for row, name in enumerate(("fruit", "tools")):
        ranks = read_ranks(pilot / name)
        assert ranks is not None and ranks.files == ["fruit-held.parquet"] * 3 + ["tools-held.parquet"] * 2
        moved = [after - before for before, after in zip(ranks.before, ranks.after, strict=True)]
        for column, lists in enumerate((moved[:3], moved[3:])):
            assert found["transfers"][row][column]["mean"] == pytest.approx(sum(lists) / len(lists))
    assert (pilot / "transfers.txt").read_text(encoding="utf-8").splitlines()[-2].startswith("order: ")

    # What is finished is not trained again, unless it would be another training.
    weights = [(pilot / name / "model.safetensors").stat().st_mtime_ns for name in ("fruit", "tools")]
    again = ["train", "pilot", "sft", *given, "--max_steps", "1", "--output_dir", pilot]
    assert "tools is trained already" in r1ranker(*again, "--learning_rate", "1e-2")
    assert [(pilot / name / "model.safetensors").stat().st_mtime_ns for name in ("fruit", "tools")] == weights
    assert "was trained with other arguments" in r1ranker(*again, "--learning_rate", "1e-3", code=1)

    # Turned round, so that the order is not the files' own.
    found["order"] = ["tools", "fruit"]
    (pilot / "transfers.json").write_text(json.dumps(found), encoding="utf-8")
    curriculum = ["--curriculum", "tasks", "--transfers", str(pilot / "transfers.json"), "--replay", "0.25"]
    r1ranker("train", "sft", *given, *curriculum, "--max_steps", "4", "--output_dir", tmp_path / "ordered")
    r1ranker(
        "train", "sft", *given, "--train_weights", "1", "1", "--max_steps", "4", "--output_dir", tmp_path / "mixed"
    )
    runs = {name: [read_run(tmp_path / name)] for name in ("ordered", "mixed")}
    assert runs["ordered"][0].record.task_order == ["tools.parquet", "fruit.parquet"]
    found_pairs = compare(runs)
    assert [(pair.file, pair.lists) for pair in found_pairs.differences] == [
        *(("", 5), ("fruit-held.parquet", 3), ("tools-held.parquet", 2)),
    ]
    by_file = next(sheet for sheet in sheets(found_pairs) if sheet.title.startswith("RR by held-out file"))
    assert by_file.headings == ("method", "fruit-held.parquet", "tools-held.parquet")
    assert all(" → " in cell for row in by_file.rows for cell in row[1:])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max_steps", "1", "--train_files", "one"], "for 2 to 12 tasks, and train_files names 1"),
        (["--max_steps", "1", "--held_out_files", "one"], "2 train_files and 1 held_out_files"),
        ([], "max_steps is not set"),
        (["--max_steps", "1", "--resume_from_checkpoint", "last"], "leave resume_from_checkpoint out"),
        (["--max_steps", "1", "--train_files", "a/x.parquet", "b/x.parquet"], "two train_files are called 'x'"),
        (["--curriculum", "tasks", "--train_files", "one"], "curriculum tasks is for several train_files"),
        (["--transfers", "t.json"], "add curriculum tasks"),
        (["--replay", "1"], "replay is 1: give a share from 0 to below 1"),
    ],
)
def test_a_pilot_that_can_not_be_run_is_explained(tasks: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [*told(tasks, "fruit", "tools"), "--output_dir", str(tmp_path / "pilot"), *arguments]
    assert said in r1ranker("train", "pilot", "sft", *given, code=1)


def test_the_method_is_named_first() -> None:
    assert "give one of sft, grpo" in r1ranker("train", "pilot", "--max_steps", "1", code=2)
    assert "transfers.json" in r1ranker("train", "pilot", "--help")


def test_transfers_are_those_of_the_files_trained_on(tasks: Path, tmp_path: Path) -> None:
    from r1ranker_ir.training.jobs.record import describe_file

    def estimate(mean: float) -> dict[str, Any]:
        return {"mean": mean}

    names = ["fruit", "tools"]
    held = describe_file(tasks / "fruit-held.parquet").model_dump()
    given = [
        {"name": name, "data": describe_file(tasks / f"{name}.parquet").model_dump(), "held_out": held}
        for name in names
    ]
    content = {
        **{"method": "sft", "base_model": "tiny", "seed": 0, "steps": 1, "order": ["tools", "fruit"]},
        **{"tasks": [each | {"lists": 3, "before": 0.5} for each in given], "lead": estimate(0.0)},
        "transfers": [[estimate(0.0)] * 2] * 2,
    }
    path = tmp_path / "transfers.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    files = [tasks / f"{name}.parquet" for name in names]
    assert turns_of(path, files) == [1, 0]
    assert turns_of(path, files[::-1]) == [0, 1]  # by their contents, wherever they stand
    with pytest.raises(InputError, match=r"measured with fruit.parquet, tools.parquet, and .*held.* is not among them"):
        turns_of(path, [files[0], tasks / "tools-held.parquet"])
    with pytest.raises(InputError, match="give each of them once"):
        turns_of(path, [files[0]])
    for changes in ({"order": ["fruit"]}, {"transfers": [[estimate(0.0)]]}, {"lead": {"mean": float("nan")}}):
        path.write_text(json.dumps(content | changes), encoding="utf-8")
        with pytest.raises(InputError, match=r"transfers\.json.*run r1ranker train pilot again"):
            turns_of(path, files)
