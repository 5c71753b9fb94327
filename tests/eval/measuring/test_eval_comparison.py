"""Runs against a baseline: figures by hand and by scipy, what is said of them, and the forms of the report."""

from __future__ import annotations

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
from commands import r1ranker
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import Qrel

from r1ranker_ir.data.trec_runs import RunEntry, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.comparison import Comparison, ComparisonSettings, compare_runs
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures, short_names
from r1ranker_ir.eval.output.comparison_report import FORMATS, as_json, as_markdown, as_text, notes

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
    runs: Mapping[str, Places], measures: str = "RR@10", qrels: list[Qrel] | None = None, **options: Any
) -> Comparison:
    """By default the queries of the first run are judged, each with one relevant document."""
    parsed = parse_measures(measures)
    if qrels is None:
        qrels = QRELS if set(next(iter(runs.values()))) <= set(QUERIES) else judged(next(iter(runs.values())))
    evaluations = {name: evaluate(qrels, run_of(places), parsed, name=name) for name, places in runs.items()}
    return compare_runs(evaluations, next(iter(runs)), ComparisonSettings(**options))


def judged(places: Places) -> list[Qrel]:
    return [Qrel(query_id, "a", 1) for query_id in places]


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
    assert [run.means[found.measures[0]].mean * 6 for run in found.all_runs] == pytest.approx([3.5, 4.5])
    assert difference.relative == pytest.approx(1 / 3.5)
    paired = scipy.stats.ttest_rel([1, 1, 1, 1, 0, 0.5], [0.5, 0.5, 1, 0.5, 0, 1])
    assert difference.p_value == pytest.approx(paired.pvalue)
    assert difference.mean.interval == pytest.approx(tuple(paired.confidence_interval(0.95)))


def test_the_correction_is_over_all_runs_and_measures() -> None:
    runs = {"bm25": BASELINE, "mine": BETTER, "worse": dict.fromkeys(QUERIES, 2)}
    found = compared(runs, "RR@10 P@1", correction="bonferroni")
    pairs = [(run, measure) for measure in ("RR@10", "P@1") for run in ("mine", "worse")]
    assert [(each.run, str(each.measure)) for each in found.differences] == pairs
    for difference in found.differences:
        assert difference.corrected == pytest.approx(min(1, 4 * difference.p_value))
    alone = compared({"bm25": BASELINE, "mine": BETTER}, correction="bonferroni").differences[0]
    assert alone.corrected == alone.p_value == found.differences[0].p_value
    assert "Bonferroni's correction over 4 tests (2 runs × 2 measures)" in notes(found)[0]


@pytest.mark.parametrize(("alpha", "significant"), [(0.05, True), (1e-9, False)])
def test_significance_is_judged_by_the_corrected_p_value(alpha: float, significant: bool) -> None:
    queries = [f"x{number}" for number in range(20)]
    first, second = dict.fromkeys(queries, 2), {**dict.fromkeys(queries, 1), "x0": 3, "x1": 2}
    [difference] = compared({"bm25": first, "mine": second}, alpha=alpha).differences
    assert difference.significant is significant is (difference.corrected <= alpha)


def test_queries_without_results_count_as_zero_and_are_said() -> None:
    found = compared({"bm25": BASELINE, "mine": {**BETTER, "q1": 0, "q99": 1}})
    assert found.queries == 6
    assert (found.differences[0].per_query["q1"], found.differences[0].per_query["q5"]) == (-0.5, 0)
    said = "\n".join(notes(found))
    assert "bm25: 1 judged query has no results, which counts as 0: q5." in said
    assert "mine: 2 judged queries have no results, which counts as 0: q1, q5." in said
    assert "1 judged query is in no run" in said
    assert "mine: 1 query is not judged, which counts for nothing: q99." in said


def test_rounding_errors_are_no_differences() -> None:
    [measure] = parse_measures("RR@10")
    evaluation = evaluate(QRELS, run_of(BASELINE), [measure])
    shifted = {query_id: {measure: row[measure] + 1e-15} for query_id, row in evaluation.per_query.items()}
    other = type(evaluation)(evaluation.mean, shifted, (), ())
    [difference] = compare_runs({"bm25": evaluation, "mine": other}, "bm25").differences
    assert (difference.wins, difference.ties, difference.losses, difference.p_value) == (0, 6, 0, 1)


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
    found = compared({"bm25": baseline, "mine": other}, "RR@10 AP Bpref", QRELS, test=test)
    difference = found.differences[0]
    assert difference.p_value == pytest.approx(p_values[test == "randomisation"])
    assert difference.mean.interval == (difference.mean.mean,) * 2
    assert "nan" not in "".join(form(found) for form in FORMATS.values()).lower()
    said = "mine differs by the same RR@10 in each query" in "\n".join(notes(found))
    assert said is (difference.p_value == 0)


@pytest.mark.parametrize("test", ["ttest", "randomisation"])
def test_one_query_says_nothing_about_others(test: str) -> None:
    found = compared({"bm25": {"x": 2}, "mine": {"x": 1}}, test=test)
    [difference] = found.differences
    assert (difference.p_value, difference.mean.mean, difference.mean.interval) == (1, 0.5, None)
    assert "One query says nothing about others" in as_text(found)
    assert json.loads(as_json(found))["differences"][0]["low"] is None
    assert compared({"bm25": {}, "mine": BETTER}, qrels=QRELS).differences[0].relative is None


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
    baseline = dict.fromkeys((f"x{number}" for number in range(10)), 2)
    better = baseline | dict(zip(baseline, (1, 1, 1, 1, 1, 1, 3), strict=False))
    found = compared({"a": baseline, "b": better, "c": baseline, "d": baseline}, "RR@10 AP")
    difference = found.differences[0]
    assert difference.p_value < 0.05 < difference.corrected and not difference.significant
    [note] = [note for note in notes(found) if note.startswith("b, RR@10; b, AP: the interval leaves out 0")]
    assert "p (Holm) is what counts" in note


def test_nothing_is_marked_between_runs_of_different_queries() -> None:
    whole = dict.fromkeys((f"x{number}" for number in range(40)), 1)
    few = dict(list(whole.items())[:10])
    found = compared({"whole": whole, "few": few, "worse": dict.fromkeys(whole, 5) | {"x39": 6}})
    few_row, worse = found.differences
    assert few_row.corrected < 0.05 and not few_row.significant and not few_row.same_queries
    assert worse.significant and worse.same_queries
    [note] = [note for note in notes(found) if note.startswith("No star")]
    assert note.startswith("No star for few: it has results for other queries than whole")
    assert "over the 10 queries that all runs have" in note
    assert json.loads(as_json(found))["differences"][0]["significant"] is False


@pytest.fixture(scope="module")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BM25's runs of the packaged collection: of all queries, of some, and one with other orders at its top."""
    folder = tmp_path_factory.mktemp("runs")
    r1ranker("search", "--corpus", COLLECTION, "--depth", "10", "--output", folder / "bm25.trec")
    run = read_run(folder / "bm25.trec")
    ids = list(run)
    for name, some in {"twenty": ids[:20], "last15": ids[-15:], "five": ids[:5], "last6": ids[-6:]}.items():
        write_run({query_id: run[query_id] for query_id in some}, folder / name, tag=name)
    turned = {}
    for number, (query_id, entries) in enumerate(run.items()):
        docs = [entry.doc_id for entry in entries]
        docs[: number % 4] = docs[: number % 4][::-1]
        turned[query_id] = tuple(RunEntry(doc_id, float(-place)) for place, doc_id in enumerate(docs))
    write_run(turned, folder / "turned.trec.gz")
    return folder


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_queries_that_a_run_lacks_are_told_and_can_be_left_out(verb: str, run_files: Path) -> None:
    all_, twenty, last = (run_files / name for name in ("bm25.trec", "twenty", "last15"))
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


def test_runs_without_a_query_in_common_are_named(run_files: Path) -> None:
    files = (run_files / "five", run_files / "last6")
    said = r1ranker("evaluate", "--corpus", COLLECTION, "--only-run-queries", *files, code=1).stderr
    assert "none of the 32 judged queries has results in all runs" in said
    assert "five: 5" in said and "last6: 6" in said


@pytest.mark.parametrize("measure", ["NumQ", "NumRel", "NumRet"])
def test_counts_that_are_no_matter_of_quality_are_refused(measure: str) -> None:
    with pytest.raises(InputError, match=f"measure '{measure}' counts the"):
        compared({"bm25": BASELINE, "mine": BETTER}, f"nDCG@10 {measure}")


def test_counts_of_relevant_documents_are_means() -> None:
    found = compared({"bm25": BASELINE, "mine": BETTER}, "NumRet(rel=1)")
    assert found.baseline.means[found.measures[0]].mean == pytest.approx(5 / 6)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": float("nan")}, {"resamples": 99}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ComparisonSettings(**wrong)


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> Comparison:
    return compared({"bm|25": BASELINE, "[mine]": BETTER}, "RR@10 P@1")


def test_text_and_markdown_hold_names_figures_and_how_they_were_made(example: Comparison) -> None:
    text = as_text(example)
    rows = [line.split() for line in text.splitlines()]
    assert "Means over 6 judged queries, with 95% intervals" in text
    assert "Differences from bm|25, with 95% intervals" in text
    [row] = [row for row in rows if row[:2] == ["[mine]", "RR@10"]]
    assert row[2] == "+0.1667" and row[-5:] == ["3", "/", "2", "/", "1"]
    assert "paired t-test over the queries, two-sided; Holm's correction over 2 tests (1 run × 2 measures)." in text
    assert "percentile bootstrap over the queries, 10,000 samples, seed 0" in text
    assert [row[-1] for row in rows if row[:1] in (["bm|25"], ["[mine]"])][:2] == ["1", "1"]  # without results
    tables = [block.splitlines() for block in as_markdown(example).split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert tables[0][2].startswith(r"| bm\|25 |") and tables[0][3].startswith(r"| \[mine\] |")
    assert as_markdown(example).count("\n- ") == len(notes(example))


def test_json_holds_everything(example: Comparison) -> None:
    difference = example.differences[0]
    content = json.loads(as_json(example))
    asked = {"test": "ttest", "correction": "holm", "alpha": 0.05, "resamples": 10_000, "seed": 0}
    assert content["settings"] == {**asked, "tests": 2, "level": 0.95}
    assert (content["baseline"], content["runs"][0]["missing"]) == ("bm|25", ["q5"])
    row = content["differences"][0]
    assert (row["run"], row["measure"], row["p_value"]) == ("[mine]", "RR@10", difference.p_value)
    assert (row["corrected_p_value"], row["significant"]) == (difference.corrected, False)
    assert (row["wins"], row["ties"], row["losses"], row["per_query"]) == (3, 2, 1, dict(difference.per_query))
    assert content["notes"] == notes(example)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/bm25.trec", "b/dranker.trec.gz", "-"], ("bm25", "dranker", "-")),
        (["run.bm25.trec", "run.v1.5.trec"], ("run.bm25", "run.v1.5")),
        (["mine.trec", "mine.txt"], ("mine.trec", "mine.txt")),
        (["one/run.trec", "two/run.trec"], ("one/run.trec", "two/run.trec")),
        ([".trec", "b.trec"], (".trec", "b")),
    ],
)
def test_names_are_what_tells_files_apart(files: list[str], names: tuple[str, ...]) -> None:
    assert short_names(files) == names


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c.trec"]), min_size=1, max_size=3).map("/".join), unique=True))
def test_names_are_never_the_same(files: list[str]) -> None:
    assert len(set(short_names(files))) == len(files)


def test_a_file_given_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for files in (["a.trec", "b.trec", "./a.trec"], ["a.trec", str(tmp_path / "a.trec")], ["-", "-"]):
        with pytest.raises(InputError, match="is given twice"):
            short_names(files)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def compare(run_files: Path) -> Callable[..., Any]:
    """Runs the command on BM25's run and the turned one."""
    files = ("--corpus", COLLECTION, "--baseline", run_files / "bm25.trec", run_files / "turned.trec.gz")
    return lambda *arguments, code=0: r1ranker("compare", *files, *arguments, code=code)


def test_the_command_prints_tables(compare: Callable[..., Any], run_files: Path) -> None:
    result = compare("--measures", "nDCG@10 RR@10", "--test", "randomisation", "--correction", "bonferroni")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows if row[:1] == ["turned"]][1:] == [["turned", "nDCG@10"], ["turned", "RR@10"]]
    assert "paired randomisation test" in result.stdout and "Bonferroni's correction over 2 tests" in result.stdout
    plain = r1ranker("evaluate", "--corpus", COLLECTION, "--measures", "nDCG@10", run_files / "bm25.trec")
    [mean] = [row[1] for row in rows if row[:1] == ["bm25"]]
    assert mean == plain.stdout.split()[-1]


@pytest.mark.parametrize(("form", "start"), [("json", "{"), ("markdown", "Means over 32")])
def test_the_command_writes_every_form(compare: Callable[..., Any], form: str, start: str) -> None:
    result = compare("--format", form)
    assert result.stdout.startswith(start) and result.stdout.endswith("\n")
    assert result.stdout == compare("--format", form).stdout


def test_the_command_says_what_it_can_not_do(
    compare: Callable[..., Any], run_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is given twice" in compare(run_files / "turned.trec.gz", code=1).stderr
    assert "measure 'NumQ' counts the queries" in compare("--measures", "NumQ", code=1).stderr
    assert "alpha is 0.0" in compare("--alpha", "0", code=1).stderr
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "Comparing runs needs an optional dependency" in compare(code=1).stderr
