"""Rejection sampling: what becomes of hand-made steps, which of several tries is kept, and what malformed files say."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.runs.traces import TraceWriter
from r1ranker_ir.training.data import from_traces as traces
from r1ranker_ir.training.data.completion_files import CompletedSample, read_completions, write_completions
from r1ranker_ir.training.data.from_traces import TraceStep, completions_from_traces, read_traces, select_steps
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import read_metadata
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

JUDGMENTS = {"q": {"a": 2.0, "b": 1.0}, "r": {"a": 1.0}, "unjudged": {}, "negative": {"c": 0.0}}


def step_of(strategy: Any, shown: str, outcome: str, **fields: Any) -> TraceStep:
    """A step that showed one-letter documents."""
    query_id, number = fields.pop("query_id", "q"), fields.pop("number", 1)
    candidates = tuple(Candidate(letter, f"text {letter}") for letter in shown)
    given: dict[str, Any] = {"thought": "a thought", "repaired": False, "thought_closed": False, **fields}
    order = tuple(shown.index(letter) for letter in outcome)
    step = Step(tuple(range(len(shown))), order, text="", probabilities=None, cut_passages=0, usage=Usage(), **given)
    return TraceStep(RankingRequest(f"query {query_id}", candidates, query_id=query_id), strategy, number, step)


exclusion = functools.partial(step_of, "iterative")
ordering = functools.partial(step_of, "direct")

# --- what becomes of a step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (exclusion("abc", "c"), traces.KEPT),
        (exclusion("abc", "b"), "misses the judgments"),
        (exclusion("abc", "a"), "misses the judgments"),
        # Nothing worthless is left: the lesser of two good ones may go.
        (exclusion("ab", "b"), traces.KEPT),
        (exclusion("ab", "a"), "misses the judgments"),
        (exclusion("abc", "c", repaired=True), "repaired"),
        (exclusion("abc", "c", thought_closed=True), "thought not closed by the model"),
        (exclusion("abc", "c", thought_closed=True, closed_at="limit"), "thought closed at the limit"),
        (exclusion("abc", "c", thought_closed=True, closed_at="end_of_turn"), "turn ended within the thought"),
        (exclusion("abc", "c", thought_closed=True, closed_at="answer"), "answer begun without closing the thought"),
        (exclusion("abc", "c", thought=" \n"), "no thought"),
        (exclusion("abc", "c", thought="so <Answer>[2]"), "a tag of the protocol in the thought"),
        (exclusion("abc", "c", query_id="unjudged"), "query without a judged candidate"),
        (exclusion("cde", "c"), "query without a judged candidate"),
        (ordering("cba", "abc"), traces.KEPT),
        (ordering("abc", "abc"), traces.KEPT),
        (ordering("cba", "bac"), traces.KEPT),
        (ordering("bac", "bac"), "no better than the order shown"),
        (ordering("abc", "bac"), "no better than the order shown"),
    ],
)
def test_a_step_is_kept_or_left_out_for_its_reason(step: TraceStep, reason: str) -> None:
    selection = select_steps([step], JUDGMENTS)
    kept = int(reason == traces.KEPT)
    assert selection.counts == {traces.KEPT: kept} | {reason: 1}
    assert len(selection.completed) == kept


def test_candidates_of_equal_gain_teach_nothing_and_an_ordering_has_to_reach_the_least_ndcg() -> None:
    alike = {"q": {"a": 1.0, "b": 1.0}}
    for step in (exclusion("ab", "b"), ordering("ab", "ba")):
        assert select_steps([step], alike).counts == {traces.KEPT: 0, "nothing to tell apart": 1}
    # Gains 1, 2, 0 in this order: (1 + 2 / log2(3)) / (2 + 1 / log2(3)) = 2.26186 / 2.63093 = 0.85972.
    better = ordering("cba", "bac")
    assert select_steps([better], JUDGMENTS, min_ndcg=0.8597).counts == {traces.KEPT: 1}
    assert select_steps([better], JUDGMENTS, min_ndcg=0.8598).counts == {traces.KEPT: 0, "below the least nDCG": 1}


def test_the_sample_holds_what_was_shown_and_the_completion_is_in_the_protocols_form() -> None:
    [kept] = select_steps([ordering("cba", "bac", thought=" line one\nline two\n")], JUDGMENTS, source="here").completed
    candidates = (Candidate("c", "text c"), Candidate("b", "text b"), Candidate("a", "text a"))
    assert kept == CompletedSample(
        Sample("direct", judged("query q", candidates, (0.0, 1.0, 2.0), "passage", "q", "here")),
        "<think>\nline one\nline two\n</think>\n<answer>[2] > [3] > [1]</answer>",
    )
    assert exclusion("abc", "c").completion == "<think>\na thought\n</think>\n<answer>[3]</answer>"


# --- best of several ------------------------------------------------------------------------------------------------


def thoughts_of(steps: list[TraceStep], **options: Any) -> list[str]:
    selection = select_steps(steps, JUDGMENTS, **options)
    return [re.findall(r"<think>\n(.*)\n</think>", kept.completion)[0] for kept in selection.completed]


def test_of_several_tries_the_better_is_kept_then_the_shorter_then_the_earlier() -> None:
    tries = [exclusion("abc", "c", thought=thought) for thought in ("longest", "mid 1", "mid 2", "x")]
    tries.insert(0, exclusion("abc", "a", thought=""))
    assert thoughts_of(tries) == ["x"]
    assert thoughts_of(tries, best=3) == ["x", "mid 1", "mid 2"]
    assert thoughts_of(list(reversed(tries)), best=3) == ["x", "mid 2", "mid 1"]
    assert thoughts_of(tries, best=9) == ["x", "mid 1", "mid 2", "longest"]
    tries = [ordering("cba", "bac", thought="short"), ordering("cba", "abc", thought="much longer")]
    assert thoughts_of(tries) == ["much longer"]
    # The same completion again does not take a place.
    tries = [exclusion("abc", "c"), exclusion("abc", "c"), exclusion("abc", "c", thought="another thought")]
    selection = select_steps(tries, JUDGMENTS, best=2)
    assert selection.counts == {traces.KEPT: 2, traces.REPEATED: 1}
    first, second = selection.completed
    assert first != second


def test_each_step_of_each_query_has_its_own_best() -> None:
    steps = [exclusion("abcd", "c"), exclusion("abd", "d", number=2), exclusion("ac", "c", query_id="r")]
    again = [replace(each, step=replace(each.step, thought="a longer thought")) for each in steps]
    selection = select_steps([*steps, *again], JUDGMENTS)
    requests = [kept.sample.record.request for kept in selection.completed]
    assert [(each.query_id, len(each.candidates)) for each in requests] == [("q", 4), ("q", 3), ("r", 2)]
    assert selection.counts == {traces.KEPT: 3, traces.NOT_AMONG_BEST: 3}
    assert selection.report() == "3 of 6 steps kept; left out: 3 not among the best"


letters = st.permutations("abcde").map("".join)


@given(
    tried=st.lists(st.tuples(letters, letters, st.integers(1, 2), st.booleans(), st.text("xyz", max_size=3))),
    best=st.integers(1, 3),
)
def test_every_step_is_counted_once_and_no_kept_one_is_worse_than_what_was_shown(
    tried: list[tuple[str, str, int, bool, str]], best: int
) -> None:
    steps = [
        ordering(shown, order, number=number, thought=thought) if direct else exclusion(shown, order[0], number=number)
        for shown, order, number, direct, thought in tried
    ]
    selection = select_steps(steps, JUDGMENTS, best=best)
    assert sum(selection.counts.values()) == len(steps)
    assert selection.counts[traces.KEPT] == len(selection.completed) <= 4 * best
    for kept in selection.completed:
        gains = kept.sample.record.gains
        answer = kept.completion.rpartition("<answer>")[2]
        outcome = [int(number) - 1 for number in re.findall(r"\[(\d+)\]", answer)]
        if kept.sample.strategy == "iterative":
            assert gains[outcome[0]] == 0
        else:
            assert measured(gains, outcome) > measured(gains, range(5)) or measured(gains, outcome) == 1


def measured(gains: Any, order: Any) -> float:
    """nDCG@10 as ir_measures has it, rounded."""
    from ir_measures import Qrel

    qrels = [Qrel("q", str(place), int(gain)) for place, gain in enumerate(gains)]
    run = {"q": tuple(RunEntry(str(place), -float(rank)) for rank, place in enumerate(order))}
    return round(next(iter(evaluate(qrels, run, parse_measures("nDCG@10")).mean.values())), 9)


# --- trace files ----------------------------------------------------------------------------------------------------


def ranking_of(query_id: str, count: int = 3, thought: str = "why") -> Ranking:
    """An elimination from behind that names its documents a, b, c."""
    candidates = tuple(Candidate(letter, f"{letter} of {query_id}") for letter in "abcdef"[:count])
    shown = [tuple(range(length)) for length in range(count, 1, -1)]
    steps = tuple(Step(each, each[-1:], thought, "", None, False, False, 0, Usage()) for each in shown)
    return Ranking(RankingRequest(f"query {query_id}", candidates, query_id=query_id), tuple(range(count)), steps)


def write_trace(path: Path, *rankings: Ranking, strategy: str = "iterative") -> Path:
    with TraceWriter(path, strategy) as writer:
        for ranking in rankings:
            writer.write(ranking)
    return path


def test_what_was_shown_is_read_back_from_joined_files_as_well(tmp_path: Path) -> None:
    one = write_trace(tmp_path / "1", ranking_of("q"), ranking_of("r", 2))
    steps = list(read_traces(one))
    told = [(each.request.query_id, each.request.query, each.number, len(each.step.shown)) for each in steps]
    assert told == [("q", "query q", 1, 3), ("q", "query q", 2, 2), ("r", "query r", 1, 2)]
    assert steps[1].request.candidates == (Candidate("a", "a of q"), Candidate("b", "b of q"))
    assert steps[0].outcome == (2,)
    two = write_trace(tmp_path / "2", ranking_of("r"), ranking_of("q", thought="another"))
    joined = tmp_path / "joined"
    joined.write_bytes(one.read_bytes() + b"\n" + two.read_bytes())
    assert list(read_traces(joined)) == [*steps, *read_traces(two)]


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl", ranking_of("q"))
    path.write_text(path.read_text() + path.read_text().replace('"thought": "why"', '"thought": null'))
    with pytest.raises(DataFileError, match=re.escape(f"{path}:2: field 'steps[0].thought' is None: give a text")):
        list(read_traces(path))
    with pytest.raises(InputError, match=r"nowhere' can't be read .No such file"):
        list(read_traces(tmp_path / "nowhere"))


# --- from files to a file -------------------------------------------------------------------------------------------


def make_corpus(folder: Path, **splits: str) -> str:
    """A BEIR folder of the documents of `ranking_of` and two queries; a split is told as `q:a2 r:b1`."""
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": letter, "text": f"{letter} of q"} for letter in "abc"]
    queries = [{"_id": name, "text": f"query {name}"} for name in "qr"]
    write_lines(folder / "corpus.jsonl", *documents)
    write_lines(folder / "queries.jsonl", *queries)
    for split, told in splits.items():
        lines = (f"{each[0]}\t{each[2]}\t{each[3]}\n" for each in told.split())
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return str(folder)


@pytest.mark.parametrize("name", ["sft.parquet", "sft.jsonl"])
def test_kept_steps_are_written_and_read_back(tmp_path: Path, name: str) -> None:
    corpus = make_corpus(tmp_path / "corpus", train="q:a2 r:b1")
    one = write_trace(tmp_path / "1", ranking_of("q"), ranking_of("r"))
    two = write_trace(tmp_path / "2", ranking_of("q", thought="because"))
    selection = completions_from_traces([one, two], corpus, tmp_path / name, best=2)
    # Of r, the second step excludes b, which is the good one.
    assert selection.counts == {traces.KEPT: 5, "misses the judgments": 1}
    rows = read_completions(tmp_path / name)
    assert [row["id"] for row in rows] == ["q", "q", "q", "q", "r"]
    assert rows[0] == {
        **{"id": "q", "source": corpus, "task": "passage", "strategy": "iterative", "aim": "", "context": "query q"},
        "candidate_ids": ["a", "b", "c"],
        "candidates": ["a of q", "b of q", "c of q"],
        "gains": [2.0, 0.0, 0.0],
        "completion": "<think>\nwhy\n</think>\n<answer>[3]</answer>",
    }
    assert [row["completion"][8:].partition("\n")[0] for row in rows] == ["why", "because", "why", "because", "why"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "corpus", name]
    assert list(read_completions([tmp_path / name, tmp_path / name])) == 2 * list(rows)


def test_nothing_kept_is_an_error_with_the_counts_and_no_file(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", train="q:c1", dev="q:a1")
    trace, output = write_trace(tmp_path / "trace", ranking_of("q")), tmp_path / "out.parquet"
    # By the judgments of train, the first step excludes the good one, and then nothing good is left.
    with pytest.raises(
        InputError, match=r"nothing fits .*0 of 2 steps kept; left out: 1 misses the judgments, 1 query"
    ):
        completions_from_traces([trace], corpus, output)
    with pytest.raises(InputError, match="no trace is given"):
        completions_from_traces([], corpus, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "trace"]
    completions_from_traces([trace], corpus, output, split="dev", best=3)
    said = read_metadata(output)
    assert (said["arguments"]["traces"], said["arguments"]["best"], said["counts"]) == (["trace"], 3, {"kept": 2})
    assert said["versions"]["pyarrow"]


def test_steps_that_show_test_data_stop_or_are_dropped(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", train="q:a2 r:a1")
    test = make_corpus(tmp_path / "test", test="q:b1")
    trace = write_trace(tmp_path / "trace", ranking_of("q"), ranking_of("r"))
    output = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match=r"2 steps of the traces show test data: query 'q' is a test query .*drop"):
        completions_from_traces([trace], corpus, output, test_corpora=[test])
    assert not output.exists()
    selection = completions_from_traces([trace], corpus, output, test_corpora=[test], leaks="drop")
    assert selection.counts == {traces.KEPT: 2, traces.SHARED_WITH_TEST: 2}
    assert set(read_completions(output)["id"]) == {"r"}


# --- files of prompts and completions -------------------------------------------------------------------------------

SAMPLE = {"context": "x", "candidates": ["a", "b"], "strategy": "iterative", "completion": "<think>y"}


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_a_row_may_leave_out_is_filled_in(tmp_path: Path) -> None:
    [row] = read_completions(write_lines(tmp_path / "a.jsonl", SAMPLE))
    filled = {"id": "", "source": "", "task": "passage", "aim": "", "candidate_ids": ["1", "2"], "gains": [0.0, 0.0]}
    assert row == SAMPLE | filled


TURNS = [{"role": "user", "content": "x"}], [{"role": "assistant", "content": "y"}]


@pytest.mark.parametrize(("prompt", "completion"), [("x", "y"), TURNS])
def test_prompts_and_completions_as_trl_defines_them_pass(tmp_path: Path, prompt: Any, completion: Any) -> None:
    row = {"prompt": prompt, "completion": completion}
    assert list(read_completions(write_lines(tmp_path / "a.jsonl", row | {"more": 1}, row))) == [row, row]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "it holds no row"),
        ([{"context": "x", "strategy": "direct"}], ":1: field 'candidates' is missing: give it"),
        ([SAMPLE, SAMPLE | {"completion": None}], ":2: field 'completion' is missing: give it"),
        ([SAMPLE | {"context": " "}], ":1: field 'context' is ' ': give at least one word"),
        ([SAMPLE | {"candidates": ["a", 1]}], r"field 'candidates\[1\]' is 1: give a text"),
        ([SAMPLE | {"gains": [1]}], ":1: the record: gains has 1 values for 2 candidates"),
        ([SAMPLE | {"gains": [1, float("nan")]}], r":1: field 'gains\[1\]' is nan: give a finite number"),
        ([SAMPLE | {"strategy": "likelihood"}], ":1: field 'strategy' is 'likelihood'"),
        ([{"prompt": "x"}], ":1: field 'completion' is missing: give it"),
        ([{"prompt": "x", "completion": "y"}, {"prompt": TURNS[0], "completion": TURNS[1]}], ":2: field 'prompt' is"),
        ([{"prompt": [], "completion": TURNS[1]}], r":1: field 'prompt' is \[\]: give at least 1"),
        (
            [{"prompt": TURNS[0], "completion": [{"role": "assistant"}]}],
            r":1: field 'completion\[0\].content' is missing: give it",
        ),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(DataFileError, match=said):
        read_completions(write_lines(tmp_path / "a.jsonl", *rows))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.parquet", "not a Parquet file that can be read"),
        ("nowhere.parquet", "there is no file"),
        ("a.csv", r"kept as \.parquet or \.jsonl"),
    ],
)
def test_files_of_none_of_the_forms_are_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(InputError, match=said):
        read_completions(tmp_path / name)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_failure_while_writing_leaves_no_file_under_the_name(tmp_path: Path, name: str) -> None:
    def failing() -> Any:
        yield CompletedSample(Sample("iterative", judged("x", (), ())), "y")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_completions(tmp_path / name, failing())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"does not exist|choose another output"):
        write_completions(tmp_path / "no" / name, [])
