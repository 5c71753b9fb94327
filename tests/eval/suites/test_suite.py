"""Suites on small collections made here, with the embedded model: what is written, and that it is written alike."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from commands import manifest_of, r1ranker, tree, write_corpus

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.eval.suites.data import read_judged_queries, search_first_stage
from r1ranker_ir.eval.suites.tables import (
    REQUEST_MEASURES,
    DataSet,
    choose_datasets,
    open_suite,
    read_suite,
    suite_names,
)
from r1ranker_ir.retrieval.first_stages import parse_first_stage

FAST = ("--reranker", "r1ranker-direct-tiny", "--depth", "3", "--max-thought-tokens", "0")
OF_CORPORA = ("trec-dl", "beir", "bright")
DOCUMENTS = {
    "d1": "fleas jump very high for their size",
    "d2": "a flea bites the dog and the cat",
    "d3": "ticks wait in long grass",
    "d4": "the cat sleeps on the mat",
    "q2": "how do ticks find a dog",
}
QUERIES = {"q1": "how high do fleas jump", "q2": "how do ticks find a dog", "q3": "zebra", "q4": "unjudged cat"}
QRELS = {("q1", "d1"): 2, ("q1", "d2"): 1, ("q2", "d3"): 1, ("q2", "d2"): -100, ("q3", "d4"): 1}
TABLE = """
title = "Two small collections"
measures = "nDCG@10 RR(rel=2)@10"
max_passage_tokens = 16
terms = "agree to nothing"

[datasets.small]
corpus = "{folder}"
documents = 5
queries = 3
query_is_no_result = true
excluded_grade = -100

[datasets.other]
corpus = "{folder}"
split = "dev"
max_passage_tokens = 12

[datasets.missing]
corpus = "beir/scifact/test"
index = "beir-v1.0.0-scifact.flat"

[groups]
both = ["small", "other"]

[[published]]
system = "BM25"
measure = "nDCG@10"
source = "a paper"
[published.values]
small = 0.5
other = 0.25
missing = 0.6789

[[published]]
system = "Ranker | 7B"
first_stage = "BM25, top 100"
measure = "nDCG@10"
source = "another paper"
[published.values]
small = 0.75
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data of this machine, no cache of this user, and downloads that fail at once."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "ir_datasets"))
    monkeypatch.setenv("R1RANKER_CACHE", str(tmp_path / "cache.sqlite"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("IR_DATASETS_DL_TRIES", "1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.chdir(tmp_path)


def write_collection(folder: Path) -> Path:
    write_corpus(folder, DOCUMENTS, QUERIES)
    (folder / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore\n", *(f"{q}\t{d}\t{grade}\n" for (q, d), grade in QRELS.items())]
    (folder / "qrels" / "test.tsv").write_text("".join(lines))
    (folder / "qrels" / "dev.tsv").write_text("q1\td2\t1\n")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TABLE.replace("{folder}", write_collection(tmp_path / "small").name))
    return path


def suite(*arguments: str | Path, code: int = 0) -> Any:
    return r1ranker("suite", *arguments, code=code)


# --- a run ----------------------------------------------------------------------------------------------------------


def test_two_runs_write_the_same_bytes_and_one_failure_stops_no_other(table: Path) -> None:
    said = suite(table, *FAST, "--first-stage", "bm25s", "--save-traces", "--output", "one", code=1).stderr
    first, own = tree(Path("one")), ("first-stage.trec", "reranked.trec", "traces.jsonl")
    files = {f"{name}/{file}" for name in ("other", "small") for file in own}
    assert set(first) == {"README.md", "manifest.json", "measures.json", *files}
    # What is needed is said for all of them before the first one starts.
    assert said.index("missing needs: ir_datasets downloads") < said.index("small: nDCG@10")
    assert "small needs: 5 documents, 3 queries; terms: agree to nothing" in said
    assert "2 of 3 data sets done" in said
    # From the cache, in another place, in another order of options, again in the same place, and without a cache.
    options = ("--save-traces", "--first-stage", "bm25s")
    suite(table, "--output", "two", *options, "--quiet", *FAST[4:], *FAST[:4], code=1)
    again = suite(table, *FAST, *options, "--output", "one", code=1)
    assert again.stderr.count("of them cached") == 2
    suite(table, *FAST, *options, "--output", "three", "--no-cache", code=1)
    assert tree(Path("one")) == tree(Path("two")) == tree(Path("three")) == first
    failed = manifest_of(Path("one"))["datasets"][2]
    assert "beir/scifact/test" in failed["failed"] and "missing needs: ir_datasets" in failed["failed"]
    assert failed["counts"] is None
    report = Path("one/README.md").read_text()
    assert "| missing | nDCG@10 | – | failed | 0.6789 | – |" in report
    assert "**Failed:** ir_datasets could not read" in report


def test_measures_manifest_and_report_agree_with_the_runs(table: Path, tmp_path: Path) -> None:
    suite(table, *FAST, "--datasets", "both", "--first-stage", "bm25s", "--output", "out")
    manifest, folder = manifest_of(Path("out")), Path("out")
    assert manifest["command"][:3] == ["r1ranker", "suite", str(table)]
    assert "--output" not in manifest["command"] and str(tmp_path / "out") not in json.dumps(manifest)
    assert set(manifest["files"]) == set(tree(folder)) - {"manifest.json"}
    assert manifest["reranker"]["identity"]["backend"] == "transformers"
    assert manifest["reranker"]["strategy"] == "direct"
    assert len(manifest["reranker"]["template"]["digest"]) == 16
    assert manifest["versions"]["r1ranker-ir"] == importlib.metadata.version("r1ranker-ir")
    assert manifest["hardware"]["cores"] > 0 and "torch_threads" in manifest["determinism"]
    small, other = manifest["datasets"]
    # The table's passage length, of the suite and of the data set.
    assert [small["max_passage_tokens"], other["max_passage_tokens"]] == [16, 12]
    assert small["judged_queries"] == small["run_queries"] == 3
    assert small["without_results"] == {"first-stage.trec": ["q3"], "reranked.trec": ["q3"]}
    assert set(small["checksums"]["files"]) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    assert set(other["checksums"]["files"]) == {"corpus.jsonl", "queries.jsonl", "qrels/dev.tsv"}
    assert small["counts"]["queries"] == 2
    assert small["counts"]["calls"] == 1  # the other query has one document left
    assert small["counts"]["prompt_tokens"] > 0
    run = read_run(folder / "small" / "first-stage.trec")
    assert list(run) == ["q1", "q2"]  # q4 is not judged
    # The query itself, and what a judgment excludes, are no results.
    assert [entry.doc_id for entry in run["q2"]] == ["d3"]
    assert "d2" in {entry.doc_id for entry in run["q1"]}
    written = json.loads((folder / "measures.json").read_text())
    measured = {each["dataset"]: {run["run"]: run for run in each["runs"]} for each in written}
    corpus = open_corpus(tmp_path / "small")
    counted = [qrel for qrel in corpus.qrels() if qrel.relevance > 0]
    measures = parse_measures("nDCG@10 RR(rel=2)@10")
    for name in ("first-stage.trec", "reranked.trec"):
        independent = evaluate(counted, read_run(folder / "small" / name), measures)
        assert measured["small"][name]["mean"] == {str(m): value for m, value in independent.mean.items()}
        assert measured["small"][name]["per_query"]["q3"] == {"nDCG@10": 0.0, "RR(rel=2)@10": 0.0}
    ours = measured["small"]["reranked.trec"]["mean"]["nDCG@10"]
    theirs = measured["small"]["first-stage.trec"]["mean"]["nDCG@10"]
    report = (folder / "README.md").read_text()
    assert f"| small | nDCG@10 | {theirs:.4f} | {ours:.4f} | 0.5000 | 0.7500 |" in report
    assert "Ranker \\| 7B over BM25, top 100 [2]" in report and "2. another paper" in report
    assert "1 of 3 judged queries have no results and count as 0: q3." in report
    means = next(line for line in report.splitlines() if line.startswith("| both, mean of 2 "))
    assert means.split("|")[5].strip() == "0.3750"  # of 0.5 and 0.25


def test_a_folder_is_a_suite(table: Path) -> None:
    said = suite("small", *FAST, "--queries", "1", "--measures", "P@1").stderr
    folder = Path("runs/small-r1ranker-direct-tiny")
    assert "first 1 were run" in (folder / "README.md").read_text()
    assert "no results in the run" not in said  # the other queries were not asked for
    [dataset] = manifest_of(folder)["datasets"]
    assert (dataset["measures"], dataset["judged_queries"], dataset["run_queries"]) == (["P@1"], 3, 1)
    assert dataset["max_passage_tokens"] == 64  # the embedded checkpoint's own


def test_a_run_file_of_each_data_set_is_a_first_stage(table: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("small", "other"):
        (tmp_path / "runs" / f"{name}.trec").write_text("q1 Q0 d4 1 3 x\nq1 Q0 d1 2 2 x\nq9 Q0 d1 1 1 x\n")
    suite(table, *FAST, "--datasets", "small,other", "--first-stage", "run:runs/{dataset}.trec", "--output", "out")
    assert [entry.doc_id for entry in read_run("out/small/first-stage.trec")["q1"]] == ["d4", "d1"]
    manifest = manifest_of(Path("out"))
    assert [each["first_stage"] for each in manifest["datasets"]] == ["run:runs/small.trec", "run:runs/other.trec"]
    assert len(manifest["datasets"][0]["checksums"]["first_stage_run"]) == 64
    # A run of the wrong corpus fails like a missing source, before any model is asked.
    Path("runs/small.trec").write_text("q9 Q0 d1 1 1 x\n")
    suite(table, *FAST, "--datasets", "both", "--first-stage", "run:runs/{dataset}.trec", "--output", "wrong", code=1)
    small, other = manifest_of(Path("wrong"))["datasets"]
    assert small["failed"] and other["failed"] is None


def test_what_a_model_fails_at_keeps_the_first_stage(table: Path) -> None:
    result = suite(
        *(table, "--reranker", "r1ranker-direct", "--model", "./no-such-model", "--first-stage", "bm25s"),
        *("--datasets", "both", "--output", "out"),
        code=1,
    )
    assert "no-such-model" in result.stderr
    [small] = manifest_of(Path("out"))["datasets"]  # the next one would fail alike
    assert "no-such-model" in small["failed"]
    assert "| first stage (here) | 0." in Path("out/README.md").read_text()
    assert len(read_run("out/small/first-stage.trec")) == 2


# --- the folder -----------------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_command(table: Path) -> None:
    first = ("small", *FAST, "--first-stage", "run:one.trec", "--output", "out")
    Path("one.trec").write_text("q1 Q0 d4 1 3 x\n")
    suite(*first)
    Path("out/notes.txt").write_text("mine")
    before = tree(Path("out"))
    refused = suite("small", "--reranker", "r1ranker-direct-tiny", "--depth", "2", "--output", "out", code=1)
    assert "was made by another command: r1ranker suite small" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert tree(Path("out")) == before
    suite(*first)
    assert tree(Path("out")) == before
    Path("two.trec").write_text("q1 Q0 d1 1 3 x\n")
    Path("out/small/stray.trec").write_text("")
    suite(table, *FAST, "--datasets", "other", "--first-stage", "run:two.trec", "--output", "out", "--overwrite")
    # What the other command's manifest lists is gone; what it does not know is not touched.
    assert {"notes.txt", "small/stray.trec", "other/reranked.trec"} <= set(tree(Path("out")))
    assert "small/reranked.trec" not in tree(Path("out"))


def test_an_interrupted_command_is_known_again(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (table, *FAST, "--datasets", "both", "--first-stage", "bm25s", "--output", "out")
    suite(*command)
    whole = tree(Path("out"))

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for stop in ("_search", "_rerank"):
        shutil.rmtree("out")
        with monkeypatch.context() as patched:
            patched.setattr(f"r1ranker_ir.eval.suites.suite.{stop}", interrupt)
            suite(*command, code=130)
        assert set(tree(Path("out"))) <= {"manifest.json", "small/first-stage.trec"}
        suite(*command)
        assert tree(Path("out")) == whole


def test_a_folder_of_something_else_is_not_used(table: Path) -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("x")
    assert "is not empty" in suite("small", *FAST, "--output", "out", code=1).stderr
    assert "File exists" in suite("small", *FAST, "--output", "out/thesis.tex", code=1).stderr
    Path("out/manifest.json").write_text(json.dumps({"command": ["x"], "files": {"../small/corpus.jsonl": ""}}))
    Path("one.trec").write_text("q1 Q0 d4 1 3 x\n")
    suite("small", *FAST, "--first-stage", "run:one.trec", "--output", "out", "--overwrite")
    assert Path("small/corpus.jsonl").is_file()


# --- commands that can't be run -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("small",), 2, "--reranker"),
        ((*FAST,), 2, "SUITE"),
        (("no-such-corpus", *FAST), 1, "The suites are beir, bright, ranking-bench, trec-dl"),
        (("small", *FAST, "--first-stage", "pyserini:bm25"), 1, "has none: use bm25s"),
        (("small", *FAST, "--first-stage", "bm26"), 1, "'bm26' is unknown"),
        (("small", *FAST, "--measures", "nDCG@"), 1, "can't be computed"),
        (("two.toml", *FAST, "--datasets", "smal"), 1, "close: small"),
        (("beir", *FAST, "--datasets", "cqadupstack-andriod"), 1, "close: cqadupstack-android"),
        (("small", *FAST, "--cache", "x", "--no-cache"), 2, "--no-cache"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(
    table: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert message in " ".join(suite(*arguments, "--output", "out", code=code).stderr.split())
    assert not Path("out").exists()


def test_issue_commands_name_what_is_missing_and_go_on() -> None:
    options = ("--reranker", "r1ranker-iterative", "--first-stage", "pyserini:bm25")
    said = suite("trec-dl", *options, "--depth", "100", code=1).stderr
    assert "dl19 needs: 8,841,823 documents, 43 queries" in said and "microsoft.github.io/msmarco" in said
    assert said.count("could not read") == 2 and "0 of 2 data sets done" in said
    said = suite("beir", "--datasets", "scifact,nfcorpus", *options, code=1).stderr
    needs = "scifact needs: 5,183 documents, 300 queries; ir_datasets downloads beir/scifact/test, and Pyserini beir"
    assert needs in said and said.count("could not read") == 2
    assert "| scifact | nDCG@10 | – | failed | 0.6789 |" in Path("runs/beir-r1ranker-iterative/README.md").read_text()


# --- tables ---------------------------------------------------------------------------------------------------------


def test_packaged_suites_agree_with_the_catalogue() -> None:
    import ir_datasets

    assert set(suite_names()) == {*OF_CORPORA, "ranking-bench"}
    assert [len(open_suite(name).datasets) for name in OF_CORPORA] == [2, 25, 12]
    for dataset in (dataset for name in OF_CORPORA for dataset in open_suite(name).datasets):
        parent = ir_datasets.load(ir_datasets.corpus_id(dataset.corpus))
        assert parent.metadata()["docs"]["count"] == dataset.documents, dataset.name
        assert ir_datasets.load(dataset.corpus).metadata()["queries"]["count"] == dataset.queries, dataset.name
        assert dataset.terms and dataset.index
        bm25 = [figure for figure in dataset.published if figure.system == "BM25"]
        assert {str(parse_measures(figure.measure)[0]) for figure in bm25} <= set(dataset.measures.split())
        assert len(bm25) == 2, dataset.name


def test_packaged_suites_agree_with_pyserini() -> None:
    pytest.importorskip("pyserini", reason="Pyserini is not installed: its indexes and figures can't be looked up")
    import yaml

    folder = resources.files("pyserini") / "resources" / "jars"
    [jar] = [path for path in folder.iterdir() if path.name.endswith("-fatjar.jar")]
    with resources.as_file(jar) as path, zipfile.ZipFile(path) as archive:
        for whole in map(open_suite, OF_CORPORA):
            for dataset in whole.datasets:
                config = {"trec-dl": f"{dataset.name}-passage"}.get(whole.name, dataset.index)
                content = archive.read(f"reproduce/from-document-collection/configs/{config}.yaml")
                results = yaml.safe_load(content)["models"][0]["results"]
                for figure in dataset.published:
                    if figure.system == "BM25":
                        theirs = results[figure.measure.replace("(rel=2)", "")][0]
                        assert figure.value == theirs, (dataset.name, figure.measure)


def test_ids_and_groups_of_a_suite_bring_their_settings() -> None:
    whole = open_suite("beir/scifact/test")
    [dataset] = whole.datasets
    assert (dataset.name, dataset.index, whole.first_stage) == ("scifact", "beir-v1.0.0-scifact.flat", "pyserini:bm25")
    assert open_suite("cranfield").datasets == (DataSet(name="cranfield", corpus="cranfield"),)
    beir = open_suite("beir")
    assert len(choose_datasets(beir, ["cqadupstack", "scifact"]).datasets) == 13
    assert choose_datasets(beir, ["cqadupstack"]).groups.keys() == {"cqadupstack"}
    assert not choose_datasets(beir, ["cqadupstack-tex"]).groups
    bench = open_suite("ranking-bench")
    assert all(each.is_of_requests and each.measures == REQUEST_MEASURES for each in bench.datasets)
    assert [each.name for each in choose_datasets(bench, ["passages"]).datasets] == [f"passage-{n}" for n in (5, 7, 9)]


def test_list_shows_sizes_and_terms() -> None:
    shown = suite("--list").output
    assert "5,183" in shown and "CC BY 4.0" in shown
    assert "ulab-ai/Ranking-bench, direct, test: Router-Cost" in shown
    assert "scifact" not in suite("bright", "--list").output


FIGURES = "[datasets.a]\ncorpus = 'a'\n[[published]]\nsystem = 's'\nmeasure = 'AP'\nsource = 'x'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "not valid TOML"),
        ("[datasets]", "field 'datasets' is {}: give at least 1"),
        ("[datasets.a]\ncorpus = 'a'\nqueris = 1", "field 'datasets.a.queris' is unknown: did you mean 'queries'?"),
        ("[groups]\nb = 'a'\n[datasets.a]\ncorpus = 'a'", "field 'groups.b' is 'a': give a list"),
        ("depth = 3\n[datasets.a]\ncorpus = 'a'", "field 'depth' is unknown: use "),
        ("title = 'a'", "field 'datasets' is missing"),
        ("[datasets.a]\nindex = 'a'", "field 'datasets.a.corpus' is missing"),
        ("[datasets.a]\ncorpus = 3", "field 'datasets.a.corpus' is 3: give a text"),
        ("[datasets.a]\ncorpus = 'a'\nquery_is_no_result = 1", "is 1: give true or false"),
        ("[datasets.'../a']\ncorpus = 'a'", "a name becomes a folder"),
        ("[datasets.'..']\ncorpus = 'a'", "a name becomes a folder"),
        ("[groups]\nb = ['c']\n[datasets.a]\ncorpus = 'a'", "no data set 'c'"),
        ("[datasets.a]\ncorpus = 'a'\n[[published]]\nsystem = 's'", "field 'published[0].measure' is missing"),
        (f"{FIGURES}values = {{a = 5.5}}", "field 'published[0].values.a' is 5.5: give at most 1"),
        (f"{FIGURES}values = {{b = 0.5}}", "no data set 'b'"),
    ],
)
def test_malformed_tables_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataFileError, match=r"mine\.toml") as caught:
        read_suite(text, "mine.toml")
    assert message in str(caught.value)


# --- data -----------------------------------------------------------------------------------------------------------


def test_excluded_documents_do_not_shorten_a_run(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path / "small"))
    dataset = DataSet(name="small", corpus=corpus.name, query_is_no_result=True, excluded_grade=-100)
    judged = read_judged_queries(corpus, dataset)
    assert judged.excluded["q2"] == {"q2", "d2"}
    run = search_first_stage(parse_first_stage("bm25s"), corpus, judged, 1)
    found = {query_id: [entry.doc_id for entry in entries] for query_id, entries in run.items()}
    assert found == {"q1": ["d1"], "q2": ["d3"]}


def test_a_corpus_without_judgments_is_refused(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "small")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(InputError, match="is judged"):
        read_judged_queries(open_corpus(folder), DataSet(name="small", corpus=str(folder)))


def write_bright(home: Path) -> None:
    """BRIGHT's pony in BRIGHT's own columns, but with texts made here; there are no others to be had offline."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: BRIGHT is in Parquet files")
    import pyarrow

    catalogue = json.loads((resources.files("ir_datasets") / "etc" / "downloads.json").read_text())["bright"]
    query = {"id": "7", "query": QUERIES["q2"], "reasoning": "", "gold_answer": "", "gold_ids_long": ["x"]}
    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in catalogue if key.startswith("pony/")}
    rows |= {key: [{"id": "7", "reasoning": "none"}] for key in rows if key.endswith("_reason/queries")}
    rows["pony/docs"] = [{"id": key, "content": text} for key, text in DOCUMENTS.items()]
    rows["pony/queries"] = [query | {"gold_ids": ["d3"], "excluded_ids": ["q2", "N/A"]}]
    home.mkdir(parents=True)
    for key, content in rows.items():
        parquet.write_table(pyarrow.Table.from_pylist(content), home / catalogue[key]["cache_path"])


def test_ids_of_the_catalogue_are_run(tmp_path: Path, light_commands: Path) -> None:
    write_bright(tmp_path / "ir_datasets" / "bright")
    # In a process of its own: ir_datasets keeps the home that it first saw.
    command = [light_commands / "r1ranker", "suite", "bright", *FAST, "--datasets", "pony"]
    done = subprocess.run([*command, "--first-stage", "bm25s"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "bright-r1ranker-direct-tiny"
    [pony] = manifest_of(folder)["datasets"]
    assert (pony["judged_queries"], pony["max_passage_tokens"]) == (1, 512)
    # The query's own text matches best; BRIGHT's excluded_ids name it.
    assert [entry.doc_id for entry in read_run(folder / "pony" / "first-stage.trec")["7"]] == ["d2", "d3"]
    assert "| BM25 [1] | 0.0434 | 0.1722 |" in (folder / "README.md").read_text()
