"""Integer grades: samples of them, a question about each candidate, answers, and teachers' grades."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from r1ranker_ir.cli.app import app
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies.pointwise import grade_each
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.from_traces import TraceStep, select_steps
from r1ranker_ir.training.data.gold_answers import write_gold_answers
from r1ranker_ir.training.data.graded import grades_of, questions_of
from r1ranker_ir.training.data.prompting import PromptRenderer, sample_of, training_rows
from r1ranker_ir.training.data.quoted_thoughts import Quoting
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import read_samples, write_samples
from r1ranker_ir.training.data.samples import Sampling, samples_of
from r1ranker_ir.types import Answer, Candidate, RankingRequest, Step, Usage

TEXTS = ("a kettle of spring water", "wool of sheep", "fleas jump high")


def record_of(*gains: float) -> JudgedRequest:
    candidates = tuple(Candidate(f"d{place}", TEXTS[place % 3]) for place in range(len(gains)))
    return judged("how high do fleas jump", candidates, gains, id="q", source="here")


def listed(*gains: float, strategy: str = "pointwise") -> Sample:
    return Sample(strategy, record_of(*gains))


@given(st.lists(st.floats(0, 1e300), max_size=6), st.none() | st.floats(1e-300, 1e300))
def test_grades_are_whole_and_keep_the_order_of_the_gains(gains: list[float], full: float | None) -> None:
    grades = grades_of(gains, full)
    assert all(grade.is_integer() and 0 <= grade <= 10 for grade in grades)
    assert all((grade == 0) == (gain == 0) for grade, gain in zip(grades, gains, strict=True))
    falling = [grade for _, grade in sorted(zip(gains, grades, strict=True), reverse=True)]
    assert falling == sorted(falling, reverse=True)
    assert full is not None or not any(gains) or max(grades) == 10


def test_a_sample_is_a_list_of_grades() -> None:
    sampling = Sampling(strategy="pointwise", positives=1)
    dropped = Counter[str]()
    [sample] = samples_of(record_of(2, 0, 1), sampling, dropped)
    assert sorted(sample.record.gains) == [0, 5, 10] and not dropped
    [sample] = samples_of(record_of(2, 0, 1), replace(sampling, full_gain=4.0, as_given=True), dropped)
    assert sample.record.gains == (5, 0, 2)
    assert [each.record.gains for each in questions_of(sample)] == [(5,), (0,), (2,)]
    assert questions_of(listed(1, 0, strategy="direct")) == (listed(1, 0, strategy="direct"),)
    for wrong in ({"full_gain": 0.0}, {"full_gain": 3.0, "strategy": "direct"}):
        with pytest.raises(InputError, match=r"full_gain is .*: give a gain above 0, of a strategy that grades"):
            replace(sampling, **wrong)


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT)
    return PromptRenderer(tokenizer, load_template(), context_length=4096)


def test_each_candidate_has_a_row_with_the_prompt_of_inference(renderer: PromptRenderer, tmp_path: Path) -> None:
    one, other = listed(10, 0, 3), listed(0, 10)
    write_samples(tmp_path / "a.parquet", [one, listed(1, 0, strategy="direct"), other])
    rows = training_rows(read_samples([tmp_path / "a.parquet"]), renderer)
    assert rows["graded"] == [0, 1, 2, None, 0, 1]
    assert rows["list"] == [0, 0, 0, 1, 2, 2]
    assert [len(shown) for shown in rows["candidates"]] == [1, 1, 1, 2, 1, 1]
    assert rows["gains"][:3] == [[10, 0, 3]] * 3
    assert [sample_of(row).record.gains for row in rows] == [(10,), (0,), (3,), (1, 0), (0,), (10,)]
    program = grade_each(one.record.request, renderer.prompt)
    call = next(program)
    for row in list(rows)[:3]:
        assert row["prompt"] == [{"role": turn.role, "content": turn.content} for turn in call.messages]
        if row["graded"] < 2:
            call = program.send(Answer("[1]"))
    with pytest.raises(InputError, match="pointwise shows one candidate and not 3"):
        renderer.render(one)


def test_without_grades_rows_stay_as_they_were(renderer: PromptRenderer, tmp_path: Path) -> None:
    write_samples(tmp_path / "a.parquet", [listed(1, 0, strategy="direct")])
    assert "list" not in training_rows(read_samples([tmp_path / "a.parquet"]), renderer).column_names


def test_gold_answers_grade_each_candidate(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.parquet", [listed(10, 0, 3), listed(1, 0, strategy="direct")])
    count = write_gold_answers(tmp_path / "a.parquet", tmp_path / "b.parquet", "{id} deserves {identifier}")
    rows = read_completions(tmp_path / "b.parquet")
    assert count == len(rows) == 4
    assert rows["completion"][:3] == [
        f"<think>\nd{place} deserves [{grade}]\n</think>\n<answer>[{grade}]</answer>"
        for place, grade in enumerate((10, 0, 3))
    ]
    write_gold_answers(tmp_path / "a.parquet", tmp_path / "c.jsonl", quoting=Quoting(3))
    assert read_completions(tmp_path / "c.jsonl")["completion"][2] == (
        '<think>\n"fleas jump high"\n</think>\n<answer>[3]</answer>'
    )


class _Near:
    """Stands in for a sentence encoder: the nearer, the more of the query a text says."""

    def embed(self, texts: list[str]) -> Any:
        import numpy as np

        return [np.array([1.0, 0.0]), *(np.array([0.8 if "fleas" in text else 0.1, 0.0]) for text in texts[1:])]


def test_a_teacher_grades_beside_the_judgments(monkeypatch: pytest.MonkeyPatch) -> None:
    from r1ranker_ir.training.data.teacher import Teacher, Teaching

    monkeypatch.setattr("r1ranker_ir.models.encoder.SentenceEncoder", lambda *names: _Near())
    taught = Teacher(Teaching("near", share=0.5)).taught(listed(10, 0, 0))
    assert taught.record.gains == (5, 0, 5)


def graded_step(document: str, said: str, thought: str = "a thought", number: int = 1, query: str = "q") -> TraceStep:
    request = RankingRequest("a query", (Candidate(document, "text"),), query_id=query)
    told = {"thought": thought, "repaired": False, "thought_closed": False, "cut_passages": 0, "usage": Usage()}
    step = Step((0,), (0,), text=f"<think>{thought}</think><answer>{said}</answer>", probabilities=None, **told)
    return TraceStep(request, "pointwise", number, step)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        *((graded_step("a", grade), "kept") for grade in ("[5]", "10")),
        *((graded_step("b", grade), "kept") for grade in ("[5]", "0")),
        *((graded_step("a", "[4]"), "misses the judgments"), (graded_step("b", "6"), "misses the judgments")),
        (graded_step("a", "[9]", query="other"), "query without a judged candidate"),
        (graded_step("a", "[9]", thought=" "), "no thought"),
    ],
)
def test_a_grade_of_a_trace_is_kept_on_the_right_side(step: TraceStep, reason: str) -> None:
    counts = select_steps([step], {"q": {"a": 1.0}, "other": {}}).counts
    assert counts == {"kept": int(reason == "kept")} | {reason: 1}


def test_of_several_grades_that_nearest_to_their_mean_is_kept() -> None:
    # Another order of the same documents: they are told apart by what was graded, not by the step.
    steps = [graded_step("a", f"[{grade}]", f"thought {grade}", number) for number, grade in enumerate((6, 10, 7), 1)]
    steps += [graded_step("b", f"[{grade}]", f"thought {grade}", number) for number, grade in ((2, 0), (1, 3))]
    found = select_steps(steps, {"q": {"a": 1.0}})
    assert found.counts == {"kept": 2, "not among the best": 3}
    assert [each.completion.partition("<answer>")[2] for each in found.completed] == ["[7]</answer>", "[0]</answer>"]
    assert [each.sample.record.gains for each in found.completed] == [(1,), (0,)]
    assert len(select_steps(steps, {"q": {"a": 1.0}}, best=9).completed) == 5


def test_the_command_makes_graded_samples_and_answers(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    (tmp_path / "r.jsonl").write_text(
        '{"query": "games like chess", "candidates": [{"text": "Go", "gain": 2}, {"text": "Poker", "gain": 1}, '
        '{"text": "Darts"}]}\n'
    )
    told = f"--requests {tmp_path}/r.jsonl --full-gain 4 --as-given --output {tmp_path}/g.parquet"
    result = CliRunner().invoke(app, ["data", "--strategy", "pointwise", *told.split()])
    assert result.exit_code == 0, result.output
    assert "1 samples (pointwise) of 1 queries; by list length 3: 1" in result.output
    assert read_samples([tmp_path / "g.parquet"])["gains"] == [[5, 2, 0]]
