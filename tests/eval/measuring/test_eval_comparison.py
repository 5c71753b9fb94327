"""Runs against a baseline: figures by hand and by scipy, what is said of them, forms of the report, and pictures."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import Qrel
from typer.testing import CliRunner

from r1ranker_ir.cli.app import app
from r1ranker_ir.data.trec_runs import RunEntry, read_run, write_run
from r1ranker_ir.errors import DataFileError, InputError, MissingExtraError
from r1ranker_ir.eval.measuring.calls import read_calls
from r1ranker_ir.eval.measuring.comparison import Comparison, ComparisonSettings, check_comparable, compare_runs
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.eval.measuring.run_names import short_names
from r1ranker_ir.eval.output.comparison_plots import plot_calls, plot_differences, prepare_folder, write_pictures
from r1ranker_ir.eval.output.comparison_report import FORMATS, as_csv, as_json, as_markdown, as_text, notes

COLLECTION = str(resources.files("r1ranker_ir") / "demo_collection")
QUERIES = [f"q{number}" for number in range(1, 7)]
QRELS = [Qrel(query_id, doc_id, grade) for query_id in QUERIES for doc_id, grade in (("a", 1), ("b", 0))]
# Where the relevant document stands, by query; 0 where nothing was found.
BASELINE = dict(zip(QUERIES, [2, 2, 1, 2, 0, 1], strict=True))
BETTER = dict(zip(QUERIES, [1, 1, 1, 1, 0, 2], strict=True))

Places = Mapping[str, int]


def run_of(places: Places) -> dict[str, tuple[RunEntry, ...]]:
    """A run with the relevant document at these ranks."""
    run = {}
    for query_id, place in places.items():
        if place:
            ids = [f"x{number}" for number in range(1, place)] + ["a"]
            run[query_id] = tuple(RunEntry(doc_id, float(-number)) for number, doc_id in enumerate(ids))
    return run


def compared(
    runs: Mapping[str, Places], measures: str = "RR@10", qrels: list[Qrel] = QRELS, **options: Any
) -> Comparison:
    parsed = parse_measures(measures)
    evaluations = {name: evaluate(qrels, run_of(places), parsed, name=name) for name, places in runs.items()}
    calls = options.pop("calls", None)
    return compare_runs(evaluations, next(iter(runs)), ComparisonSettings(**options), calls=calls)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- figures --------------------------------------------------------------------------------------------------------


def test_differences_are_counted_query_by_query() -> None:
    found = compared({"bm25": BASELINE, "mine": BETTER})
    [difference] = found.differences
    # 1/2 to 1 three times, 1 to 1/2 once, one tie at 1 and one at 0.
    assert list(difference.per_query.values()) == [0.5, 0.5, 0.0, 0.5, 0.0, -0.5]
    assert (difference.wins, difference.ties, difference.losses) == (3, 2, 1)
    assert difference.mean.mean == pytest.approx(1 / 6)
    assert found.baseline.means[found.measures[0]].mean == pytest.approx(3.5 / 6)
    assert found.runs[0].means[found.measures[0]].mean == pytest.approx(4.5 / 6)
    assert difference.relative == pytest.approx(1 / 3.5)
    assert difference.p_value == pytest.approx(
        scipy.stats.ttest_rel([1, 1, 1, 1, 0, 0.5], [0.5, 0.5, 1, 0.5, 0, 1]).pvalue
    )
    interval = difference.mean.interval
    assert interval is not None
    t_test = scipy.stats.ttest_1samp(list(difference.per_query.values()), 0)
    assert interval == pytest.approx(tuple(t_test.confidence_interval(0.95)))


def test_the_correction_is_over_all_runs_and_measures() -> None:
    worse = dict.fromkeys(QUERIES, 2)
    runs = {"bm25": BASELINE, "mine": BETTER, "worse": worse}
    found = compared(runs, "RR@10 P@1", correction="bonferroni")
    pairs = [(run, measure) for measure in ("RR@10", "P@1") for run in ("mine", "worse")]
    assert [(each.run, str(each.measure)) for each in found.differences] == pairs
    for difference in found.differences:
        assert difference.corrected == pytest.approx(min(1, 4 * difference.p_value))
    alone = compared({"bm25": BASELINE, "mine": BETTER}, correction="bonferroni").differences[0]
    assert alone.corrected == alone.p_value == found.differences[0].p_value
    assert "Bonferroni's correction over 4 tests (2 runs × 2 measures)" in notes(found)[0]


def test_significance_is_judged_by_the_corrected_p_value() -> None:
    queries = [f"q{number}" for number in range(20)]
    qrels = [Qrel(query_id, "a", 1) for query_id in queries]
    first, second = dict.fromkeys(queries, 2), {**dict.fromkeys(queries, 1), "q0": 3, "q1": 2}
    for alpha in (0.05, 1e-9):
        [difference] = compared({"bm25": first, "mine": second}, qrels=qrels, alpha=alpha).differences
        assert difference.significant is (difference.corrected <= alpha)
    assert difference.p_value < 0.001


def test_queries_without_results_count_as_zero_and_are_said() -> None:
    places = {**BETTER, "q1": 0}
    found = compared({"bm25": BASELINE, "mine": {**places, "q99": 1}})
    assert found.queries == 6
    assert found.differences[0].per_query["q1"] == -0.5
    assert found.differences[0].per_query["q5"] == 0
    said = "\n".join(notes(found))
    assert "bm25: 1 judged query has no results, which counts as 0: q5." in said
    assert "mine: 2 judged queries have no results, which counts as 0: q1, q5." in said
    assert "1 judged query is in no run: equal, at 0, in all of them." in said
    assert "mine: 1 query is not judged, which counts for nothing: q99." in said


def test_rounding_errors_are_no_differences() -> None:
    measures = parse_measures("RR@10")
    evaluation = evaluate(QRELS, run_of(BASELINE), measures)
    shifted = {query_id: {measures[0]: row[measures[0]] + 1e-15} for query_id, row in evaluation.per_query.items()}
    other = type(evaluation)(evaluation.mean, shifted, (), ())
    [difference] = compare_runs({"bm25": evaluation, "mine": other}, "bm25").differences
    assert (difference.wins, difference.ties, difference.losses) == (0, 6, 0)
    assert difference.p_value == 1


@pytest.mark.parametrize("test", ["ttest", "randomisation"])
@pytest.mark.parametrize(
    ("baseline", "other", "p_values"),
    [
        (BASELINE, BASELINE, (1, 1)),
        ({}, {}, (1, 1)),
        (dict.fromkeys(QUERIES, 2), dict.fromkeys(QUERIES, 1), (0, 2 / 2**6)),
    ],
    ids=["same", "empty", "constant"],
)
def test_degenerate_runs_have_figures_all_the_same(
    test: str, baseline: Places, other: Places, p_values: tuple[float, float]
) -> None:
    found = compared({"bm25": baseline, "mine": other}, "RR@10 AP Bpref", test=test)
    difference = found.differences[0]
    assert difference.p_value == pytest.approx(p_values[test == "randomisation"])
    interval = difference.mean.interval
    assert interval is not None
    assert interval.low == interval.high == difference.mean.mean
    for form in FORMATS.values():
        assert "nan" not in form(found).lower()
    said = "mine differs by the same RR@10 in each query" in "\n".join(notes(found))
    assert said is (difference.p_value == 0)


def test_one_query_says_nothing_about_others() -> None:
    qrels = [Qrel("q1", "a", 1)]
    for test in ("ttest", "randomisation"):
        found = compared({"bm25": {"q1": 2}, "mine": {"q1": 1}}, qrels=qrels, test=test)
        [difference] = found.differences
        assert (difference.p_value, difference.mean.mean, difference.mean.interval) == (1, 0.5, None)
        assert "One query says nothing about others" in as_text(found)
        assert "nan" not in "".join(form(found) for form in FORMATS.values()).lower()
        assert next(csv.DictReader(io.StringIO(as_csv(found))))["mean_low"] == ""


def test_a_baseline_of_zero_has_no_relative_difference() -> None:
    [difference] = compared({"bm25": {}, "mine": BETTER}).differences
    assert (difference.relative, difference.mean.mean) == (None, pytest.approx(4.5 / 6))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6))
def test_swapping_run_and_baseline_turns_the_signs_and_nothing_else(pairs: list[tuple[int, int]]) -> None:
    qrels = [Qrel(f"q{number}", "a", 1) for number in range(len(pairs))]
    first, second = ({f"q{number}": pair[side] for number, pair in enumerate(pairs)} for side in (0, 1))
    for test in ("ttest", "randomisation"):
        [there] = compared({"a": first, "b": second}, "RR@3", qrels, test=test, resamples=100).differences
        [back] = compared({"b": second, "a": first}, "RR@3", qrels, test=test, resamples=100).differences
        assert there.mean.mean == pytest.approx(-back.mean.mean)
        assert there.p_value == pytest.approx(back.p_value)
        assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
        assert there.wins + there.ties + there.losses == len(pairs)


# --- runs of some of the queries --------------------------------------------------------------------------------------


def test_what_a_correction_takes_away_is_said_where_the_interval_leaves_out_0() -> None:
    queries = [f"q{number}" for number in range(10)]
    qrels = [Qrel(query_id, "a", 1) for query_id in queries]
    baseline = dict.fromkeys(queries, 2)
    better = baseline | dict(zip(queries, (1, 1, 1, 1, 1, 1, 3), strict=False))
    runs = {"a": baseline, "b": better, "c": baseline, "d": baseline}
    found = compared(runs, "RR@10 AP", qrels)
    difference = found.differences[0]
    assert difference.p_value < 0.05 < difference.corrected and not difference.significant
    assert any(
        note.startswith("b, RR@10; b, AP: the interval leaves out 0") and "p (Holm) is what counts" in note
        for note in notes(found)
    )


def test_nothing_is_marked_between_runs_of_different_queries() -> None:
    queries = [f"q{number}" for number in range(40)]
    qrels = [Qrel(query_id, "a", 1) for query_id in queries]
    whole, few = dict.fromkeys(queries, 1), dict.fromkeys(queries[:10], 1)
    found = compared(
        {"whole": whole, "few": few, "worse": dict.fromkeys(queries[:39], 5) | {queries[39]: 6}}, qrels=qrels
    )
    few_row, worse = found.differences
    assert few_row.corrected < 0.05 and not few_row.significant and not few_row.same_queries
    assert worse.significant and worse.same_queries
    [note] = [note for note in notes(found) if note.startswith("No star")]
    assert note.startswith("No star for few: it has results for other queries than whole")
    assert "over the 10 queries that all runs have" in note
    assert json.loads(as_json(found))["differences"][0]["significant"] is False


def judged_files(folder: Path, counts: Mapping[str, int]) -> None:
    """Runs of the packaged collection, BM25's top 5 of so many queries each."""
    r1ranker("search", "--corpus", COLLECTION, "--depth", "5", "--output", folder / "all")
    run = read_run(folder / "all")
    for name, count in counts.items():
        ids = list(run)[-count:] if name.startswith("last") else list(run)[:count]
        write_run({query_id: run[query_id] for query_id in ids}, folder / name, tag=name)


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_queries_that_a_run_lacks_are_told_and_can_be_left_out(verb: str, tmp_path: Path) -> None:
    judged_files(tmp_path, {"twenty": 20, "last15": 15})
    all_, twenty, last = (tmp_path / name for name in ("all", "twenty", "last15"))
    files = ("--baseline", all_, twenty, last) if verb == "compare" else (all_, twenty, last)
    common = (verb, "--corpus", COLLECTION, "--measures", "nDCG@5", "--format", "json")
    told = r1ranker(*common, *files)
    assert "12 of 32 judged queries have no results and count as 0" in told.stderr
    assert "--only-run-queries measures over the 3 that all runs have" in told.stderr
    alone = r1ranker(*common, "--only-run-queries", *files)
    assert "count as 0" not in alone.stderr
    content = json.loads(alone.stdout)
    if verb == "compare":
        assert (content["queries"], content["judged_queries"]) == (3, 32)
        assert "Only the 3 of 32 judged queries count that all runs have results for" in " ".join(content["notes"])
        assert [each["missing"] for each in content["runs"]] == [[], [], []]
        means = [each["means"]["nDCG@5"]["mean"] for each in content["runs"]]
    else:
        assert "measured over 3 of 32 judged queries: those that all runs have" in alone.stderr
        assert [list(each["per_query"]) for each in content] == [["q18", "q19", "q20"]] * 3
        means = [each["mean"]["nDCG@5"] for each in content]
    assert means[0] == means[1] == means[2] > 0


def test_runs_without_a_query_in_common_are_named(tmp_path: Path) -> None:
    judged_files(tmp_path, {"five": 5, "last6": 6})
    result = r1ranker(
        *("evaluate", "--corpus", COLLECTION, "--only-run-queries", tmp_path / "five", tmp_path / "last6"), code=1
    )
    assert "none of the 32 judged queries has results in all runs" in result.stderr
    assert "five: 5" in result.stderr and "last6: 6" in result.stderr


# --- what can't be compared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["NumQ", "NumRel", "NumRet"])
def test_counts_that_are_no_matter_of_quality_are_refused(measure: str) -> None:
    with pytest.raises(InputError, match=f"measure '{measure}' counts the"):
        check_comparable(parse_measures(f"nDCG@10 {measure}"))
    with pytest.raises(InputError, match=f"measure '{measure}' counts the"):
        compared({"bm25": BASELINE, "mine": BETTER}, measure)


def test_counts_of_relevant_documents_are_means_and_judged_is_explained() -> None:
    found = compared({"bm25": BASELINE, "mine": BETTER}, "NumRet(rel=1) Judged@10")
    assert found.baseline.means[found.measures[0]].mean == pytest.approx(5 / 6)
    assert "NumRet(rel=1) is shown as the mean over the queries" in as_text(found)
    assert "Judged@10 says how much of a run is judged, not how good the run is" in as_text(found)


def test_runs_that_were_measured_differently_are_refused() -> None:
    one = evaluate(QRELS, run_of(BASELINE), parse_measures("RR@10"))
    with pytest.raises(InputError, match="measured differently"):
        compare_runs({"a": one, "b": evaluate(QRELS, run_of(BETTER), parse_measures("AP"))}, "a")
    with pytest.raises(InputError, match="measured differently"):
        compare_runs({"a": one, "b": evaluate(QRELS[:4], run_of(BETTER), parse_measures("RR@10"))}, "a")
    for evaluations, baseline in (({"a": one}, "a"), ({"a": one, "b": one}, "c")):
        with pytest.raises(InputError, match="nothing to compare"):
            compare_runs(evaluations, baseline)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": float("nan")}, {"resamples": 5}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ComparisonSettings(**wrong)


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> Comparison:
    return compared({"bm|25": BASELINE, "[mine]": BETTER}, "RR@10 P@1", calls={"bm|25": 0.0, "[mine]": 9.0})


def test_text_holds_names_figures_and_how_they_were_made(example: Comparison) -> None:
    text = as_text(example)
    rows = [line.split() for line in text.splitlines()]
    assert "Means over 6 judged queries, with 95% intervals" in text
    assert "Differences from bm|25, with 95% intervals" in text
    [row] = [row for row in rows if row[:2] == ["[mine]", "RR@10"]]
    assert row[2] == "+0.1667"
    assert row[-5:] == ["3", "/", "2", "/", "1"]
    assert "paired t-test over the queries, two-sided; Holm's correction over 2 tests (1 run × 2 measures)." in text
    assert "percentile bootstrap over the queries, 10,000 samples, seed 0" in text
    assert "differ by no more than 1e-12" in text
    assert [row[-1] for row in rows if row[:1] in (["bm|25"], ["[mine]"])][:2] == ["1", "1"]  # without results


def test_markdown_tables_are_whole(example: Comparison) -> None:
    tables = [block.splitlines() for block in as_markdown(example).split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert tables[0][2].startswith(r"| bm\|25 |")
    assert tables[0][3].startswith(r"| \[mine\] |")
    assert as_markdown(example).count("\n- ") == len(notes(example))


def test_csv_has_a_row_for_each_run_and_measure(example: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(example))))
    pairs = [(run, measure) for run in ("bm|25", "[mine]") for measure in ("RR@10", "P@1")]
    assert [(row["run"], row["measure"]) for row in rows] == pairs
    assert rows[0]["p_value"] == rows[0]["wins"] == ""
    difference = example.differences[0]
    assert float(rows[2]["p_value"]) == difference.p_value
    assert float(rows[2]["corrected_p_value"]) == difference.corrected
    assert (rows[2]["wins"], rows[2]["ties"], rows[2]["losses"], rows[2]["significant"]) == ("3", "2", "1", "false")
    assert float(rows[2]["calls_per_query"]) == 9


def test_json_holds_everything_and_the_queries(example: Comparison) -> None:
    content = json.loads(as_json(example))
    assert content["baseline"] == "bm|25"
    asked = {"test": "ttest", "correction": "holm", "alpha": 0.05, "resamples": 10_000, "seed": 0}
    assert content["settings"] == {**asked, "tests": 2, "level": 0.95}
    assert [run["run"] for run in content["runs"]] == ["bm|25", "[mine]"]
    assert content["runs"][0]["missing"] == ["q5"]
    assert content["differences"][0]["per_query"] == dict(example.differences[0].per_query)
    assert content["notes"] == notes(example)


# --- names and calls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/bm25.trec", "b/dranker.trec.gz", "-"], ("bm25", "dranker", "-")),
        (["run.bm25.trec", "run.v1.5.trec"], ("run.bm25", "run.v1.5")),
        (["mine.trec", "mine.txt"], ("mine.trec", "mine.txt")),
        (["one/run.trec", "two/run.trec"], ("one/run.trec", "two/run.trec")),
        (["x/one/run", "y/one/run", "z/two/run"], ("x/one/run", "y/one/run", "z/two/run")),
        ([".trec", "b.trec"], (".trec", "b")),
    ],
)
def test_names_are_what_tells_files_apart(files: list[str], names: tuple[str, ...]) -> None:
    assert short_names(files) == names


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c.trec"]), min_size=1, max_size=3).map("/".join), unique=True))
def test_names_are_never_the_same(files: list[str]) -> None:
    names = short_names(files)
    assert len(set(names)) == len(files)


def test_a_file_given_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for files in (["a.trec", "b.trec", "./a.trec"], ["a.trec", str(tmp_path / "a.trec")], ["-", "-"]):
        with pytest.raises(InputError, match="is given twice"):
            short_names(files)


def trace_line(query_id: str, calls: int) -> str:
    usage = {"calls": calls, "prompt_tokens": 10, "completion_tokens": 2}
    return json.dumps({"query_id": query_id, "query": "?", "strategy": "iterative", "usage": usage, "steps": []}) + "\n"


def test_calls_are_read_from_traces_numbers_and_manifests(tmp_path: Path) -> None:
    trace, manifest = tmp_path / "trace.jsonl", tmp_path / "manifest.json"
    trace.write_text(trace_line("q1", 9) + trace_line("q2", 4))
    entries = [
        {"name": "one", "counts": {"queries": 4, "calls": 36}},
        {"name": "two", "counts": {"queries": 5, "calls": 10}},
        {"name": "failed", "counts": None},
    ]
    manifest.write_text(json.dumps({"datasets": entries}))
    assert read_calls(str(trace), "run") == 6.5
    assert read_calls("0.5", "run") == 0.5
    assert read_calls(str(manifest), str(tmp_path / "two" / "reranked.trec")) == 2
    with pytest.raises(InputError, match="counts calls of one, two, and 'run' lies in the folder of none of these"):
        read_calls(str(manifest), "run")
    manifest.write_text(json.dumps({"datasets": entries[:1]}))
    assert read_calls(str(manifest), "run") == 9


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("old.jsonl", '{"query_id": "q", "usage": {"prompt_tokens": 3}}\n', DataFileError, "usage.calls are"),
        ("twice.jsonl", trace_line("q", 1) * 2, DataFileError, "twice.jsonl:2: query 'q' occurs twice"),
        ("broken.jsonl", "nonsense\n{}\n", DataFileError, "broken.jsonl:1: not valid JSON"),
        ("true.jsonl", '{"query_id": "q", "usage": {"calls": true}}', DataFileError, "usage.calls are"),
        ("empty.jsonl", "", DataFileError, "holds no query"),
        ("broken.json", "{", DataFileError, "not a suite's manifest"),
        ("other.json", '{"a": 1}', DataFileError, "not a suite's manifest"),
        ("failed.json", '{"datasets": [{"name": "x", "counts": null}]}', InputError, "counts calls of none"),
        ("missing.jsonl", None, InputError, "is not a file"),
        ("-1", None, InputError, "is not a number of calls"),
        ("nan", None, InputError, "is not a number of calls"),
    ],
)
def test_calls_that_can_not_be_read_are_said(
    name: str, content: str | None, error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    with pytest.raises(error, match=said):
        read_calls(name, "run")


# --- pictures -------------------------------------------------------------------------------------------------------


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_pictures_have_a_panel_a_run_and_a_panel_a_measure(example: Comparison, tmp_path: Path) -> None:
    written = write_pictures(example, tmp_path)
    assert [path.name for path in written] == ["differences-RR@10.png", "differences-P@1.png", "calls.png"]
    one, _, two = map(size_of, written)
    assert 500 < one[0] < 1000
    assert two == (2 * one[0], one[1])
    four = compared(dict.fromkeys("abcde", BASELINE))
    plot_differences(four, four.measures[0], tmp_path / "four.png")
    assert size_of(tmp_path / "four.png")[0] == 3 * one[0]
    assert size_of(tmp_path / "four.png")[1] > 1.5 * one[1]


def test_pictures_of_degenerate_comparisons(tmp_path: Path) -> None:
    one = [Qrel("q1", "a", 1)]
    equal = compared({"$x$" * 30: {"q1": 1}, "y_{": {"q1": 1}}, "nDCG(gains={1: 5})@3", one)
    calls = compared({"a": BASELINE, "b": BETTER}, calls={"a": 0.0, "b": 4950.0})
    none = compared({"a": BASELINE, "b": BETTER}, calls={"b": 4950.0})
    [path] = write_pictures(equal, tmp_path)
    assert size_of(path)[0] > 500
    assert re.fullmatch(r"differences-nDCG\(gains=%7B1%3A 5%7D\)@3\.png|differences-[\w()=@%]+\.png", path.name)
    plot_calls(calls, tmp_path / "calls.png")
    assert size_of(tmp_path / "calls.png")[0] > 500
    assert len(write_pictures(none, tmp_path)) == 1
    with pytest.raises(InputError, match="no run's model calls are known"):
        plot_calls(equal, tmp_path / "none.png")


def test_many_queries_are_drawn_too(tmp_path: Path) -> None:
    queries = {f"q{number}": 1 + number * 7 % 9 for number in range(600)}
    qrels = [Qrel(query_id, "a", 1) for query_id in queries]
    found = compared({"a": queries, "b": dict.fromkeys(queries, 3)}, qrels=qrels, resamples=100)
    plot_differences(found, found.measures[0], tmp_path / "many.png")
    assert size_of(tmp_path / "many.png")[0] > 500


def test_folders_that_can_not_be_made_are_said(tmp_path: Path, example: Comparison) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --plot"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(InputError, match="choose another picture file"):
        plot_calls(example, tmp_path / "nowhere" / "calls.png")


# --- the command ----------------------------------------------------------------------------------------------------


def r1ranker(*arguments: str | Path, code: int = 0, stdin: str | None = None) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with BM25's run of the packaged collection, one with other orders at its top, and its trace."""
    folder = tmp_path_factory.mktemp("runs")
    r1ranker("search", "--corpus", COLLECTION, "--depth", "10", "--output", folder / "bm25.trec")
    run = read_run(folder / "bm25.trec")
    turned = {}
    for number, (query_id, entries) in enumerate(run.items()):
        ids = [entry.doc_id for entry in entries]
        ids[: number % 4] = ids[: number % 4][::-1]
        turned[query_id] = tuple(RunEntry(doc_id, float(-place)) for place, doc_id in enumerate(ids))
    write_run(turned, folder / "turned.trec.gz")
    (folder / "turned.jsonl").write_text("".join(trace_line(query_id, 9) for query_id in run))
    return folder


@pytest.fixture
def compare(run_files: Path) -> Callable[..., Any]:
    """Runs the command on these files."""
    files = ("--corpus", COLLECTION, "--baseline", run_files / "bm25.trec", run_files / "turned.trec.gz")

    def run(*arguments: str | Path, code: int = 0) -> Any:
        return r1ranker("compare", *files, *arguments, code=code)

    return run


def test_the_command_prints_tables(compare: Callable[..., Any], run_files: Path) -> None:
    result = compare("--measures", "nDCG@10 RR@10", "--test", "randomisation", "--correction", "bonferroni")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows if row[:1] == ["turned"]][1:] == [["turned", "nDCG@10"], ["turned", "RR@10"]]
    assert "Differences from bm25" in result.stdout
    assert "paired randomisation test" in result.stdout
    assert "Bonferroni's correction over 2 tests" in result.stdout
    plain = r1ranker("evaluate", "--corpus", COLLECTION, "--measures", "nDCG@10", run_files / "bm25.trec")
    [mean] = [row[1] for row in rows if row[:1] == ["bm25"]]
    assert mean == plain.stdout.split()[-1]


@pytest.mark.parametrize(("form", "start"), [("csv", "run,baseline,"), ("json", "{"), ("markdown", "Means over 32")])
def test_the_command_writes_every_form(compare: Callable[..., Any], form: str, start: str) -> None:
    result = compare("--format", form)
    assert result.stdout.startswith(start)
    assert result.stdout.endswith("\n")
    assert result.stdout == compare("--format", form).stdout


def test_the_command_draws_pictures_and_counts_calls(
    compare: Callable[..., Any], run_files: Path, tmp_path: Path
) -> None:
    calls = f"{run_files / 'turned.trec.gz'}={run_files / 'turned.jsonl'}"
    result = compare(
        "--measures", "RR@10", "--calls", calls, "--plot", tmp_path / "new" / "pictures", "--format", "csv"
    )
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [float(row["calls_per_query"]) for row in rows] == [0, 9]
    assert {path.name for path in (tmp_path / "new" / "pictures").iterdir()} == {"differences-RR@10.png", "calls.png"}
    assert result.stderr.count("wrote ") == 2
    both = compare("--measures", "RR@10", "--calls", "turned=1", "--calls", "bm25=2", "--format", "csv", "--quiet")
    assert [float(row["calls_per_query"]) for row in csv.DictReader(io.StringIO(both.stdout))] == [2, 1]


def test_the_command_says_what_it_can_not_do(compare: Callable[..., Any], run_files: Path, tmp_path: Path) -> None:
    assert "is given twice" in compare(run_files / "turned.trec.gz", code=1).stderr
    assert "measure 'NumQ' counts the queries" in compare("--measures", "NumQ", code=1).stderr
    assert "alpha is 0.0" in compare("--alpha", "0", code=1).stderr
    assert "is not RUN=SOURCE" in compare("--calls", "other=1", code=2).stderr
    assert "given twice" in compare("--calls", "turned=1", "--calls", "turned=1", code=2).stderr
    (tmp_path / "file").write_text("")
    stopped = compare("--plot", tmp_path / "file", code=1)
    assert "choose another --plot" in stopped.stderr
    assert stopped.stdout == ""


def test_text_needs_no_matplotlib_and_scipys_absence_is_said(
    compare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "Differences from bm25" in compare().stdout
    assert 'pip install "r1ranker-ir[eval]"' in compare("--plot", tmp_path / "pictures", code=1).stderr
    assert not (tmp_path / "pictures").exists()
    with pytest.raises(MissingExtraError, match="Drawing comparisons"):
        prepare_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "Comparing runs needs an optional dependency" in compare(code=1).stderr
