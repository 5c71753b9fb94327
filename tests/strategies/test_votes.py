"""Votes: who is heard, how they are counted, and what the trace says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.cache.records import key_maker
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.trace_view import outcome_of
from r1ranker_ir.runs.traces import TracedRanking, read_trace
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.strategies.pointwise import PointwiseOptions
from r1ranker_ir.types import Answer, Call, Candidate, Ranking, RankingRequest, Usage


def decide(
    prompt: Prompt, conversation: Any, strategy: str, said: Sequence[Sequence[int] | str], **options: Any
) -> tuple[Ranking, list[Call]]:
    """Has as many votes decide as there are answers, given as documents in whatever order they are shown."""
    turn = iter(said)

    def reply(call: Call) -> Answer:
        answer = next(turn)
        if isinstance(answer, str):
            return Answer(answer, usage=Usage(1, 10, 1))
        assert call.question is not None
        names = dict(zip(call.question.answerable, call.identifiers, strict=True))
        return Answer("said", choice=tuple(names[position] for position in answer), usage=Usage(1, 10, 1))

    count = max(len(answer) for answer in said if not isinstance(answer, str))
    request = conversation.request(options.pop("count", count))
    asked = RankingOptions(votes=len(said), **options)
    ranking, calls = conversation.drive(STRATEGIES[strategy](request, prompt, options=asked), reply)
    return ranking, calls


def test_orders_are_decided_by_majority_place_by_place(prompt: Prompt, conversation: Any) -> None:
    said = [(0, 1, 2, 3), (2, 1, 0, 3), (2, 0, 1, 3)]
    ranking, calls = decide(prompt, conversation, "direct", said)
    # 2 is first twice; of the others 0 comes before 1 in two of three.
    assert ranking.order == (2, 0, 1, 3)
    assert [step.outcome for step in ranking.steps] == said
    assert [sorted(step.shown) for step in ranking.steps] == [[0, 1, 2, 3]] * 3
    assert len({step.shown for step in ranking.steps}) == 3
    assert conversation.shown(calls[0]) == [0, 1, 2, 3]
    # Of 6 pairs the votes order 4, 5 and 6 alike.
    assert [step.confidence for step in ranking.steps] == pytest.approx([15 / 18] * 3)
    assert ranking.usage == Usage(3, 30, 3)


def test_borda_counts_all_places(prompt: Prompt, conversation: Any) -> None:
    said = [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 3, 2), (1, 2, 3, 0), (1, 2, 3, 0)]
    by_majority, _ = decide(prompt, conversation, "direct", said)
    by_borda, _ = decide(prompt, conversation, "direct", said, vote_by="borda")
    assert by_majority.order[0] == 0
    # 1 has 2 + 2 + 2 + 3 + 3 points, 0 has 9.
    assert by_borda.order == (1, 0, 2, 3)


@pytest.mark.parametrize("vote_by", ["majority", "borda"])
def test_the_best_is_who_most_call_it_and_equals_go_by_the_first_stage(
    vote_by: str, prompt: Prompt, conversation: Any
) -> None:
    def best(*said: int) -> int:
        ranking, _ = decide(
            prompt, conversation, "setwise", [(name,) for name in said], count=5, top_k=1, vote_by=vote_by
        )
        assert {step.confidence for step in ranking.steps} == {
            sum(name == ranking.order[0] for name in said) / len(said)
        }
        return ranking.order[0]

    assert best(3, 1, 3) == 3
    assert best(3, 1, 4, 1, 3) == 1
    assert best(4, 2) == 2


def test_the_worst_of_equals_is_the_last_of_the_first_stage(prompt: Prompt, conversation: Any) -> None:
    ranking, _ = decide(prompt, conversation, "iterative", [(1,), (0,)], count=2)
    assert ranking.order == (0, 1)


def test_what_can_not_be_read_has_no_vote_and_is_counted(prompt: Prompt, conversation: Any) -> None:
    said: list[Sequence[int] | str] = [(2,), "no idea", (2,), "<answer>[9]</answer>", (1,)]
    ranking, calls = decide(prompt, conversation, "setwise", said, count=3, top_k=1)
    assert ranking.order[0] == 2
    assert [step.repaired for step in ranking.steps] == [False, True, False, True, False]
    assert [call.repairs_before for call in calls] == [0, 0, 1, 1, 2]
    assert {step.confidence for step in ranking.steps} == {2 / 5}
    assert [step.outcome for step in ranking.steps] == [(2,), (2,), (2,), (2,), (1,)]


def test_probabilities_are_their_mean_and_tell_equals_apart(prompt: Prompt, conversation: Any) -> None:
    told = iter([(0.6, 0.1, 0.3), (0.1, 0.15, 0.75)])

    def reply(call: Call) -> Answer:
        assert call.question is not None
        chances = next(told)
        by_name = {name: chances[place] for name, place in zip(call.identifiers, call.question.shown, strict=True)}
        return Answer("", choice=(max(by_name, key=by_name.__getitem__),), probabilities=by_name)

    options = RankingOptions(votes=2, think="never")
    program = STRATEGIES["direct"](conversation.request(3), prompt, options=options)
    ranking, _ = conversation.drive(program, reply)
    # 0 and 2 have a vote each; 0.35, 0.125 and 0.525 are the means.
    assert ranking.order == (2, 0, 1)
    assert ranking.steps[1].probabilities == pytest.approx({0: 0.1, 1: 0.15, 2: 0.75})


@pytest.mark.parametrize(
    ("said", "sure", "graded_by", "order", "scores"),
    [
        ([(3, 4), (9, 1)], True, "expectation", (1, 0), (5.0, 3.5)),
        ([(3, 4), (9, 1)], True, "likeliest", (0, 1), (1.5, 0.5)),  # of the mean probabilities
        ([(9, 2, 2), (3, 1, 3)], False, "expectation", (1, 0), (3.0, 2.0)),  # what most of them say
    ],
)
def test_grades_of_several_thoughts_are_one_score_that_the_order_goes_by(
    said: Sequence[Sequence[int]],
    sure: bool,
    graded_by: Any,
    order: tuple[int, ...],
    scores: tuple[float, ...],
    prompt: Prompt,
    conversation: Any,
    tmp_path: Path,
) -> None:
    grades = iter([grade for votes in said for grade in votes])

    def reply(call: Call) -> Answer:
        named = f"[{next(grades)}]"
        chances = {name: float(name == named) for name in call.identifiers}
        return Answer("", choice=(named,), probabilities=chances if sure else None)

    options = PointwiseOptions(votes=len(said[0]), vote_among="thoughts", graded_by=graded_by)
    ranking, calls = conversation.drive(
        STRATEGIES["pointwise"](conversation.request(2, query_id="q"), prompt, options=options), reply
    )
    assert ranking.order == order and ranking.scores == scores
    assert [step.grade for step in ranking.steps] == [grade for votes in said for grade in votes]
    assert [call.sample for call in calls] == [*range(len(said[0]))] * 2
    assert calls[0].messages == calls[1].messages
    path = tmp_path / "t.jsonl"
    path.write_text(TracedRanking("pointwise", ranking).to_json() + "\n")
    [traced] = read_trace(path)
    assert traced.ranking.scores == scores
    assert outcome_of(ranking.steps[0], 0, "grade") == f"grade {said[0][0]}.0, {scores[order.index(0)]} by all votes"


def test_votes_undo_noise() -> None:
    requests = [
        RankingRequest(f"query {name}", tuple(Candidate(f"d{n}", f"document {n}") for n in range(20)), query_id=name)
        for name in map(str, range(40))
    ]
    gains = {each.query_id: {f"d{n}": float((7 * n + int(each.query_id)) % 20) for n in range(20)} for each in requests}

    def quality(**options: Any) -> float:
        backend = OracleBackend(gains=gains, noise=4)
        prompt = Prompt(load_template(), backend)
        programs = [STRATEGIES["direct"](each, prompt, options=RankingOptions(**options)) for each in requests]
        found = Engine(backend).run(programs)
        return sum(gains[each.request.query_id][f"d{each.order[0]}"] for each in found) / len(found)

    assert quality() + 1 < quality(votes=7, vote_by="borda")
    assert quality() + 1 < quality(votes=7, vote_by="borda", vote_among="thoughts")


def test_samples_of_one_call_are_kept_apart(prompt: Prompt, conversation: Any) -> None:
    call = prompt.ask("setwise", conversation.request(3), range(3))
    key_of = key_maker({"backend": "any"})
    assert key_of(call) == key_of(replace(call, sample=0, ranking=4))
    assert len({key_of(replace(call, sample=number)) for number in range(4)}) == 4


def test_a_local_model_thinks_anew_for_each_sample(open_model: Callable[..., Any], conversation: Any) -> None:
    backend = open_model("chatml", temperature=1.5, max_thought_tokens=8)
    call = Prompt(load_template(), backend).ask("setwise", conversation.request(2), range(2))
    calls = [replace(call, sample=number) for number in range(3)]
    texts = [answer.text for answer in backend.answer(calls)]
    assert len(set(texts)) == 3
    assert backend.answer([call])[0].text == texts[0]
    assert [answer.text for answer in backend.answer(calls[::-1])] == texts[::-1]


def test_thoughts_that_can_not_differ_are_an_error(make_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="give a temperature above 0"):
        Ranker(make_checkpoint("chatml"), strategy="setwise", votes=3, vote_among="thoughts", device="cpu")
