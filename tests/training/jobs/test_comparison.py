"""Comparison of trainings: intervals and paired tests worked by hand, and what is said of folders that do not fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from r1ranker_ir.cli.app import app
from r1ranker_ir.errors import DataFileError, InputError, R1RankerError
from r1ranker_ir.training.jobs.comparison import (
    Comparison,
    MethodSummary,
    PairedDifference,
    compare,
    paired_difference,
    read_run,
    summarise,
)
from r1ranker_ir.training.jobs.comparison_tables import comparison_json, sheets
from r1ranker_ir.training.jobs.record import HeldOutRanks, read_ranks, write_ranks

IDS = ("q1", "q2", "q2", "q3")


def trained(
    folder: Path,
    *,
    seed: int = 0,
    before: float = 0.4,
    after: float = 0.5,
    ranks: Sequence[float] | None = None,
    ids: Sequence[str] = IDS,
    lists: str = "aa",
    exclusions: bool = True,
    **changes: Any,
) -> Path:
    """Writes what a training leaves, as far as a comparison reads it; `None` leaves a key out."""
    record: dict[str, Any] = {
        **{"method": "grpo", "seed": seed, "generated_tokens": 1000 + seed, "seconds": 60.0},
        "before": {"RR": before, "nDCG@10": 0.6, "accuracy@2": 0.5, "accuracy@3": 0.75, "repairs": 0},
        "after": {"RR": after, "nDCG@10": 0.7, "accuracy@2": 0.75, "accuracy@3": 1.0, "repairs": 0},
        "held_out": [{"name": "held_out.parquet", "sha256": lists}],
        "arguments": {"held_out_queries": 4},
    }
    if not exclusions:
        record |= {"before": {"RR": before}, "after": {"RR": after}}
    record = {key: value for key, value in (record | changes).items() if value is not None}
    folder.mkdir(parents=True)
    (folder / "r1ranker.json").write_text(json.dumps({"training": record}), encoding="utf-8")
    if ranks is not None:
        write_ranks(folder, ids, [0.5] * len(ids), ranks)
    return folder


def method(tmp_path: Path, label: str, *ranks: Sequence[float] | None, **changes: Any) -> MethodSummary:
    """A method with one run for each list of RRs."""
    folders = [
        trained(tmp_path / f"{label}-{seed}", seed=seed, ranks=each, **changes) for seed, each in enumerate(ranks)
    ]
    return summarise(label, [read_run(folder) for folder in folders])


def paired(first: MethodSummary, second: MethodSummary) -> PairedDifference:
    found = paired_difference(first, second)
    assert found is not None
    return found


def half(estimate: Any) -> float:
    return float(estimate.interval.high - estimate.mean)


def r1ranker(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


# --- figures --------------------------------------------------------------------------------------------------------


def test_what_a_run_lacks_is_not_made_up(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    bare = trained(tmp_path / "bare", seed=1, before=0, exclusions=False, generated_tokens=None, seconds=None)
    found = summarise("SFT", [read_run(whole), read_run(bare)])
    assert (found.generated_tokens, found.seconds, found.gain) == (None, None, None)
    assert set(found.after) == {"RR"}
    text = " ".join(sheets(Comparison((found,), ()))[0].rows[0])
    assert text.startswith("SFT 0, 1 – 0.2000 ± 2.5412 0.5000 – – – –")


def test_paired_difference_worked_by_hand(tmp_path: Path) -> None:
    one, other = method(tmp_path, "IRanker", [1, 1, 0.5, 1]), method(tmp_path, "DRanker", [0.5, 1, 0.5, 0.5])
    found = paired(one, other)
    # Differences 0.5, 0, 0, 0.5: s = 0.288675, s/√4 = 0.144338, t = √3 with 3 degrees of freedom.
    assert (found.difference.mean, found.lists, found.better, found.worse) == (0.25, 4, 2, 0)
    assert half(found.difference) == pytest.approx(3.182446 * 0.1443376, rel=1e-5)
    assert found.p_value == pytest.approx(0.181690, abs=1e-6)
    # The mean over the seeds is taken first.
    first = method(tmp_path, "two", [1, 1, 0.5, 1], [0, 1, 0.5, 0.5])
    found = paired(first, method(tmp_path, "one", [0.5, 1, 0.5, 1]))
    assert (found.difference.mean, found.lists, found.better, found.worse) == (-0.25 / 4, 4, 0, 1)
    # Differences that are all alike have no spread.
    one, other = method(tmp_path, "high", [1, 1, 1, 1]), method(tmp_path, "low", [0.5] * 4)
    for second, p_value in ((one, 1.0), (other, 0.0)):
        found = paired(one, second)
        assert (half(found.difference), found.p_value) == (0, p_value)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_paired_test_turns_with_its_sides(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    ids = [f"q{number}" for number in range(len(values))]
    first, second = (
        method(folder, name, [pair[side] for pair in values], ids=ids) for side, name in enumerate(("one", "other"))
    )
    found, turned = paired(first, second), paired(second, first)
    assert turned.difference.mean == pytest.approx(-found.difference.mean)
    assert (turned.better, turned.worse) == (found.worse, found.better)
    assert 0 <= found.p_value == turned.p_value <= 1


@pytest.mark.parametrize("changes", [{"ids": ("q1", "q2", "q3", "q4")}, {"lists": "bb"}, {"ranks": None}])
def test_other_lists_are_not_paired(tmp_path: Path, changes: dict[str, Any]) -> None:
    told = {"ranks": [0.5] * 4} | changes
    other = summarise("other", [read_run(trained(tmp_path / "other", **told))])
    assert paired_difference(method(tmp_path, "one", [1.0] * 4), other) is None


# --- what is said ---------------------------------------------------------------------------------------------------


def test_what_can_not_be_compared_well_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [trained(tmp_path / "a"), trained(tmp_path / "b", lists="bb"), trained(tmp_path / "c", seed=1)]
    one, other, third = map(read_run, folders)
    with caplog.at_level(logging.WARNING):
        compare({"x": [one, third]})
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        compare({"x": [one, other]})
    assert "not measured with the same held-out lists" in caplog.text
    assert "x: seed 0 more than once" in caplog.text
    with pytest.raises(InputError, match="given twice"):
        compare({"x": [one], "y": [one]})
    with pytest.raises(InputError, match="nothing to compare"):
        compare({})


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, InputError, "holds no r1ranker.json"),
        ("{", DataFileError, "can't be read"),
        ('{"strategies": []}', InputError, "no record of a training"),
        ("[]", DataFileError, "the record is .*give an object with training"),
        ('{"training": {}}', DataFileError, "training.seed' is missing: give it. This is not what .*: train again"),
        ('{"training": {"seed": 0, "before": {"RR": NaN}}}', DataFileError, "RR' is nan: give a finite number"),
        ('{"training": {"seed": 0}}', InputError, "no held-out measures"),
        ('{"training": {"seed": 0, "held_out": [{}]}}', DataFileError, "held_out.0..sha256' is missing"),
    ],
)
def test_folder_that_can_not_be_compared_is_explained(
    tmp_path: Path, content: str | None, error: type[R1RankerError], said: str
) -> None:
    if content is not None:
        (tmp_path / "r1ranker.json").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=said):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", '{"ids": ["a"], "before": [1, 1], "after": [1]}', '{"ids": ["a"], "before": [], "after": [NaN]}']
)
def test_malformed_ranks_name_their_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "held_out.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataFileError, match=r"held_out\.json"):
        read_ranks(tmp_path)


def test_ranks_come_back_and_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    write_ranks(tmp_path, ["a", "b"], [], [])
    assert read_ranks(tmp_path) is None
    # The last training has gone on with other lists.
    for before, known in (([0.1, 1 / 3], [0.1, 1 / 3]), ([0.1], [])):
        write_ranks(tmp_path, ["a", "b"], before, [0.25, 1])
        assert read_ranks(tmp_path) == HeldOutRanks(ids=["a", "b"], before=known, after=[0.25, 1.0])
    with pytest.raises(InputError, match="can't write"):
        write_ranks(tmp_path / "nowhere", ["a"], [], [1.0])


# --- tables ---------------------------------------------------------------------------------------------------------


def test_command_prints_and_writes_tables(tmp_path: Path) -> None:
    """Two seeds of one method, and one run of another that has no exclusions."""
    seeds = [trained(tmp_path / "i0", ranks=[1, 1, 0.5, 1]), trained(tmp_path / "i1", seed=1, after=0.6, ranks=[1] * 4)]
    seeds[1].joinpath("held_out.json").write_bytes(seeds[0].joinpath("held_out.json").read_bytes())
    other = trained(tmp_path / "d0", ranks=[0.5, 1, 0.5, 0.5], before=0.25, after=0.75, exclusions=False)
    outputs = [tmp_path / f"table.{ending}" for ending in ("md", "json", "txt")]
    told = [*(f"I|Ranker={folder}" for folder in seeds), f"DRanker={other}"]
    printed = r1ranker("train", "compare", *told, *(word for each in outputs for word in ("--output", each)))
    # +25% and +50%: 37.5 ± 12.7062 · 12.5; RR 0.5 and 0.6: 0.55 ± 12.7062 · 0.05.
    assert "I|Ranker 0, 1 1000 0.4000 0.5500 ± 0.6353 +37.5 ± 158.8 0.6000 0.7000 60" in printed
    assert "DRanker 0 1000 0.2500 0.7500 +200.0 – – 60" in printed
    assert "I|Ranker 0.500 → 0.750 0.750 → 1.000" in printed
    assert "I|Ranker − DRanker +0.2500 ± 0.4593 0.1817 2 0 4" in printed
    assert printed == " ".join(outputs[2].read_text(encoding="utf-8").split())
    content = json.loads(outputs[1].read_text(encoding="utf-8"))
    assert [each["method"] for each in content["methods"]] == ["I|Ranker", "DRanker"]
    gain = content["methods"][0]["gain_percent"]
    assert (gain["mean"], gain["low"], gain["count"]) == pytest.approx((37.5, 37.5 - 158.8276, 2), abs=1e-3)
    assert [run["seed"] for run in content["methods"][0]["runs"]] == [0, 1]
    assert content["differences"][0]["p_value"] == pytest.approx(0.18169, abs=1e-5)
    assert content["differences"][0]["difference"]["count"] == 4
    html = MarkdownIt("commonmark").enable("table").render(outputs[0].read_text(encoding="utf-8"))
    assert html.count("<table>") == 3
    assert html.count("<th") - html.count("<thead") == 9 + 3 + 6
    assert html.count("<td") == 2 * 9 + 3 + 6
    assert html.count("I|Ranker") == 3


def test_single_folder_is_named_by_itself_and_has_no_intervals(tmp_path: Path) -> None:
    folder = trained(tmp_path / "alone", after=1 / 3)
    text = r1ranker("train", "compare", folder)
    assert "alone 0 1000 0.4000 0.3333 -16.7 0.6000 0.7000 60" in text
    assert "list by list" not in text
    content = comparison_json(compare({"x": [read_run(folder)]}))
    assert content["methods"][0]["after"]["RR"] == {"mean": 1 / 3, "low": None, "high": None, "count": 1}
    assert json.loads(json.dumps(content)) == content
    said = r1ranker("train", "compare", tmp_path / "nowhere", "--output", tmp_path / "table.csv", code=1)
    assert "ends in .md, .json, .txt" in said  # before anything is read
    said = r1ranker("train", "compare", folder, "--output", tmp_path / "nowhere" / "table.md", code=1)
    assert "can't write" in said
