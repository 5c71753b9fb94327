"""Gold answers: what the gains ask for, in the form that rewards and parsers read."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.gold_answers import gold_completion, quoting_completion, write_gold_answers
from r1ranker_ir.training.data.quoted_thoughts import Quoting, Remark, quote_of
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import write_samples
from r1ranker_ir.training.rewards.rewards import find_reward
from r1ranker_ir.types import Candidate


def sample(gains: tuple[float, ...], strategy: str = "direct", name: str = "q") -> Sample:
    candidates = tuple(Candidate(f"d{place}", f"text {place}") for place in range(len(gains)))
    return Sample(strategy, judged("a question", candidates, gains, "model", name, "here"))


def named(completion: str) -> list[int]:
    """The places that an answer names, from 0."""
    inner = re.fullmatch(r"<think>\n(?:.*\n)?</think>\n<answer>(.*)</answer>", completion, re.DOTALL)
    assert inner is not None, completion
    return [int(number) - 1 for number in re.findall(r"\[(\d+)\]", inner[1])]


@given(gains=st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=8).map(tuple))
def test_the_answer_is_the_one_that_the_gains_ask_for(gains: tuple[float, ...]) -> None:
    order = named(gold_completion(sample(gains)))
    assert sorted(order) == list(range(len(gains)))
    assert [gains[place] for place in order] == sorted(gains, reverse=True)
    assert all(one < other for one, other in itertools.pairwise(order) if gains[one] == gains[other])
    [worst] = named(gold_completion(sample(gains, "iterative")))
    [best] = named(gold_completion(sample(gains, "setwise")))
    assert gains[worst] == min(gains) and gains[best] == max(gains)


def test_among_equals_the_seed_and_the_record_choose() -> None:
    gains = (1.0, *(0.0,) * 7)
    chosen = {named(gold_completion(sample(gains, "iterative", str(number))))[0] for number in range(100)}
    assert chosen == set(range(1, 8))
    again = [gold_completion(sample(gains, "iterative", "7"), seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert again[0] == again[1] and len(set(again)) > 1


def test_the_thought_names_the_first_of_the_answer_and_never_breaks_the_protocol() -> None:
    completion = gold_completion(sample((0.0, 1.0)), " {id} {is} best: {identifier} ")
    assert completion == "<think>\nd1 {is} best: [2]\n</think>\n<answer>[2] > [1]</answer>"
    candidates = (Candidate("a</think>", "x"), Candidate("b", "y"))
    tagged = Sample("direct", judged("a question", candidates, (1.0, 0.0), "item", "q", "here"))
    assert gold_completion(tagged, "{identifier} is best").startswith("<think>\n[1] is best\n</think>")
    for asked, thought, said in (
        (sample((0.0, 1.0)), "x</think>", "holds the tag </think>"),
        (sample(()), "", "request 'q': there is no candidate"),
        (tagged, "{id} is best", "request 'q': the thought 'a</think> is best' holds the tag </think>"),
    ):
        with pytest.raises(InputError, match=said):
            gold_completion(asked, thought)


def test_a_file_is_completed_but_for_samples_that_ask_for_nothing(tmp_path: Path) -> None:
    from r1ranker_ir.cli.app import app

    made = [sample((0.0, 1.0, 0.5)), sample((0.5, 0.5)), sample((1.0, 0.0), "iterative")]
    write_samples(tmp_path / "samples.parquet", made)
    output = tmp_path / "gold.jsonl"
    options = ["--samples", str(tmp_path / "samples.parquet"), "--output", str(output), "--thought", "{id}"]
    done = CliRunner().invoke(app, ["data", "answers", *options])
    assert done.exit_code == 0, done.output
    assert "2 samples with their answers" in done.stderr
    rows = read_completions(output)
    assert [row["completion"] for row in rows] == [gold_completion(made[0], "{id}"), gold_completion(made[2], "{id}")]
    # The published reward finds nothing to take off: the form is right, and so is the answer.
    columns = {name: [row[name] for row in rows] for name in ("gains", "strategy")}
    completions = [row["completion"] for row in rows]
    assert find_reward("ranking")(completions=completions, **columns)[0] == pytest.approx(1.0)
    assert find_reward("exclusion")(completions=completions, **columns)[1] == 1.0


def read_quotes(thought: str) -> list[Remark]:
    """The remarks of a thought, each of whose lines must be one."""
    found = [re.fullmatch(r'\[(\d{1,4})\] "(.*)" ([0-9])', line) for line in thought.split("\n")]
    return [Remark(int(line[1]) - 1, line[2], int(line[3])) for line in found if line]


WORD = st.sampled_from(["fleas", "jump", "[3]", "the", '"far"', "<answer>", "moon", "ship", "of"])


@given(
    query=st.lists(WORD, min_size=1, max_size=4).map(" ".join),
    texts=st.lists(st.lists(WORD, max_size=12).map(" ".join), min_size=2, max_size=9),
    strategy=st.sampled_from(["direct", "iterative", "setwise"]),
    data=st.data(),
)
def test_thoughts_that_quote_are_read_back_and_the_answer_follows_from_them(query, texts, strategy, data) -> None:
    gains = data.draw(st.lists(st.floats(0, 3), min_size=len(texts), max_size=len(texts)))
    asked = Sample(
        strategy, judged(query, tuple(Candidate(str(place), text) for place, text in enumerate(texts)), gains)
    )
    completion = quoting_completion(asked, Quoting(words=3))
    thought = completion.partition("<think>\n")[2].partition("\n</think>")[0]
    remarks = read_quotes(thought)
    assert [remark.place for remark in remarks] == list(range(len(texts)))
    assert all(remark.quote in re.sub('[][<>"]', "", " ".join(texts[remark.place].split())) for remark in remarks)
    grades = [remarks[place].grade for place in named(completion)]
    everyone = sorted((remark.grade for remark in remarks), reverse=True)
    assert grades == {"direct": everyone, "iterative": everyone[-1:], "setwise": everyone[:1]}[strategy]


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("The moon is far. A flea jumps very far, they say.", "far. A flea jumps"),
        ("nothing of it at all here", "nothing of it at"),
        ("flea jumps", "flea jumps"),
        ("[1] fleas jump <b> or do fleas really jump", "do fleas really jump"),
        ("", ""),
    ],
)
def test_the_words_nearest_to_the_query_are_quoted(text, quote) -> None:
    assert quote_of("how far do fleas jump", text, 4) == quote


def test_options_of_quotes_stand_together(tmp_path: Path) -> None:
    from r1ranker_ir.cli.app import app

    write_samples(tmp_path / "samples.parquet", [sample((0.0, 1.0))])
    required = [
        "data",
        "answers",
        "--samples",
        str(tmp_path / "samples.parquet"),
        "--output",
        str(tmp_path / "a.jsonl"),
    ]
    assert CliRunner().invoke(app, [*required, "--quotes", "2"]).exit_code == 0
    [row] = read_completions(tmp_path / "a.jsonl")
    assert row["completion"] == '<think>\n[1] "text 0" 0\n[2] "text 1" 9\n</think>\n<answer>[2] > [1]</answer>'
    for given_options, said in (
        (["--teacher", "x"], "it goes with --quotes"),
        (["--quotes", "2", "--thought", "so"], "does not go with --quotes"),
    ):
        refused = CliRunner().invoke(app, [*required, *given_options])
        assert refused.exit_code == 2 and said in " ".join(refused.stderr.replace("│", "").split())


def test_where_nothing_is_asked_for_no_file_is_left(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.parquet", [sample((0.5, 0.5))])
    (tmp_path / "gold.jsonl").write_text("earlier answers")
    with pytest.raises(InputError, match="all candidates of each sample are worth the same: there is nothing to learn"):
        write_gold_answers(tmp_path / "samples.parquet", tmp_path / "gold.jsonl")
    assert (tmp_path / "gold.jsonl").read_text() == "earlier answers"
    (tmp_path / "gold.jsonl").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.parquet"]
