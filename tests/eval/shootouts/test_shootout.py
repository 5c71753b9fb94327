"""`r1ranker shootout`: what a list of rerankers may say, the table, the files, and that it comes out alike again."""

from __future__ import annotations

import json
import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import r1ranker, write_corpus

from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import parse_measures
from r1ranker_ir.eval.shootouts.entries import CascadeEntry, Entry, read_entries, shootout_names
from r1ranker_ir.eval.shootouts.report import shootout_data
from r1ranker_ir.eval.shootouts.shootout import EqualTerms, run_shootout
from r1ranker_ir.runs.run_source import RunSource

QUERIES, DEPTH = 6, 24
ORACLE = {"oracle": {"noise": 0.3, "noise_growth": 0.5}, "max_thought_tokens": 8}
ROWS: list[dict[str, Any]] = [
    {"name": "one", "strategy": "iterative", **ORACLE},
    {"name": "windows", "strategy": "direct", "window_size": 8, **ORACLE},
    {"name": "heap", "strategy": "setwise", "window_size": 4, "top_k": 5, **ORACLE},
    {"name": "points", "strategy": "pointwise", **ORACLE},
    {"name": "points, then heap", "cascade": {"first": "points", "second": "heap", "depth": 6}},
]


def shot(*arguments: object, code: int = 0) -> Any:
    return r1ranker("shootout", *arguments, code=code)


def listed(folder: Path, rows: object, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a made corpus, with one query that is not judged, and its first stage's run."""
    folder = tmp_path_factory.mktemp("corpus")
    drawing = random.Random(0)
    ids = [f"d{place}" for place in range(DEPTH)]
    queries = ["unjudged", *(f"q{number}" for number in range(QUERIES))]
    judged = {(query, each): drawing.choice([0, 0, 0, 1, 2, 3]) for query in queries[1:] for each in ids}
    documents = {each: f"text of {each}" for each in ids}
    write_corpus(folder, documents, {each: f"query {each}" for each in queries}, judged)
    run = [f"{query} Q0 {each} {rank} {-rank} made" for query in queries for rank, each in enumerate(ids, 1)]
    (folder / "run.trec").write_text("\n".join(run) + "\n", encoding="utf-8")
    return ["--corpus", str(folder), "--run", str(folder / "run.trec"), "--quiet"]


# --- what comes out


def test_table_json_picture_and_runs(made: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shot(*made, "--rerankers", listed(tmp_path, ROWS), "--measures", "nDCG@10 RR(rel=2)", "--output", out)
    shown = [line for line in done.stdout.splitlines() if line.strip()]
    assert f"{QUERIES} judged queries" in shown[0]
    assert [line.split("  ")[1].strip() for line in shown[3:]] == ["first stage", *(row["name"] for row in ROWS)]
    content = json.loads((out / "shootout.json").read_text())
    assert (out / "shootout.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = {row["name"]: row for row in content["rerankers"]}
    assert rows["one"]["calls"] == QUERIES * (DEPTH - 1)
    assert rows["windows"]["calls"] == QUERIES * 5  # 8 of 24, moving up by 4
    assert rows["points"]["calls"] == QUERIES * DEPTH
    assert rows["points, then heap"]["calls"] > rows["points"]["calls"]
    before = content["first_stage"]["measures"]
    for row in rows.values():
        assert row["repairs"] == 0 and row["budget"] == {} and row["budget_reached"] == 0
        for name, measure in row["measures"].items():
            low, high = measure["interval"]
            assert low <= measure["mean"] <= high
            assert measure["difference"] == pytest.approx(measure["mean"] - before[name]["mean"])
            assert f"{measure['mean']:.4f} ({low:.4f} to {high:.4f})" in done.stdout
    # What was written is what was measured.
    files = [tmp_path / "out" / "runs" / name for name in ("first_stage.trec", "points,_then_heap.trec")]
    measured = r1ranker("evaluate", *made[:2], "--measures", "nDCG@10", "--format", "json", *files)
    first, cascade = (each["mean"]["nDCG@10"] for each in json.loads(measured.stdout))
    assert first == pytest.approx(before["nDCG@10"]["mean"])
    assert cascade == pytest.approx(rows["points, then heap"]["measures"]["nDCG@10"]["mean"])


def results(made: list[str], folder: Path, rows: object, *more: object, code: int = 0) -> list[dict[str, Any]]:
    """What shootout.json says of each reranker, in the order of the list."""
    shot(*made, "--rerankers", listed(folder, rows), "--output", folder / "out", *more, code=code)
    found: list[dict[str, Any]] = json.loads((folder / "out" / "shootout.json").read_text())["rerankers"]
    return found


def test_same_result_twice_and_another_by_another_seed(made: list[str], tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 7)):
        (tmp_path / name).mkdir()
        rows = results(made, tmp_path / name, ROWS[:3], "--seed", seed)
        run = (tmp_path / name / "out" / "runs" / "heap.trec").read_bytes()
        found.append(([{**row, "seconds": 0} for row in rows], [row["measures"] for row in rows], run))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1] and found[0][2] != found[2][2]


def test_without_noise_all_are_ideal(made: list[str], tmp_path: Path) -> None:
    rows = [{**row, "oracle": None} if "oracle" in row else row for row in ROWS]
    for row in results(made, tmp_path, rows, "--measures", "nDCG@4"):
        assert row["measures"]["nDCG@4"]["mean"] == pytest.approx(1), row["name"]


def test_budgets_hold_for_all_and_the_smaller_one_counts(made: list[str], tmp_path: Path) -> None:
    rows = [{**ROWS[0], "max_calls": 4}, {**ROWS[3], "max_calls": 100}, ROWS[4], ROWS[2]]
    terms = ["--max-calls", 10, "--max-tokens", 1500, "--queries", 2, "--depth", 12]
    done = shot(*made, "--rerankers", listed(tmp_path, rows), *terms, "--output", tmp_path / "out")
    found = {row["name"]: row for row in json.loads((tmp_path / "out" / "shootout.json").read_text())["rerankers"]}
    limits = {"one": 4, "points": 10, "points, then heap": 10, "heap": 10}
    for name, row in found.items():
        assert row["budget"] == {"max_calls": limits[name], "max_tokens": 1500}
        assert row["calls"] <= 2 * limits[name] and row["queries"] == 2
        assert row["prompt_tokens"] + row["completion_tokens"] <= 2 * 1500
        assert row["budget_reached"] <= 2
    assert found["one"]["budget_reached"] == 2
    assert "4 calls, 1,500 tokens" in done.stdout


def test_one_that_fails_leaves_the_others(made: list[str], tmp_path: Path) -> None:
    gone = {"name": "gone", "reranker": str(tmp_path / "no-such-model"), "strategy": "direct"}
    done = shot(*made, "--rerankers", listed(tmp_path, [gone, ROWS[1]]), "--output", tmp_path / "out", code=1)
    assert "Error: gone: " in done.stderr and "no-such-model" in done.stderr
    failed, fine = json.loads((tmp_path / "out" / "shootout.json").read_text())["rerankers"]
    assert "no-such-model" in failed["failed"] and "measures" not in failed
    assert fine["measures"]["nDCG@10"]["mean"] > 0
    [line] = (line for line in done.stdout.splitlines() if line.strip().startswith("gone"))
    assert "failed" in line
    alone = shot(*made, "--rerankers", listed(tmp_path, [gone]), code=1)
    assert "no-such-model" in alone.stderr and not alone.stdout


def test_what_is_finished_survives_an_interruption(made: list[str], tmp_path: Path) -> None:
    terms = EqualTerms(RunSource(made[1], made[3], DEPTH), parse_measures("nDCG@10"))
    kept: list[Any] = []

    def say(name: str) -> None:
        if name == "heap":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_shootout(read_entries(str(listed(tmp_path, ROWS))), terms, say=say, keep=kept.append)
    data = [shootout_data(so_far)["rerankers"] for so_far in kept]
    assert [[row["name"] for row in rows] for rows in data] == [["one"], ["one", "windows"]]
    assert all(row["seconds"] > 0 and row["measures"]["nDCG@10"]["mean"] > 0 for row in data[-1])


# --- what a list may say


def test_names_and_models_become_checkpoints_strategies_and_options(tmp_path: Path) -> None:
    rows = [
        {"name": "a", "reranker": "r1ranker-iterative", "model": "some/model", "schedule": "halving:5", "stride": None},
        {"name": "b", "reranker": "Rank-R1", "window_size": 10},
        {"name": "c", "reranker": "rankgpt", "model": "gpt", "backend": "openai", "base_url": "http://localhost/v1"},
        {"name": "d", "model": "my/model", "strategy": "pointwise", "temperature": 1},
        {"name": "e", "oracle": {"noise": 1}, "strategy": "direct"},
        {"name": "f", "cascade": {"first": "e", "second": "b"}, "max_calls": 30},
    ]
    a, b, c, d, e, f = read_entries(str(listed(tmp_path, rows)))
    assert a == Entry("a", "some/model", "iterative", {"schedule": "halving:5"})
    assert isinstance(b, Entry) and (b.model, b.strategy) == ("ielabgroup/Rank-R1-3B-v0.1", "setwise")
    assert (b.options["window_size"], b.options["top_k"]) == (10, 10)
    assert isinstance(c, Entry) and (c.model, c.strategy) == ("gpt", "direct")
    assert str(c.options["template"]).endswith("family_rankgpt.toml")
    assert d == Entry("d", "my/model", "pointwise", {"temperature": 1})
    assert e == Entry("e", "oracle", "direct", {"backend": "oracle", "noise": 1})
    assert isinstance(e, Entry) and f == CascadeEntry("f", e, b, 20, {"max_calls": 30})


@pytest.mark.parametrize("name", shootout_names())
def test_packaged_lists_can_be_read(name: str) -> None:
    assert len(read_entries(name)) > 3
    assert read_entries(name) == read_entries(f"{name}.yaml")


def test_files_are_named_by_their_paths(made: list[str], tmp_path: Path) -> None:
    template = tmp_path / "own.toml"
    template.write_bytes((resources.files("r1ranker_ir.prompts") / "default.toml").read_bytes())
    rows = [{"name": "own", "oracle": {"noise": 0}, "strategy": "direct", "template": str(template)}]
    shot(*made, "--rerankers", listed(tmp_path, rows))
    rows[0]["template"] = 7
    wrong = shot(*made, "--rerankers", listed(tmp_path, rows), code=1)
    assert "template is 7: give a text" in wrong.stderr


def test_packaged_oracle_runs(made: list[str]) -> None:
    shown = shot(*made, "--rerankers", "oracle", "--queries", 2).stdout
    assert {"iterative", "direct", "setwise", "pointwise", "cascade"} <= set(shown.split())
    assert "failed" not in shown


PAIR = {"first": "one", "second": "one"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "give a list of rerankers"),
        ({"name": "a"}, "give a list of rerankers"),
        (["one"], "entry 1 is 'one': give a mapping"),
        ([{"reranker": "x"}], "entry 1: name is None"),
        ([{"name": 5}], "entry 1: name is 5"),
        ([ROWS[0], ROWS[0]], "entry 2: 'one' is too much like 'one'"),
        ([{**ROWS[0], "name": "first stage"}], "'first stage' is too much like 'first stage'"),
        ([{**ROWS[0], "name": "a b"}, {**ROWS[0], "name": "a_b"}], "'a_b' is too much like 'a b'"),
        ([{"name": "a", "windowsize": 5, **ORACLE}], "unknown key 'windowsize': did you mean 'window_size'?"),
        ([{"name": "a", "base_url": "x", "reranker": "r1ranker-direct"}], "entry 'a': unknown key 'base_url'"),
        ([{"name": "a", "noise": 0.5, **ORACLE}], "entry 'a': unknown key 'noise'"),
        ([{"name": "a", "cache": "x", "reranker": "r1ranker-direct"}], "entry 'a': unknown key 'cache'"),
        ([{**ROWS[0], "window_size": "ten"}], "entry 'one': window_size is 'ten': give a whole number"),
        ([{**ROWS[0], "show_best_first": 3}], "show_best_first is 3: give true or false"),
        ([{**ROWS[0], "think": "seldom"}], "think is 'seldom': give one of always, first, never"),
        ([{**ROWS[0], "schedule": "thirds"}], "entry 'one': schedule is 'thirds'"),
        ([{**ROWS[0], "sort": "heap"}], "entry 'one': sort='heap' is for the setwise strategy"),
        ([{**ROWS[0], "strategy": "best"}], "strategy is 'best': use one of iterative"),
        ([{"name": "a", **ORACLE}], "entry 'a': the oracle needs a strategy"),
        ([{**ROWS[0], "model": "x"}], "the oracle stands in place of a model: drop model"),
        ([{**ROWS[0], "oracle": {"nois": 1}}], "entry 'one': oracle: field 'nois' is unknown: did you mean 'noise'?"),
        ([{**ROWS[0], "oracle": {"noise": "much"}}], "oracle: field 'noise' is 'much': give a number"),
        ([{**ROWS[0], "oracle": 0.5}], "oracle: the record is 0.5: give an object with noise, noise_growth, seed"),
        ([{"name": "a", "backend": "oracle", "strategy": "direct"}], "'oracle': use one of transformers, openai"),
        ([{"name": "a", "strategy": "direct"}], "it names no model"),
        ([{"name": "a", "reranker": 7}], "reranker is 7: give a text"),
        ([{"name": "a", "reranker": "some/model"}], "To use a model of that name, add a strategy"),
        ([{"name": "a", "reranker": "x", "model": "y", "strategy": "direct"}], "reranker 'x' names one already"),
        ([{"name": "a", "reranker": "r1ranker-direct", "strategy": "iterative"}], "leave strategy='iterative' out"),
        ([{"name": "a", "reranker": "rankgpt"}], "'rankgpt' works with any chat model"),
        ([{"name": "a", "cascade": "b"}], "field 'cascade' is 'b': give an object with first, second, depth"),
        (
            [ROWS[0], {"name": "a", "cascade": PAIR | {"second": "two"}}],
            "field 'cascade.second' is 'two': name another",
        ),
        ([ROWS[0], {"name": "a", "cascade": PAIR | {"depth": 1}}], "field 'cascade.depth' is 1: give at least 2"),
        ([ROWS[0], {"name": "a", "cascade": PAIR | {"third": "one"}}], "field 'cascade.third' is unknown: use"),
        ([ROWS[0], {"name": "a", "cascade": PAIR, "top_k": 3}], "field 'top_k' is unknown"),
    ],
)
def test_mistakes_name_file_entry_and_key(rows: object, message: str, tmp_path: Path) -> None:
    path = listed(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        read_entries(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- name: [", "is not valid YAML"), ("- name: \xe9", "is not UTF-8 text"), (None, "packaged ones")],
)
def test_files_that_can_not_be_read(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_entries(str(path))


def test_mistakes_about_the_corpus(made: list[str], tmp_path: Path) -> None:
    path = listed(tmp_path, ROWS[:2])
    assert "nDCG@five" in shot(*made, "--rerankers", path, "--measures", "nDCG@five", code=1).stderr
    assert "counts the queries" in shot(*made, "--rerankers", path, "--measures", "NumQ", code=1).stderr
    (tmp_path / "file").write_text("")
    assert "choose another --output" in shot(*made, "--rerankers", path, "--output", tmp_path / "file", code=1).stderr
    lines = Path(made[3]).read_text().splitlines(keepends=True)
    alone = tmp_path / "unjudged.trec"
    alone.write_text("".join(line for line in lines if line.startswith("unjudged")))
    options = [*made[:2], "--run", alone, "--rerankers", path, "--quiet"]
    assert "judges none of the queries" in shot(*options, code=1).stderr
