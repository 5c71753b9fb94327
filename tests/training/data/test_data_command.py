"""`r1ranker data`: sources to files of samples, what it reports, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r1ranker_ir.cli.app import app
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.request_files import JudgedRequest, write_requests
from r1ranker_ir.data.trec_runs import RunEntry, read_run, write_run
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.runs.traces import TraceWriter
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.prompting import PromptRenderer, sample_of, training_rows
from r1ranker_ir.training.data.sample_files import check_samples, read_metadata, read_samples, versions
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

pytest.importorskip("pyarrow")

COLLECTION = str(resources.files("r1ranker_ir") / "demo_collection")


def data(*arguments: Any, code: int = 0) -> str:
    """Runs the verb and gives what it says on standard error."""
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split()) if code == 2 else result.stderr


def rows_of(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    check_samples(path)
    return list(pyarrow.parquet.read_table(path).to_pylist())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BM25's run of the packaged collection."""
    path = tmp_path_factory.mktemp("run") / "bm25.trec"
    result = CliRunner().invoke(app, ["search", "--corpus", COLLECTION, "--depth", "12", "--output", str(path)])
    assert result.exit_code == 0
    return path


@pytest.fixture
def ours(run: Path) -> list[Any]:
    """The command's words for the packaged collection."""
    return ["--corpus", COLLECTION, "--run", run]


def test_step_samples_of_a_corpus_and_a_run(ours: list[Any], run: Path, tmp_path: Path) -> None:
    output = tmp_path / "steps.parquet"
    said = data(*ours, "--candidates", 4, "--seed", 3, "--output", output)
    rows = rows_of(output)
    corpus, found = open_corpus(COLLECTION), read_run(run)
    topics, grades = corpus.queries(), gains_of(corpus.qrels())
    assert len(rows) % 3 == 0 and len(rows) >= 3 * 30
    for row in rows:
        assert row["strategy"] == "iterative" and row["source"] == "demo_collection" and row["task"] == "passage"
        assert row["context"] == topics[row["id"]]
        assert row["gains"] == [grades[row["id"]].get(doc_id, 0.0) for doc_id in row["candidate_ids"]]
        assert row["candidates"] == list(corpus.documents(row["candidate_ids"]).values())
        negatives = {doc_id for doc_id, gain in zip(row["candidate_ids"], row["gains"], strict=True) if not gain}
        assert negatives <= {entry.doc_id for entry in found[row["id"]]}
    each = len(rows) // 3
    assert f"{len(rows)} samples (iterative) of 32 queries; by list length 2: {each}, 3: {each}, 4: " in said
    assert "32 queries read, 0 dropped\n" in said
    assert "WARNING" in said and "has no qrels/train.tsv: its test judgments are used" in said
    metadata = read_metadata(output)
    assert metadata["arguments"]["sampling"]["seed"] == 3
    assert metadata["arguments"]["corpus"] == COLLECTION
    assert metadata["counts"]["samples"] == len(rows)
    assert metadata["versions"] == versions()


def test_same_input_and_seed_give_the_same_bytes_in_any_process(ours: list[Any], tmp_path: Path) -> None:
    common = [*ours, "--quiet", "--positives", 1]
    assert data(*common, "--seed", 1, "--output", tmp_path / "a").count("\n") == 1  # the warning of the split
    script = "import sys; from r1ranker_ir.cli.app import app; app(sys.argv[1:])"
    arguments = ["data", *map(str, common), "--seed", "1", "--output", str(tmp_path / "b")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data(*common, "--seed", 2, "--output", tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert rows_of(tmp_path / "a") != rows_of(tmp_path / "c")


def test_windows_keep_the_runs_order(ours: list[Any], run: Path, tmp_path: Path) -> None:
    output = tmp_path / "windows.parquet"
    said = data(*ours, *"--strategy windows --window-size 6 --stride 3 --depth 10".split(), "--output", output)
    rows, found = rows_of(output), read_run(run)
    for row in rows:
        top = [entry.doc_id for entry in found[row["id"]][:10]]
        start = top.index(row["candidate_ids"][0])
        assert start in (4, 1, 0) and row["strategy"] == "direct"
        assert row["candidate_ids"] == top[start : start + len(row["candidate_ids"])]
    dropped = int(re.findall(r"^(\d+) windows without differing gains left out$", said, re.MULTILINE)[0])
    assert 0 < dropped <= 32 * 3 - len(rows)


def test_a_train_split_is_preferred_and_another_can_be_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(COLLECTION, folder)
    (folder / "qrels" / "train.tsv").write_text("q01\tp054\t1\n")
    write_run({"q01": (RunEntry("p024", 2.0), RunEntry("p046", 1.0))}, tmp_path / "run")
    common = ["--corpus", folder, "--run", tmp_path / "run", "--output", tmp_path / "out"]
    assert "WARNING" not in data(*common)
    assert [(row["id"], sorted(row["gains"])) for row in rows_of(tmp_path / "out")] == [
        *(("q01", [0, 1]), ("q01", [0, 0, 1]))
    ]
    data(*common, "--split", "test", "--positives", 1)
    assert max(rows_of(tmp_path / "out")[0]["gains"]) == 3
    assert "no judgments of split 'dev'" in data(*common, "--split", "dev", code=1)


# --- test data ------------------------------------------------------------------------------------------------------


@pytest.fixture
def split_corpus(tmp_path: Path) -> Path:
    """Train queries q1 to q3 and test queries t1 (judged) and t2 (not judged).

    q1 shares the positive d1 with t1, q2 asks what t1 asks in other letters, and q3 shares nothing.
    """
    folder = tmp_path / "split"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "Fleas live a year.", "d2": "Ticks wait.", "d3": "Lice are small.", "d4": "Bees dance."}
    queries = {"q1": "fleas", "q2": "THE AGE of fleas?", "q3": "bees", "t1": "the age of fleas", "t2": "bees"}
    for name, entries in (("corpus", texts), ("queries", queries)):
        lines = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in entries.items())
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "qrels" / "train.tsv").write_text("q1\td1\t1\nq1\td2\t1\nq2\td3\t1\nq3\td4\t1\n")
    (folder / "qrels" / "test.tsv").write_text("t1\td1\t1\nt1\td4\t0\n")
    entries = tuple(RunEntry(doc_id, -float(rank)) for rank, doc_id in enumerate(texts))
    write_run(dict.fromkeys(queries, entries), tmp_path / "run")
    return folder


@pytest.fixture
def leaking(split_corpus: Path, tmp_path: Path) -> list[Any]:
    """The command's words for training on the split corpus."""
    return ["--corpus", split_corpus, "--run", tmp_path / "run"]


def test_test_data_in_training_stop_it_and_are_named(leaking: list[Any], tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    said = data(*leaking, "--output", output, "--test-corpus", leaking[1], code=1)
    assert "2 leaks of test data into training: 1 a test query's positive, 1 a test query" in said
    assert "positive 'd1' of query 'q1' is a test query's positive of" in said
    assert "query 'q2' is a test query of" in said
    assert "--leaks drop" in said
    assert not output.exists() and not Path(f"{output}.partial").exists()


def test_test_data_can_be_dropped_and_are_counted(leaking: list[Any], tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    dropping = ["--output", output, "--test-corpus", COLLECTION, "--leaks", "drop"]
    said = data(*leaking, *dropping, "--test-corpus", leaking[1])
    rows = rows_of(output)
    assert {row["id"] for row in rows} == {"q1", "q3"}
    assert all("d1" not in row["candidate_ids"] for row in rows if row["id"] == "q1")
    assert [row["candidate_ids"][row["gains"].index(1.0)] for row in rows if row["id"] == "q1"] == ["d2", "d2"]
    assert any("d1" in row["candidate_ids"] for row in rows if row["id"] == "q3")  # as a negative
    assert "2 leaks of 33 test queries: 1 a test query's positive, 1 a test query\n" in said
    assert "5 queries read, 2 dropped: 2 no document judged relevant\n" in said
    everything = data("--corpus", COLLECTION, "--run", run_of_all(tmp_path), *dropping, code=1)
    assert "no sample is left for" in everything and "32 test queries: 32 a test query" in everything
    assert len(rows_of(output)) == len(rows)  # what was there stays


def test_requests_are_test_data_as_well(tmp_path: Path) -> None:
    candidates = (Candidate("a", "Tetris"), Candidate("b", "Pong"))
    asked = [JudgedRequest(RankingRequest(query, candidates, task="item"), (1.0, 0.0)) for query in ("Doom", "Snake")]
    train, test, output = (tmp_path / name for name in ("train.jsonl", "test.jsonl", "out.parquet"))
    write_requests(train, asked)
    write_requests(test, asked[1:])
    given = ["--requests", train, "--as-given", "--strategy", "direct", "--output", output, "--test-corpus", test]
    assert "1 leak of test data into training: 1 a test query" in data(*given, code=1)
    data(*given, "--leaks", "drop")
    assert [row["id"] for row in rows_of(output)] == ["1"]


def run_of_all(folder: Path) -> Path:
    queries = open_corpus(COLLECTION).queries()
    write_run({query_id: (RunEntry("p001", 2.0), RunEntry("p002", 1.0)) for query_id in queries}, folder / "all")
    return folder / "all"


# --- held-out lists -------------------------------------------------------------------------------------------------


def test_what_training_shares_with_held_out_queries_is_dropped(tmp_path: Path) -> None:
    """Which are held out follows from their ids, not the seed; those that share a positive are not on both sides."""
    rows = [
        {
            "id": f"r{number}",
            "context": f"question {number // 2}",
            "candidates": [{"text": f"answer {number // 3}", "gain": 1}, {"text": f"other {number}"}],
        }
        for number in range(60)
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--requests", path, "--hold-out", 0.2, "--hold-out-output", tmp_path / "h", "--output"]
    data(*common, tmp_path / "other", "--seed", 5)
    other_seed = rows_of(tmp_path / "h")
    said = data(*common, tmp_path / "t")
    train, held = rows_of(tmp_path / "t"), rows_of(tmp_path / "h")
    count = len(held)
    assert {row["id"] for row in held} == {row["id"] for row in other_seed} and 4 <= count <= 20
    assert f"h: {count} samples (direct) of {count} queries; by list length 2: {count}" in said
    assert read_metadata(tmp_path / "h")["counts"]["samples"] == count
    dropped = [row for row in rows if row["id"] not in {each["id"] for each in [*train, *held]}]

    def positives(part: list[dict[str, Any]]) -> set[str]:
        return {row["candidates"][row["gains"].index(1.0)] for row in part}

    assert not {row["context"] for row in train} & {row["context"] for row in held}
    assert not positives(train) & positives(held)
    assert dropped
    assert f"{len(dropped)} shared with the held-out lists and dropped: " in said
    # Nothing is dropped without a reason.
    for row in dropped:
        assert row["context"] in {each["context"] for each in held} or row["candidates"][0]["text"] in positives(held)


def test_held_out_lists_are_no_test_queries(leaking: list[Any], tmp_path: Path) -> None:
    train, held = tmp_path / "t", tmp_path / "h"
    outputs = ["--output", train, "--hold-out-output", held]
    clean = [*leaking, *outputs, "--test-corpus", leaking[1], "--leaks", "drop"]
    said = data(*clean, "--hold-out", 0.999, code=1)
    assert "no sample is left for" in said and str(train) in said
    assert not held.exists()
    # The share that puts q2 (a test query) and q3 into the held-out lists, and q1 into training.
    data(*clean, "--hold-out", 0.76)
    assert {row["id"] for row in rows_of(held)} == {"q3"}
    assert {row["id"] for row in rows_of(train)} == {"q1"}
    assert "raise --hold-out" in data(*leaking, *outputs, "--hold-out", 0.001, code=1)


# --- other sources --------------------------------------------------------------------------------------------------


def test_requests_with_graded_gains(tmp_path: Path) -> None:
    path, out = tmp_path / "asked.jsonl", tmp_path / "out"
    lines = [
        {"context": "a", "task": "item", "candidates": [{"text": str(gain), "gain": gain} for gain in (0, 2, 0, 1)]},
        {"context": "b", "candidates": [{"text": "x"}, {"text": "y"}]},
        {"context": "c", "candidates": [{"text": "x", "gain": 1}, {"text": "y", "gain": 1}]},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = "3 queries read, 2 dropped: 1 no positive among the candidates, 1 no candidate of lower gain"
    assert told in data("--requests", path, "--strategy", "direct", "--output", out)
    assert [sorted(row["gains"]) for row in rows_of(out)] == [[0, 0, 1, 2], [0, 0, 1]]
    assert told in data("--requests", path, "--strategy", "setwise", "--as-given", "--source", "s", "--output", out)
    [row] = rows_of(out)
    assert (row["gains"], row["id"], row["source"], row["task"]) == ([0, 2, 0, 1], "1", "s", "item")
    path.write_text(path.read_text() + '{"context": "d"}\n')
    said = data("--requests", path, "--output", out, code=1)
    assert f"Error: {path}:4: field 'candidates' is missing" in said


def test_what_is_wanted_goes_from_the_request_to_the_prompt(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    items = RankingRequest(
        "Heat\nRonin", (Candidate("7", "Up"), Candidate("9", "Alien")), "item", "u1", "the next film"
    )
    models = RankingRequest("2 + 2?", (Candidate("s", "small"), Candidate("l", "large")), "model", "q1", "a low cost")
    write_requests(tmp_path / "asked.jsonl", [JudgedRequest(each, (0.0, 1.0)) for each in (items, models)])
    data("--requests", tmp_path / "asked.jsonl", "--as-given", "--strategy", "direct", "--output", tmp_path / "out")
    renderer = PromptRenderer(AutoTokenizer.from_pretrained(TINY_CHECKPOINT), load_template(), context_length=2000)
    rows = training_rows(read_samples([tmp_path / "out"]), renderer)
    prompts = Prompt(load_template(), renderer)
    for row, request, wanted in zip(rows, (items, models), ("the next film", "a low cost"), strict=True):
        assert row["aim"] == wanted and f"Wanted: {wanted}." in row["prompt"][-1]["content"]
        assert sample_of(row).record.request == request
        asked = prompts.ask("direct", request, [0, 1]).messages
        assert row["prompt"] == [{"role": turn.role, "content": turn.content} for turn in asked]


def test_ranking_bench_rows(tmp_path: Path) -> None:
    texts = ["Fleas live a year.", "Ticks wait.", "Bees dance."]
    block = "".join(f"passage {place}: {text}\n" for place, text in enumerate(texts))
    problem = f"## Here is a query: the age of fleas and candidate passages:\n{block}\nRank them."
    row = {"problem": problem, "gt": "passage 0", "candidates": texts, "task_name": "Passage-5"}
    path = tmp_path / "bench.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"gt": "passage 7"}) + "\n")
    said = data("--ranking-bench", path, "--output", tmp_path / "out", "--seed", 1)
    rows = rows_of(tmp_path / "out")
    assert [len(each["candidates"]) for each in rows] == [2, 3]
    assert all(each["candidate_ids"][each["gains"].index(1.0)] == "passage 0" for each in rows)
    assert "2 queries read, 1 dropped: 1 gt is not among the candidates" in said


@pytest.fixture
def traced(split_corpus: Path, tmp_path: Path) -> list[str]:
    """The command's words for two traces on q3 of the split corpus, whose positive is d4."""
    paths = [tmp_path / f"traces-{number}.jsonl" for number in (1, 2)]
    for path, outcome in zip(paths, ("d1", "d4"), strict=True):
        excluded = ("d1", "d4").index(outcome)
        step = Step((0, 1), (excluded,), f"not {outcome}", "", None, False, False, 0, Usage(1, 10, 5))
        candidates = Candidate("d1", "Fleas live a year."), Candidate("d4", "Bees dance.")
        with TraceWriter(path, "iterative") as writer:
            request = RankingRequest("bees", candidates, query_id="q3")
            writer.write(Ranking(request, (1 - excluded, excluded), (step,)))
    return ["--corpus", str(split_corpus), *(word for path in paths for word in ("--traces", str(path)))]


def test_steps_of_traces_that_fit_the_judgments_are_kept(traced: list[str], tmp_path: Path) -> None:
    output = tmp_path / "sft.parquet"
    said = data(*traced, "--output", output)
    [row] = read_completions(output)
    assert row["completion"] == "<think>\nnot d1\n</think>\n<answer>[1]</answer>"
    assert said == f"{output}: 1 of 2 steps kept; left out: 1 misses the judgments\n"
    assert data(*traced, "--output", output, "--quiet") == ""
    # The test split judges another query.
    assert "2 query without a judged candidate" in data(*traced, "--split", "test", "--output", output, code=1)


def test_options_of_traces_reach_the_selection(traced: list[str], split_corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "sft.parquet"
    options = ["--best", "2", "--min-ndcg", "0.5", "--test-corpus", str(split_corpus), "--leaks", "drop"]
    data(*traced, *options, "--split", "train", "--output", output)
    told = read_metadata(output)["arguments"]
    assert told == {
        **{"traces": ["traces-1.jsonl", "traces-2.jsonl"], "corpus": str(split_corpus), "split": "train"},
        **{"best": 2, "min_ndcg": 0.5, "test_corpora": [str(split_corpus)], "leaks": "drop"},
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--traces t", "--traces and --corpus go together"),
        ("--traces t --corpus c --run r", "--run does not go with --traces"),
        # Also where it says what holds anyway.
        ("--traces t --corpus c --strategy iterative", "--strategy does not go with --traces"),
        ("--traces t --corpus c --only-retrieved", "--add-positives/--only-retrieved does not go with --traces"),
        ("--requests f --best 1", "--best goes with --traces"),
        ("--traces t --corpus c --best 0", "Invalid value for '--best'"),
        ("--traces t --corpus c --min-ndcg 1.5", "Invalid value for '--min-ndcg'"),
        ("", "no source is given: give one of --corpus"),
        ("--corpus c --run r --requests f", "--corpus and --requests are given: give one of"),
        ("--corpus c", "--corpus and --run go together"),
        ("--requests f --run r", "--corpus and --run go together"),
        ("--requests f --split train", "--split is for folders"),
        ("--requests f --hold-out 0.1", "--hold-out and --hold-out-output go together"),
        ("--requests f --hold-out 1 --hold-out-output h", "--hold-out is 1.0"),
        ("--requests f --strategy windows --stride 20", "stride is 20"),
        ("--requests f --strategy windows --as-given", "as_given goes with"),
        ("--ranking-bench iterative --strategy setwise", "use --ranking-bench direct"),
    ],
)
def test_command_lines_that_make_no_sense(arguments: str, said: str) -> None:
    assert said in data(*arguments.split(), "--output", "out.parquet", code=2)
