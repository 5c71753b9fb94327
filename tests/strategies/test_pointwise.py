"""Grades one by one: expected grades, whole ones, unreadable ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import GRADES, Prompt
from r1ranker_ir.prompts.template import build_template, load_template
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.strategies.pointwise import POINTWISE, PointwiseOptions, grade_each
from r1ranker_ir.types import TASKS, Answer, Candidate, RankingRequest, Task


def replies(*answers: Answer) -> Callable[[object], Answer]:
    turn: Iterator[Answer] = iter(answers)
    return lambda call: next(turn)


def test_a_prompt_holds_one_candidate_and_no_identifier(prompt: Prompt, conversation: Any) -> None:
    request = RankingRequest("q", (Candidate("a", "one [4] text"), Candidate("b", "")))
    _, calls = conversation.drive(grade_each(request, prompt), replies(Answer("[3]"), Answer("[4]")))
    assert [call.identifiers for call in calls] == [GRADES, GRADES]
    assert "\none (4) text\n" in calls[0].messages[-1].content
    assert "\n(no text)\n" in calls[1].messages[-1].content
    assert "[1]" not in "".join(message.content for message in calls[0].messages)


@pytest.mark.parametrize("task", TASKS)
def test_the_projects_template_grades_everything(task: Task, prompt: Prompt) -> None:
    request = RankingRequest("the query", (Candidate("a", "its text"),), task=task, aim="the aim")
    text = "\n".join(message.content for message in prompt.ask("pointwise", request, (0,)).messages)
    for part in ("the query", "its text", " 0 ", " 10 ", "<think>", "<answer>[number]</answer>"):
        assert part in text
    assert load_template().nouns[task][0] in text
    assert ("the aim" in text) == (task != "passage")


def test_expected_grades_decide_where_there_are_probabilities(prompt: Prompt, conversation: Any) -> None:
    def told(**chances: float) -> Answer:
        return Answer("", choice=("[5]",), probabilities={f"[{name[1:]}]": chance for name, chance in chances.items()})

    answers = (told(g5=1.0), told(g5=0.6, g9=0.4), told(g0=0.9, g10=0.1))
    ranking, _ = conversation.drive(grade_each(conversation.request(3), prompt), replies(*answers))
    assert ranking.order == (1, 0, 2)
    assert [step.grade for step in ranking.steps] == pytest.approx([5, 6.6, 1])
    assert [step.probabilities for step in ranking.steps] == [None] * 3
    assert [(step.shown, step.outcome) for step in ranking.steps] == [((0,), (0,)), ((1,), (1,)), ((2,), (2,))]


def test_whole_grades_are_read_and_equals_keep_their_order(prompt: Prompt, conversation: Any) -> None:
    texts = (
        "<answer>[4]</answer>",
        "<think>8</think><answer>10</answer>",
        "<answer>[4]</answer>",
        "none",
        "[11]",
        "[6] of 10",
    )
    ranking, calls = conversation.drive(
        grade_each(conversation.request(6), prompt), replies(*(Answer(text) for text in texts))
    )
    assert [step.grade for step in ranking.steps] == [4, 10, 4, 5, 5, 6]
    assert [step.repaired for step in ranking.steps] == [False, False, False, True, True, False]
    assert ranking.order == (1, 5, 3, 4, 0, 2)
    assert [call.repairs_before for call in calls] == [0, 0, 0, 0, 1, 2]


def test_where_the_budget_ends_the_rest_stays_below(prompt: Prompt, conversation: Any) -> None:
    options = RankingOptions(max_calls=2)
    ranking, _ = conversation.drive(
        POINTWISE(conversation.request(4), prompt, options=options), replies(Answer("[0]"), Answer("[1]"))
    )
    assert ranking.order == (1, 0, 2, 3)
    assert ranking.budget_reached


def test_the_likeliest_grade_counts_as_far_as_it_is_likely(prompt: Prompt, conversation: Any) -> None:
    def told(**chances: float) -> Answer:
        return Answer("", choice=("[5]",), probabilities={f"[{name[1:]}]": chance for name, chance in chances.items()})

    answers = (told(g5=1.0), told(g9=0.6, g0=0.4), Answer("<answer>[6]</answer>"), Answer("none"))
    options = PointwiseOptions(graded_by="likeliest")
    program = POINTWISE(conversation.request(4), prompt, options=options)
    ranking, _ = conversation.drive(program, replies(*answers))
    assert [step.grade for step in ranking.steps] == pytest.approx([5, 5.4, 6, 5])
    assert ranking.order == (2, 1, 0, 3) and ranking.repairs == 1
    with pytest.raises(InputError, match="graded_by"):
        PointwiseOptions(graded_by="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "grades"),
    [
        ([str(number) for number in range(11)], [3, 10, 5]),
        ([str(number) for number in range(4)], [10, 5, 5]),  # 3 of 3; there is no 10
    ],
)
def test_a_template_may_have_numbers_of_its_own(
    choice: list[str], grades: list[float], conversation: Any, word_limits: Any
) -> None:
    content = {"choice": choice, "pointwise": {"user": "{query} {candidates}"}}
    prompt = Prompt(build_template(content, "mine"), word_limits())
    answers = [Answer(f"<think>7</think><answer>{said}</answer>") for said in ("3", "10", "none")]
    ranking, calls = conversation.drive(grade_each(conversation.request(3), prompt), replies(*answers))
    assert [step.grade for step in ranking.steps] == grades
    assert calls[0].identifiers == tuple(choice)


@pytest.mark.parametrize("choice", [["1", "2", "3"], ["bad", "fair", "good"], ["0"], ["a"]])
def test_other_answers_than_two_words_or_whole_numbers_are_refused(choice: list[str]) -> None:
    with pytest.raises(InputError, match=r"choice.*: give"):
        build_template({"choice": choice, "pointwise": {"user": "{query} {candidates}"}}, "mine")
