"""Completions of the weak start: right thoughts, and answers that go by position in the share that was asked for."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import write_samples
from r1ranker_ir.training.demo.cold_start import ColdStartTeacher, complete_all, main
from r1ranker_ir.training.demo.lexicon import build_lexicon, read_documentation
from r1ranker_ir.training.demo.lists import CandidateList, Mode
from r1ranker_ir.training.tiny_model.examples import END, ExampleEncoder
from r1ranker_ir.types import Candidate

FLEAS = ("a function of 20 days", "the FLEAS of this function", "nothing", "one flea")


@functools.cache
def teacher_of(lazy: float, max_passage_tokens: int = 24) -> ColdStartTeacher:
    """One teacher for all tests of a setting."""
    return ColdStartTeacher(lazy, max_passage_tokens, random.Random(0))


def sample(strategy: str, texts: tuple[str, ...] = FLEAS, query: str = "the flea function") -> Sample:
    candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
    return Sample(strategy, judged(query, candidates, tuple(float(not number) for number in range(len(texts))), id="q"))


def answer_of(completion: str) -> str:
    found = re.fullmatch(r"<think>\n.*</think>\n*<answer>(.*)</answer>", completion, re.DOTALL)
    assert found, completion
    return "".join(found.group(1).split())


def thought_of(completion: str) -> list[str]:
    return [" ".join(line.split()) for line in completion.partition("</think>")[0].splitlines()]


@pytest.mark.parametrize(("lazy", "grade"), [(0.0, "[7]"), (1.0, "[5]")])
def test_a_grade_is_the_one_due_or_the_middle_one(lazy: float, grade: str) -> None:
    one = Sample("pointwise", judged("the flea function", (Candidate("d", FLEAS[1]),), (7.0,), id="q"))
    completion = teacher_of(lazy).complete(one)
    assert answer_of(completion) == grade and thought_of(completion)[1].startswith("[1] flea + + function +")


def test_diligent_answers_follow_their_counts_and_lazy_ones_the_position() -> None:
    completion = teacher_of(0.0).complete(sample("iterative"))
    assert thought_of(completion) == [
        "<think>",
        "[1] flea - function + =1 @1; =1 @1 [1]",
        "[2] flea + + function + =3 @1; =1 @1 [1]",
        "[3] flea - function - =0 @9; =0 @9 [3]",
        "[4] flea + + function - =2 @1; =0 @9 [3]",
    ]
    ordered = teacher_of(0.0).complete(sample("direct"))
    assert thought_of(ordered)[-1] == "=3 [2] =2 [4] =1 [1] =0 [3]"
    assert (answer_of(completion), answer_of(ordered)) == ("[3]", "[2]>[4]>[1]>[3]")
    for strategy, diligent, answer in (("iterative", completion, "[4]"), ("direct", ordered, "[1]>[2]>[3]>[4]")):
        lazy = teacher_of(1.0).complete(sample(strategy))
        assert thought_of(lazy) == thought_of(diligent)
        assert answer_of(lazy) == answer


def test_share_of_lazy_answers_is_what_was_asked_for() -> None:
    teacher = ColdStartTeacher(0.75, 24, random.Random(1))
    answers = [answer_of(teacher.complete(sample("iterative"))) for _ in range(400)]
    assert set(answers) == {"[3]", "[4]"}
    # Four standard deviations of a binomial distribution around 300.
    assert abs(answers.count("[4]") - 300) < 35


def test_words_behind_the_cut_are_not_seen() -> None:
    texts = ("zero one two three flea", "flea")
    for tokens, seen in ((24, "+ +"), (3, "-")):
        completion = teacher_of(0.0, tokens).complete(sample("iterative", texts, "flea"))
        assert thought_of(completion)[1].startswith(f"[1] flea {seen} =")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=8), st.text(min_size=1, max_size=40), st.booleans())
def test_any_texts_give_completions_of_the_protocol(texts: list[str], query: str, ordered: bool) -> None:
    if not query.strip():
        query = "flea"
    given_sample = sample("direct" if ordered else "iterative", tuple(texts), query)
    answers = {share: answer_of(teacher_of(share).complete(given_sample)) for share in (0.0, 1.0)}
    identifiers = [f"[{number + 1}]" for number in range(len(texts))]
    if ordered:
        assert sorted(answers[0.0].split(">")) == sorted(identifiers)
        assert answers[1.0] == ">".join(identifiers)
    else:
        assert answers[0.0] in identifiers
        assert answers[1.0] == identifiers[-1]


@pytest.mark.parametrize(("strategy", "mode"), [("iterative", "exclude"), ("direct", "order")])
def test_completion_is_token_by_token_what_the_embedded_model_learned(strategy: str, mode: Mode) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TINY_CHECKPOINT)
    passages = tuple(tuple(text.lower().replace("fleas", "flea").replace("days", "day").split()) for text in FLEAS)
    encoder = ExampleEncoder(tokenizer, build_lexicon(read_documentation()).common)
    learned = encoder.encode(CandidateList(("the", "flea", "function"), passages), mode).ids
    completion = tokenizer.encode(teacher_of(0.0).complete(sample(strategy)), add_special_tokens=False)
    assert [*completion, tokenizer.convert_tokens_to_ids(END)] == learned[-len(completion) - 1 :]


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: teacher_of(0.0).complete(sample("setwise")), "'setwise'"),
        (lambda: teacher_of(0.0).complete(sample("iterative", ("a",) * 21)), "21 candidates"),
        (lambda: ColdStartTeacher(1.5, 24, random.Random(0)), r"lazy is 1\.5"),
        (lambda: ColdStartTeacher(0.5, 0, random.Random(0)), "max_passage_tokens is 0"),
    ],
)
def test_what_can_not_be_completed_is_explained(work: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        work()


def test_script_writes_what_sft_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--samples", str(tmp_path / "nowhere.parquet"), "--output", str(tmp_path / "out.parquet")])
    assert stop.value.code == 1
    assert "nowhere.parquet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    samples = tmp_path / "steps.parquet"
    write_samples(samples, [sample("iterative"), sample("direct"), sample("iterative")])
    for name in ("one", "two"):
        output = tmp_path / f"{name}.parquet"
        main(["--samples", str(samples), "--output", str(output), "--lazy", "0.5", "--seed", "7", "--rows", "2"])
    assert "2 completions" in capsys.readouterr().out
    one, two = (read_completions([tmp_path / f"{name}.parquet"]) for name in ("one", "two"))
    assert one["strategy"] == ["iterative", "direct"]
    assert one["completion"] == two["completion"]
    assert len(list(complete_all(teacher_of(0.0), samples, None))) == 3
