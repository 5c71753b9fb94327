"""The training demo: all of its commands on a small collection, what it shows, and what it does not do twice."""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
from rich.console import Console

from r1ranker_ir.cli.app import app
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.training.demo.demo import OUTPUT, DemoSettings, Part, demo_parts, run_parts, run_train_demo
from r1ranker_ir.training.jobs.arguments import parse_arguments
from r1ranker_ir.training.jobs.comparison import read_run

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

TOPICS = "archive buffer codec decimal encoder fraction grammar header iterator keyword locale mailbox".split()
FEW = ("--max_steps", "1", "--per_device_train_batch_size", "8", "--held_out_queries", "2", "--save_strategy", "no")
PAPER_GAIN = 15.7  # percent


def small_library(folder: Path) -> Path:
    """Python files with a documented function a topic."""
    for topic in TOPICS:
        summary = f"Open the {topic} reader."
        body = f"What a {topic} holds is given back as it stands, and the reader is closed behind it by its caller."
        source = f'def read():\n    """{summary}\n\n    {body}\n    """\n'
        folder.mkdir(exist_ok=True)
        (folder / f"{topic}.py").write_text(source, encoding="utf-8")
    return folder


def settings_in(folder: Path) -> DemoSettings:
    return DemoSettings(folder / "made", small_library(folder / "library"), 2, FEW, FEW)


def run_command(arguments: Sequence[str]) -> None:
    app(list(arguments), prog_name="r1ranker")


def show(work: Callable[[Console], None]) -> str:
    file = io.StringIO()
    work(Console(file=file, width=100))
    return file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoSettings, str]:
    """A demo that has run, and what it has shown."""
    settings = settings_in(tmp_path_factory.mktemp("demo"))
    return settings, show(lambda console: run_train_demo(console, settings, run_command))


# --- the whole ------------------------------------------------------------------------------------------------------


def test_commands_are_shown_as_they_run(finished: tuple[DemoSettings, str]) -> None:
    settings, text = finished
    shown = [tuple(shlex.split(line.removeprefix("$ "))) for line in text.splitlines() if line.startswith("$ ")]
    assert shown == [part.command for part in demo_parts(settings)]


def test_before_and_after_are_shown(finished: tuple[DemoSettings, str]) -> None:
    settings, text = finished
    weak, trained = read_run(settings.output / "sft"), read_run(settings.output / "grpo")
    before, after = trained.record.before["RR"], trained.record.after["RR"]
    over_start, over_embedded = (
        100 * (after - run.record.before["RR"]) / run.record.before["RR"] for run in (trained, weak)
    )
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("MRR"))
    assert row[2:] == [f"{before:.4f}", f"{after:.4f}", f"{over_start:+.1f}%", f"{over_embedded:+.1f}%"]
    assert "right exclusions of 2 candidates" in text
    last = text.strip().splitlines()[-1]
    assert f"{over_start:+.1f}% over the start that was weakened on purpose" in last
    assert f"{over_embedded:+.1f}% over the embedded model" in last
    picture = settings.output / "train-demo.png"
    assert str(picture) in text
    assert picture.read_bytes() == (settings.output / "grpo" / "curves.png").read_bytes()
    for run in (weak, trained):
        assert run.ranks is not None and len(run.ranks.ids) == 2
        assert fmean(run.ranks.before) == pytest.approx(run.record.before["RR"])
        assert fmean(run.ranks.after) == pytest.approx(run.record.after["RR"])


def test_finished_parts_are_not_done_again(finished: tuple[DemoSettings, str]) -> None:
    settings, first = finished
    times = {path: path.stat().st_mtime_ns for path in settings.output.rglob("*.parquet")}
    times |= {path: path.stat().st_mtime_ns for path in settings.output.rglob("model.safetensors")}
    assert len(times) == 5 + 2
    second = show(lambda console: run_train_demo(console, settings, run_command))
    assert second.count("finished before") == len(demo_parts(settings)) == 8
    assert {path: path.stat().st_mtime_ns for path in times} == times
    table = [[line for line in text.splitlines() if "exclusions" in line or "MRR" in line] for text in (first, second)]
    assert table[0] == table[1]


def test_default_commands_are_those_of_the_recipes() -> None:
    """What the recipes read is what the parts before them make."""
    parts = demo_parts(DemoSettings())
    made = {str(path) for part in parts for path in part.makes}
    sft, grpo = (part for part in parts if part.trains is not None)
    for part, method in ((sft, "sft"), (grpo, "grpo")):
        assert part.command[1:3] == ("train", method)
        arguments = parse_arguments(method, list(part.command[3:]))
        assert set(arguments.data.train_files) <= made
        assert set(arguments.data.held_out_files or ()) <= made
        assert arguments.data.held_out_files
        assert arguments.trainer.output_dir == str(part.trains)
    assert parse_arguments("grpo", list(grpo.command[3:])).model.model == str(sft.trains) == str(OUTPUT / "sft")


# --- parts ----------------------------------------------------------------------------------------------------------


def run_some(parts: list[Part], folder: Path, *, overwrite: bool = False) -> list[str]:
    """Runs parts; returns what was run, by the verb or the script's name."""
    text = show(lambda console: run_parts(console, parts, folder / "note.json", run_command, overwrite=overwrite))
    ran = [line.split() for line, after in pairwise(text.splitlines()) if after != "finished before"]
    commands = [words[1:] for words in ran if words[:1] == ["$"]]
    return [words[1] if words[0] == "r1ranker" else words[2].rpartition(".")[2] for words in commands]


def test_what_is_missing_is_made_with_all_that_follows(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    parts = demo_parts(settings)[:3]
    assert run_some(parts, tmp_path) == ["documentation", "search", "data"]
    assert run_some(parts, tmp_path) == []
    (settings.output / "data" / "bm25.trec").unlink()
    assert run_some(parts, tmp_path) == ["search", "data"]
    assert run_some(parts, tmp_path, overwrite=True) == ["documentation", "search", "data"]
    other = demo_parts(DemoSettings(settings.output, settings.library, 3))[:3]
    assert run_some(other, tmp_path) == ["data"]
    # Its file is another command's now.
    (tmp_path / "note.json").unlink()
    assert run_some(parts, tmp_path) == ["documentation", "search", "data"]


def test_part_that_stopped_is_not_finished_and_its_note_is_checked(tmp_path: Path) -> None:
    parts, note = demo_parts(settings_in(tmp_path))[:1], tmp_path / "note.json"
    run_some(parts, tmp_path)
    note.write_text(note.read_text(encoding="utf-8").replace("finished", "begun"), encoding="utf-8")
    assert run_some(parts, tmp_path) == ["documentation"]
    for content in ("{", "[]"):
        note.write_text(content, encoding="utf-8")
        with pytest.raises(DataFileError, match=r"note\.json.*--overwrite"):
            run_some(parts, tmp_path)
    with pytest.raises(InputError):
        run_some(parts, note)


def test_folder_of_somebody_else_is_not_replaced_and_one_that_was_begun_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = next(part for part in demo_parts(settings_in(tmp_path)) if part.trains is not None)
    assert part.trains is not None
    # The samples are missing, so it fails; and again, with another message if the folder were in its way.
    for _ in range(2):
        with pytest.raises(InputError, match="r1ranker train sft --config … has failed"):
            run_some([part], tmp_path)
        assert "cold-steps.parquet': give one" in capsys.readouterr().err
        part.trains.mkdir(parents=True, exist_ok=True)
        (part.trains / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "note.json").unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=r"holds something else already.*--overwrite"):
            run_some([part], tmp_path)
    assert [path.name for path in part.trains.iterdir()] == ["config.json"]


# --- at full size ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_reaches_the_gain_of_the_paper_in_a_quarter_of_an_hour(tmp_path: Path) -> None:
    started = time.perf_counter()
    run_train_demo(Console(), DemoSettings(tmp_path / "out"), run_command)
    assert time.perf_counter() - started < 15 * 60
    run = read_run(tmp_path / "out" / "grpo")
    assert run.gain is not None
    assert run.gain >= PAPER_GAIN
    assert json.loads((tmp_path / "out" / "train-demo.json").read_text(encoding="utf-8"))
