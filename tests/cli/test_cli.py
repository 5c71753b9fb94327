"""The `r1ranker` command on the packaged collection, the embedded model and a server on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from servers import Serve, completion, refusal
from typer.testing import CliRunner

import r1ranker_ir
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.names import REGISTERED

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
COLLECTION = str(resources.files("r1ranker_ir") / "demo_collection")
SUMMARY = re.compile(
    r"^(\d+) queries, (\d+) calls, (\d+) tokens in, (\d+) tokens out, (\d+) repairs, [\d.]+ seconds", re.MULTILINE
)


def r1ranker(*arguments: str | Path, code: int = 0, stdin: str | None = None) -> Any:
    """Runs a verb in this process and checks its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result


def order_of(path: Path) -> dict[str, list[str]]:
    return {query_id: [entry.doc_id for entry in entries] for query_id, entries in read_run(path).items()}


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BM25's run of the packaged collection."""
    path = tmp_path_factory.mktemp("first") / "bm25.trec"
    r1ranker("search", "--corpus", COLLECTION, "--output", path)
    return path


# --- search and evaluate --------------------------------------------------------------------------------------------


def test_search_writes_a_run_and_says_what_it_did(tmp_path: Path) -> None:
    output = tmp_path / "run.trec.gz"
    result = r1ranker("search", "--corpus", COLLECTION, "--depth", "7", "--queries", "3", "--output", output)
    run = read_run(output)

    assert list(run) == ["q01", "q02", "q03"]
    assert all(len(entries) == 7 for entries in run.values())
    assert re.search(r"^3 queries, 21 documents, [\d.]+ seconds$", result.stderr, re.MULTILINE)
    assert result.stdout == ""


def test_search_to_standard_output_is_a_clean_run(tmp_path: Path) -> None:
    result = r1ranker("search", "--corpus", COLLECTION, "--depth", "2", "--queries", "2", "--output", "-")

    assert [line.split()[0] for line in result.stdout.splitlines()] == ["q01", "q01", "q02", "q02"]
    assert all(len(line.split()) == 6 and line.endswith(" bm25") for line in result.stdout.splitlines())


def test_search_reports_queries_without_hits(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "a flea"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "hit", "text": "flea"}\n{"_id": "none", "text": "zebra"}\n')
    result = r1ranker("search", "--corpus", tmp_path, "--output", tmp_path / "run")

    assert order_of(tmp_path / "run") == {"hit": ["d"]}
    assert "1 queries match no document and are not in the run: none" in result.stderr


def test_evaluate_prints_a_row_a_run_and_a_column_a_measure(first_stage: Path, tmp_path: Path) -> None:
    reversed_run = tmp_path / "a-run-with-a-[long]-name-that-must-not-be-cut-off-in-the-table-anywhere.trec"
    reversed_run.write_text("q01 Q0 p191 1 1 t\n")
    measures = "nDCG@10 RR(rel=2)@10 AP P@1 P@2 P@3 P@5 R@5 R@10 R@100 Success@10 Bpref Rprec"
    result = r1ranker("evaluate", "--corpus", COLLECTION, "--measures", measures, first_stage, reversed_run)
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]

    assert rows[0] == ["run", *measures.split()]
    assert [row[0] for row in rows[2:]] == [str(first_stage), str(reversed_run)]
    assert all(re.fullmatch(r"[01]\.\d{4}", cell) for row in rows[2:] for cell in row[1:])
    assert "31 of 32 judged queries have no results and count as 0" in result.stderr


def test_evaluate_gives_json_with_values_per_query(first_stage: Path) -> None:
    result = r1ranker("evaluate", "--corpus", COLLECTION, "--measures", "AP", "--format", "json", first_stage)
    [entry] = json.loads(result.stdout)

    assert entry["run"] == str(first_stage)
    assert len(entry["per_query"]) == 32
    assert entry["mean"]["AP"] == pytest.approx(sum(each["AP"] for each in entry["per_query"].values()) / 32)


def test_evaluate_reads_standard_input(first_stage: Path) -> None:
    piped = r1ranker("evaluate", "--corpus", COLLECTION, "-", stdin=first_stage.read_text())
    direct = r1ranker("evaluate", "--corpus", COLLECTION, first_stage)

    assert piped.stdout.splitlines()[-2].split()[1:] == direct.stdout.splitlines()[-2].split()[1:]


def test_evaluate_prints_the_known_figure_of_trec_dl_2019() -> None:
    folder = SHARED / "trec-dl-2019"
    if not folder.is_dir():
        pytest.skip("TREC DL 2019 is not beside this checkout (../shared/data/trec-dl-2019)")
    result = r1ranker("evaluate", "--corpus", folder, "--measures", "nDCG@10", folder / "run.bm25.trec")

    assert result.stdout.split()[-1] == "0.5058"


# --- rerank with the embedded model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("reranker", "calls"), [("r1ranker-iterative-tiny", 3), ("r1ranker-direct-tiny", 1)])
def test_rerank_orders_the_top_and_sums_up(first_stage: Path, tmp_path: Path, reranker: str, calls: int) -> None:
    output, trace = tmp_path / "out.trec", tmp_path / "trace.jsonl"
    result = r1ranker(
        *("rerank", "--corpus", COLLECTION, "--run", first_stage, "--depth", "4", "--queries", "3"),
        *("--reranker", reranker, "--output", output, "--save-traces", trace),
    )
    first, second = order_of(first_stage), order_of(output)

    assert list(second) == ["q01", "q02", "q03"]
    for query_id, doc_ids in second.items():
        assert sorted(doc_ids) == sorted(first[query_id][:4])
    assert [entry.score for entry in read_run(output)["q01"]] == [1.0, 0.75, 0.5, 0.25]
    assert output.read_text().split()[5] == reranker
    [summary] = SUMMARY.findall(result.stderr)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert list(map(int, summary)) == [
        3,
        3 * calls,
        sum(line["usage"]["prompt_tokens"] for line in lines),
        sum(line["usage"]["completion_tokens"] for line in lines),
        0,
    ]
    assert {line["query_id"]: line["order"] for line in lines} == second
    assert [len(line["steps"]) for line in lines] == [calls] * 3
    if calls == 3:
        assert second["q02"][1:] == [step["outcome"][0] for step in lines[1]["steps"]][::-1]
    # A prompt is known by its hash: another query or other passages are another one.
    hashes = [step["prompt_hash"] for line in lines for step in line["steps"]]
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in hashes)
    assert len(set(hashes)) == 3 * calls
    shown = r1ranker("trace", "show", "q02", "--trace", trace).stdout
    assert f"{calls} call" in shown
    assert all(doc_id in shown for doc_id in second["q02"])
    assert result.stdout == ""


def test_rerank_through_pipes_keeps_standard_output_clean(first_stage: Path, tmp_path: Path) -> None:
    result = r1ranker(
        *("rerank", "--corpus", COLLECTION, "--run", "-", "--depth", "2", "--queries", "2"),
        *("--reranker", "r1ranker-direct-tiny", "--output", "-"),
        stdin=first_stage.read_text(),
    )
    (tmp_path / "out").write_text(result.stdout)

    assert {query_id: len(ids) for query_id, ids in order_of(tmp_path / "out").items()} == {"q01": 2, "q02": 2}
    assert len(result.stdout.splitlines()) == 4
    assert SUMMARY.search(result.stderr)


def test_a_model_folder_with_a_strategy_is_the_same_as_its_name(first_stage: Path, tmp_path: Path) -> None:
    common = ("rerank", "--corpus", COLLECTION, "--run", first_stage, "--depth", "3", "--queries", "2")
    r1ranker(*common, "--reranker", "r1ranker-iterative-tiny", "--output", tmp_path / "a", "--quiet")
    r1ranker(*common, "--reranker", TINY_CHECKPOINT, "--strategy", "iterative", "--output", tmp_path / "b", "--quiet")
    r1ranker(
        *common, "--reranker", "r1ranker-iterative", "--model", TINY_CHECKPOINT, "--output", tmp_path / "c", "--quiet"
    )

    assert order_of(tmp_path / "a") == order_of(tmp_path / "b") == order_of(tmp_path / "c")


def test_batch_size_changes_no_byte_of_the_run(first_stage: Path, tmp_path: Path) -> None:
    for size in ("1", "4"):
        r1ranker(
            *("rerank", "--corpus", COLLECTION, "--run", first_stage, "--depth", "3", "--queries", "5"),
            *("--reranker", "r1ranker-iterative-tiny", "--output", tmp_path / size, "--batch-size", size, "--quiet"),
        )

    assert (tmp_path / "1").read_bytes() == (tmp_path / "4").read_bytes()


def test_memory_for_keys_and_values_changes_what_is_computed_and_no_byte_of_the_run(
    first_stage: Path, tmp_path: Path
) -> None:
    pattern = re.compile(r"(\d+) of the tokens in computed, ([\d.]+) MiB of keys and values kept at most")
    computed, sizes = [], []
    for size in ("1GiB", "4MiB", "0"):
        result = r1ranker(
            *("rerank", "--corpus", COLLECTION, "--run", first_stage, "--depth", "4", "--queries", "3", "--no-cache"),
            *("--reranker", "r1ranker-iterative-tiny", "--output", tmp_path / size, "--cache-memory", size),
        )
        summed, known = SUMMARY.search(result.stderr), pattern.search(result.stderr)
        assert summed is not None and (known is None) == (size == "0")
        computed.append(int(summed[3] if known is None else known[1]))
        sizes += [] if known is None else [float(known[2])]

    assert len({(tmp_path / size).read_bytes() for size in ("1GiB", "4MiB", "0")}) == 1
    assert computed == sorted(set(computed))
    assert sizes[0] > 4 >= sizes[1]


def test_quiet_says_nothing_and_shuffling_changes_what_the_model_sees(first_stage: Path, tmp_path: Path) -> None:
    shown = []
    for seed in ("1", "2", "1"):
        result = r1ranker(
            *("rerank", "--corpus", COLLECTION, "--run", first_stage, "--depth", "8", "--queries", "1"),
            *("--reranker", "r1ranker-direct-tiny", "--output", tmp_path / "out", "--shuffle", seed, "--quiet"),
            *("--trace", tmp_path / "trace"),
        )
        assert result.stdout == result.stderr == ""
        shown.append(json.loads((tmp_path / "trace").read_text())["steps"][0]["shown"])

    assert shown[0] == shown[2] != shown[1]
    assert sorted(shown[0]) == sorted(order_of(first_stage)["q01"][:8])


def test_missing_documents_stop_or_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("q01 Q0 p054 1 3 t\nq01 Q0 gone 2 2 t\nq01 Q0 p191 3 1 t\nq99 Q0 p054 1 3 t\n")
    common = ("rerank", "--corpus", COLLECTION, "--run", tmp_path / "run", "--reranker", "r1ranker-direct-tiny")
    stopped = r1ranker(*common, "--output", tmp_path / "out", code=1)
    skipped = r1ranker(*common, "--output", tmp_path / "out", "--missing", "skip")

    assert "Error: 1 documents of the run are not in corpus" in stopped.stderr
    assert ": gone." in stopped.stderr
    assert "are skipped: gone" in skipped.stderr
    assert "1 queries of the run are not in corpus" in skipped.stderr
    assert "q99" in skipped.stderr
    assert "31 queries of corpus" in skipped.stderr
    assert sorted(order_of(tmp_path / "out")["q01"]) == ["p054", "p191"]


# --- rerank with a server -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "R1RANKER_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def server_arguments(first_stage: Path, url: str, output: Path) -> list[str | Path]:
    # A folder without r1ranker.json stands for the defaults, and nothing is looked up on the hub.
    settings = first_stage.parent
    return [
        *("rerank", "--corpus", COLLECTION, "--run", first_stage, "--reranker", "served-name"),
        *("--strategy", "iterative", "--backend", "openai", "--base-url", url, "--output", output),
        *("--settings-from", settings),
    ]


def test_a_server_reranks_by_the_answers_that_it_gives(first_stage: Path, tmp_path: Path, serve: Serve) -> None:
    url = serve(completion("<think>The first.</think><answer>[1]</answer>", usage=(10, 2))).base_url
    result = r1ranker(*server_arguments(first_stage, url, tmp_path / "out"), "--depth", "4", "--queries", "2")

    first = order_of(first_stage)
    assert order_of(tmp_path / "out") == {query_id: first[query_id][:4][::-1] for query_id in ("q01", "q02")}
    assert SUMMARY.findall(result.stderr) == [("2", "6", "60", "12", "0")]


def test_a_server_is_asked_as_the_options_say(first_stage: Path, tmp_path: Path, serve: Serve) -> None:
    server = serve(refusal(429, "slow down", headers={"Retry-After": "0"}), completion())
    r1ranker(
        *server_arguments(first_stage, server.base_url, tmp_path / "out"),
        *("--depth", "2", "--queries", "1", "--seed", "none", "--temperature", "0.5", "--max-retries", "1"),
        *("--timeout", "60", "--extra-body", '{"top_p": 0.9}', "--option", "limit_field=max_completion_tokens"),
    )

    assert len(server.requests) == 2
    body = server.requests[-1].body
    assert (body["temperature"], body["top_p"], "seed" in body) == (0.5, 0.9, False)
    assert "max_completion_tokens" in body and "max_tokens" not in body


def test_a_failing_server_leaves_the_finished_queries_and_a_message(
    first_stage: Path, tmp_path: Path, serve: Serve
) -> None:
    url = serve(*[completion()] * 5, refusal(404, "no such model")).base_url
    result = r1ranker(
        *server_arguments(first_stage, url, tmp_path / "out"),
        *("--depth", "3", "--queries", "4", "--batch-size", "1"),
        code=1,
    )

    first = order_of(first_stage)
    kept = {query_id: [ids[0], ids[2], ids[1]] for query_id, ids in first.items() if query_id in ("q01", "q02")}
    assert order_of(tmp_path / "out.partial") == kept
    assert not (tmp_path / "out").exists()
    assert f"the 2 finished queries are kept in {tmp_path / 'out.partial'}" in result.stderr
    assert "Error: " in result.stderr and "no such model" in result.stderr
    assert "Traceback" not in result.output


def test_answers_that_can_not_be_used_are_counted_and_stop_a_run(
    first_stage: Path, tmp_path: Path, serve: Serve
) -> None:
    arguments = server_arguments(first_stage, serve(completion("I would rather not.")).base_url, tmp_path / "out")
    few = r1ranker(*arguments, "--depth", "3", "--queries", "2")
    many = r1ranker(*arguments, "--depth", "10", "--queries", "8", "--max-repair-rate", "0.5", code=1)

    assert SUMMARY.findall(few.stderr)[0][4] == "4"
    assert "had to be repaired" in many.stderr


# --- command lines that can't be meant ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reranker", "my-model"], "'my-model' is not a registered name"),
        (["--reranker", "my-model", "--strategy", "sideways"], "'sideways' is not one of"),
        (["--reranker", "my-model", "--strategy", "direct", "--model", "m"], "reranker 'my-model' names one already"),
        (["--reranker", "r1ranker-direct", "--strategy", "iterative"], "is the direct strategy"),
        (["--reranker", "r1ranker-direct-tiny", "--model", "m"], "always means the embedded model"),
        (["--reranker", "r1ranker-direct", "--base-url", "http://x/v1"], "only --backend openai calls a server"),
        (["--reranker", "r1ranker-direct", "--backend", "openai", "--device", "cpu"], "only --backend transformers"),
        (["--reranker", "r1ranker-direct", "--backend", "openai", "--cache-memory", "0"], "keeps keys and values"),
        (
            ["--reranker", "r1ranker-direct", "--cache-memory", "4 cows"],
            "is '4 cows': give bytes, or a size such as 4GiB",
        ),
        (["--reranker", "r1ranker-direct", "--depth", "0"], "Invalid value for '--depth'"),
        (["--reranker", "r1ranker-direct", "--verbose", "--quiet"], "choose one of --verbose and --quiet"),
        (["--reranker", "r1ranker-direct", "--missing", "ignore"], "'ignore' is not one of"),
        ([], "Missing option"),
    ],
)
def test_usage_errors_have_exit_code_2(arguments: list[str], said: str, first_stage: Path, tmp_path: Path) -> None:
    result = r1ranker(
        "rerank", "--corpus", COLLECTION, "--run", first_stage, "--output", tmp_path / "out", *arguments, code=2
    )

    assert said in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "--corpus", "no-such-corpus", "--output", "out"], "neither a folder that exists nor an ir_datas"),
        (["search", "--corpus", COLLECTION, "--output", "none/out"], "folder 'none' does not exist"),
        (["evaluate", "--corpus", COLLECTION, "none.trec"], "run file 'none.trec' does not exist"),
        (["evaluate", "--corpus", COLLECTION, "--measures", "nDCG@10 foo", "none.trec"], "measure 'foo' is unknown"),
        (["demo", "--query", "q77"], "the demo collection has no query 'q77'"),
    ],
)
def test_errors_of_ours_have_exit_code_1_and_no_traceback(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = r1ranker(*arguments, code=1)

    assert "Error: " in result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_malformed_run_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "bad.trec").write_text("q01 Q0 p054 1 3 t\nq01 Q0 p191 two 1 t\n")
    result = r1ranker("evaluate", "--corpus", COLLECTION, tmp_path / "bad.trec", code=1)

    assert f"Error: {tmp_path / 'bad.trec'}:2: rank 'two' is not a whole number" in result.stderr


def test_a_trace_that_can_not_be_written_stops_before_the_first_call(
    first_stage: Path, tmp_path: Path, serve: Serve
) -> None:
    server = serve(completion())
    result = r1ranker(*server_arguments(first_stage, server.base_url, tmp_path / "out"), "--trace", tmp_path, code=1)

    assert "choose another --save-traces" in result.stderr
    assert list(tmp_path.iterdir()) == [] and server.requests == []


# --- help, version, start-up ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["search", "rerank", "evaluate", "compare", "demo"])
def test_help_explains_every_option(verb: str) -> None:
    import typer

    command: Any = typer.main.get_command(app)
    text = " ".join(r1ranker(verb, "--help").stdout.split())
    for parameter in command.commands[verb].params:
        if parameter.name == "help":
            continue
        assert parameter.help, parameter.name
        assert parameter.opts[-1] in text or parameter.name in text
        if parameter.param_type_name == "option" and not parameter.is_flag:
            assert parameter.required or parameter.show_default is not False, parameter.name


def test_the_help_of_rerank_names_every_registered_reranker() -> None:
    text = re.sub(r"-\s+", "-", r1ranker("rerank", "--help").stdout)

    for name in REGISTERED:
        assert name in text


def test_the_version_is_the_packages() -> None:
    assert r1ranker("--version").stdout == f"r1ranker {r1ranker_ir.__version__}\n"


def test_help_and_usage_errors_load_no_heavy_library(tmp_path: Path) -> None:
    command = """
import sys
from r1ranker_ir.cli.app import app
try:
    app(["rerank", "--help"])
finally:
    heavy = {"torch", "transformers", "rerankers", "ir_datasets", "bm25s", "numpy", "openai"} & set(sys.modules)
    assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_three_commands_on_cranfield(tmp_path: Path, commands: Path) -> None:
    source = SHARED / "ir_datasets"
    if not source.is_dir():
        pytest.skip("the Cranfield files are not beside this checkout (../shared/data/ir_datasets)")
    home = tmp_path / "home"
    (home / "cranfield").mkdir(parents=True)
    for file in (source / "cranfield").iterdir():
        shutil.copyfile(file, home / "cranfield" / file.name)

    def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [commands / "r1ranker", *arguments]
        environment = os.environ | {"IR_DATASETS_HOME": str(home)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    searched = in_a_process("search", "--corpus", "cranfield", "--depth", "100", "--output", "bm25.trec")
    reranked = in_a_process(
        *("rerank", "--corpus", "cranfield", "--run", "bm25.trec", "--depth", "3", "--queries", "2"),
        *("--reranker", "r1ranker-iterative-tiny", "--output", "iranker.trec"),
    )
    evaluated = in_a_process(
        *("evaluate", "--corpus", "cranfield", "--measures", "nDCG@10 RR@10 AP", "bm25.trec", "iranker.trec")
    )

    assert searched.returncode == reranked.returncode == evaluated.returncode == 0, searched.stderr + reranked.stderr
    assert re.fullmatch(r"225 queries, 22500 documents, [\d.]+ seconds\n", searched.stderr)
    assert SUMMARY.fullmatch(SUMMARY.search(reranked.stderr).group()).group(1, 2) == ("2", "4")  # type: ignore[union-attr]
    assert searched.stdout == reranked.stdout == ""
    assert order_of(tmp_path / "iranker.trec").keys() == {"1", "2"}
    rows = [line.split() for line in evaluated.stdout.splitlines() if line.strip()]
    assert rows[0] == ["run", "nDCG@10", "RR@10", "AP"]
    assert rows[2] == ["bm25.trec", "0.3681", "0.7727", "0.3797"]
    assert rows[3][0] == "iranker.trec"


def test_the_demo_measures_three_stages_and_shows_an_elimination() -> None:
    result = r1ranker("demo", "--depth", "2", "--query", "q03")
    text = result.stdout

    stages = {name: line for line in text.splitlines() for name in ("BM25 ", "DRanker", "IRanker") if name in line}
    figures = {name: [float(cell) for cell in re.findall(r"\d+\.\d+", line)] for name, line in stages.items()}
    assert set(figures) == {"BM25 ", "DRanker", "IRanker"}
    assert [figures[name][2] for name in figures] == [0.0, 1.0, 1.0]
    assert all(0 < value <= 1 for row in figures.values() for value in row[:2])
    assert all(figures[name][3] > 0 for name in ("DRanker", "IRanker"))
    assert "It matches words, not\nmeaning" in text
    assert "Query q03: how does hail form in a thunderstorm" in text
    assert "Step 1 of 1: [1] p" in text
    assert re.search(r"excluded: \[[12]\], passage p\d+, probability \d\.\d\d", text)
    assert re.search(r"^   2\. p\d+  (grade \d|not judged) +\(BM25: [12]\)$", text, re.MULTILINE)
