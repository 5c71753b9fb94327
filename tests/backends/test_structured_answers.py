"""Chat servers that hold a model to a schema, that tell log-probabilities, and that mark thoughts in their own way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Behaviour, Reply, Request, ScriptedServer, Serve, completion, obeying, refusal, with_tokens
from test_openai_backend import backend, call

from r1ranker_ir.backends.channels import in_one_form
from r1ranker_ir.backends.odds import WrittenToken, chances_of
from r1ranker_ir.backends.structured import read_structured
from r1ranker_ir.prompts.answers import read_answer
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

ORDER = "<answer>[3] > [1] > [2]</answer>"
EXTRAS = {"response_format", "logprobs", "top_logprobs"}


def request(count: int = 4) -> RankingRequest:
    return RankingRequest(
        "how long do fleas live", tuple(Candidate(f"d{each}", f"text {each}") for each in range(count))
    )


def rank(server: ScriptedServer, strategy: str, count: int = 4, **options: Any) -> Ranking:
    ranker = Ranker("m", strategy=strategy, backend="openai", base_url=server.base_url, max_retries=0, **options)
    return ranker.rank([request(count)])[0]


def last(identifiers: Sequence[str]) -> str:
    return identifiers[-1]


# --- answers by a schema --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "order", "calls"),
    [
        ("iterative", (0, 1, 2, 3), 3),
        ("direct", (3, 2, 1, 0), 1),
        ("setwise", (3, 0, 1, 2), None),
        ("pointwise", None, 4),
    ],
)
def test_answers_are_chosen_by_the_schema(
    serve: Serve, strategy: str, order: tuple[int, ...] | None, calls: int | None
) -> None:
    server = serve(obeying(last))
    ranking = rank(server, strategy)
    assert ranking.repairs == 0
    assert order is None or ranking.order[:1] == order[:1]
    assert calls is None or len(server.requests) == calls
    assert {step.thought for step in ranking.steps} == {"a"}
    assert {step.chosen_by for step in ranking.steps} == {"constraint"}


def test_an_order_that_repeats_itself_is_repaired(serve: Serve) -> None:
    ranking = rank(serve(completion('{"thought": "a", "answer": ["[3]", "[3]", "[1]"]}')), "direct", 3)
    assert (ranking.order, ranking.repairs) == ((2, 0, 1), 1)
    assert {step.chosen_by for step in ranking.steps} == {"parsing"}


def plain(request: Request) -> Reply:
    """A server that can do nothing but chat."""
    return completion(
        f"<think>b</think>{ORDER}" if "order" in request.question else "<think>b</think><answer>[2]</answer>"
    )


def without(refused: Reply, *fields: str) -> Behaviour:
    return lambda request: refused if {*fields} & request.body.keys() else plain(request)


@pytest.mark.parametrize(
    ("behaviour", "most"),
    [
        (plain, 0),
        (without(refusal(400, "This response_format type is unavailable now"), "response_format"), 1),
        (without(refusal(400, "json_schema is not supported with this model"), "response_format"), 1),
        (without(refusal(422, "Extra inputs are not permitted: response_format, logprobs"), *EXTRAS), 3),
        (without(refusal(400, "Bad request"), *EXTRAS), 1),
        (without(refusal(403, "You are not allowed to request logprobs"), "logprobs"), 2),
        (without(refusal(500, "failed to parse grammar"), "response_format"), 1),
        (without(Reply('{"error": {"message": "unknown field response_format", "code": 400}}'), "response_format"), 1),
    ],
)
@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_what_a_server_can_not_do_is_asked_for_once(
    serve: Serve, behaviour: Behaviour, most: int, strategy: str
) -> None:
    server, chat = serve(behaviour), serve(plain)
    expected = rank(chat, strategy, leave_out=("response_format", "logprobs"))
    assert not EXTRAS & set().union(*(each.body for each in chat.requests))
    ranker = Ranker("m", strategy=strategy, backend="openai", base_url=server.base_url, concurrency=1)
    for _ in range(3):
        [ranking] = ranker.rank([request()])
        assert (ranking.order, ranking.steps) == (expected.order, expected.steps)
    assert len(server.requests) <= 3 * len(chat.requests) + most
    assert "response_format" not in server.requests[-1].body
    summary = ranker.summary
    assert (summary.chosen_by_parsing, summary.choices) == (
        summary.usage.calls,
        f"{summary.usage.calls} answers read from text",
    )


def test_fewer_alternatives_are_asked_for_before_none(serve: Serve) -> None:
    def strict(request: Request) -> Reply:
        allowed = request.body.get("top_logprobs", 0) <= 5
        return obeying(last)(request) if allowed else refusal(400, "top_logprobs must be between 0 and 5")  # type: ignore[operator]

    server = serve(strict)
    assert rank(server, "iterative").repairs == 0
    assert [each.body.get("top_logprobs") for each in server.requests[:2]] == [20, 5]


@pytest.mark.parametrize(
    ("message", "thought", "choice"),
    [
        ({"content": '{"thought": "x\\n\\"y\\"", "answer": "[2]"}'}, 'x\n"y"', "[2]"),
        ({"content": '```json\n{"thought": "x", "answer": "[2]"}\n```'}, "x", "[2]"),
        ({"content": '<think>r</think>\n{"thought": "x", "answer": "[2]"}'}, "r\n\nx", "[2]"),
        ({"content": '{"thought": "x", "answer": 2}'}, "x", "[2]"),
        ({"content": '{"thought": "x {", "answer": "[2]"}', "reasoning_content": "r"}, "r\n\nx {", "[2]"),
        ({"content": None, "reasoning_content": '{"thought": "x", "answer": "[2]"}'}, "x", "[2]"),
        ({"content": "", "reasoning": 'r\n{"thought": "x", "answer": "[2]"}'}, "r\n\nx", "[2]"),
        ({"content": '{"thought": "x", "answer": "[9]"}'}, "x", None),
    ],
)
def test_where_the_answer_by_the_schema_stands(
    serve: Serve, message: dict[str, Any], thought: str, choice: str | None
) -> None:
    [answer] = backend(serve(completion(message.pop("content"), **message))).answer([call()])
    assert (answer.thought, answer.choice) == (thought, None if choice is None else (choice,))
    assert answer.text == f"<think>{thought}</think><answer>{choice or '[9]'}</answer>"
    assert not answer.thought_closed


@pytest.mark.parametrize("said", ['{"thought": "so far', '{"thought": "so far\\', '{ "thought" : "so far\\u00'])
def test_a_thought_that_runs_into_the_limit_is_no_answer(serve: Serve, said: str) -> None:
    [answer] = backend(serve(completion(said, finish="length"))).answer([call()])
    assert (answer.text, answer.thought, answer.closed_at, answer.choice) == ("<think>so far", "so far", "limit", None)


@given(st.text(st.sampled_from('{}[]":,\\ \nthougansweru0123')), st.text(), st.sampled_from(["one", "order"]))
def test_any_text_is_an_answer_by_the_schema_or_none(noise: str, thought: str, form: str) -> None:
    read_structured(call(), noise)
    said = json.dumps({"thought": thought, "answer": ["[3]", "[1]", "[2]"] if form == "order" else "[3]"})
    found = read_structured(call(form=form), said)
    assert found is not None and found.thought == thought
    assert found.choice(call(form=form)) == (("[3]", "[1]", "[2]") if form == "order" else ("[3]",))


# --- log-probabilities ----------------------------------------------------------------------------------------------

SPLITS: list[list[tuple[str, dict[str, float]]]] = [
    [("<answer>", {}), ("[", {}), ("2", {"2": 0.6, "1": 0.3, "9": 0.1}), ("]", {}), ("</answer>", {})],
    [("<answer>[", {}), ("2", {"2": 0.6, "1": 0.3, "[": 0.1}), ("]</", {}), ("answer>", {})],
    [("<answer>", {}), ("[2", {"[2": 0.6, "[1": 0.3, "\n": 0.1}), ("]", {}), ("</answer>", {})],
    [("<ans", {}), ("wer>[2", {"wer>[2": 0.6, "wer>[1": 0.3, "wer>": 0.1}), ("]</answer>", {})],
    [("<answer>", {}), ("[2]", {"[2]": 0.6, "[1]": 0.3}), ("</answer>", {})],
    [('{"answer": "[', {}), ("2", {"2": 0.6, "1": 0.3, "9": 0.1}), (']"}', {})],
]


@pytest.mark.parametrize("tokens", SPLITS, ids=lambda tokens: "|".join(text for text, _ in tokens))
def test_identifiers_get_the_probabilities_of_their_tokens(
    serve: Serve, tokens: list[tuple[str, dict[str, float]]]
) -> None:
    thought = [("<think>", {}), ("[1", {}), ("]", {}), ("</think>", {})] if tokens[0][0] != SPLITS[-1][0][0] else []
    said = "".join(text for text, _ in (*thought, *tokens))
    [answer] = backend(serve(with_tokens(completion(said), [*thought, *tokens]))).answer([call()])
    assert answer.probabilities == pytest.approx({"[1]": 1 / 3, "[2]": 2 / 3, "[3]": 0.0})


@pytest.mark.parametrize(
    ("alternatives", "expected"),
    [
        ({"1": 0.5, "10": 0.3, "2": 0.2}, {"[1]": 0.5, "[2]": 0.2, "[10]": 0.3}),  # numbers in one token
        ({"2": 0.6, "1": 0.4}, None),  # [1] or [10]?
        ({"1": 0.8, "2": 0.2}, {"[1]": 0.6, "[2]": 0.2, "[10]": 0.2}),  # told by the token behind
    ],
)
def test_identifiers_of_several_digits(alternatives: dict[str, float], expected: dict[str, float] | None) -> None:
    written = next(iter(alternatives))
    behind = {"]": 0.75, "0": 0.25} if written == "1" and "10" not in alternatives else {"]": 1.0}
    tokens = [WrittenToken("[", {}), WrittenToken(written, alternatives), WrittenToken("]", behind)]
    found = chances_of(tokens, 0, ["[1]", "[2]", "[10]"])
    # "[" stands for all of them.
    tokens[0] = replace(tokens[0], chances={"[": 1.0})
    found = chances_of(tokens, 0, ["[1]", "[2]", "[10]"])
    assert found == (None if expected is None else pytest.approx(expected))


def test_probabilities_are_in_the_trace_and_make_grades(serve: Serve) -> None:
    def graded(request: Request) -> Reply:
        wanted = request.body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
        sure = 0.5 + 0.1 * int(request.question.partition("text ")[2][0])
        chances = {wanted[-1]: sure, wanted[0]: 1 - sure}
        tokens = [('{"answer": "', {}), (wanted[-1], chances), ('"}', {})]
        return with_tokens(completion("".join(text for text, _ in tokens)), tokens)

    ranking = rank(serve(graded), "pointwise")
    assert ranking.order == (3, 2, 1, 0)
    assert len({step.grade for step in ranking.steps}) == 4


SCORES = st.dictionaries(st.text(st.sampled_from("[]12 "), max_size=4), st.floats(0, 1), max_size=6)


@given(st.lists(st.tuples(st.text(st.sampled_from("[]12 "), max_size=4), SCORES), max_size=6), st.integers(0, 9))
def test_probabilities_sum_to_one_or_are_none(tokens: list[tuple[str, dict[str, float]]], begin: int) -> None:
    found = chances_of([WrittenToken(*each) for each in tokens], begin, ["[1]", "[2]", "[12]"])
    assert found is None or sum(found.values()) == pytest.approx(1)


# --- marks of thoughts ----------------------------------------------------------------------------------------------

HARMONY = "<|channel|>analysis<|message|>the third<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"
MARKED = [
    "[THINK]the third[/THINK]{}",
    "the third[/THINK]{}",
    "<thinking>the third</thinking>\n{}",
    "<|START_THINKING|>the third<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    HARMONY,
    HARMONY.removeprefix("<|channel|>analysis<|message|>"),
    HARMONY.replace("final<", "final <|constrain|>json<"),
    "analysisthe thirdassistantfinal{}",
    "<|channel>thought\nthe third<channel|>{}",
]


@pytest.mark.parametrize("marked", MARKED)
@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_thoughts_in_a_models_own_marks(serve: Serve, marked: str, field: str) -> None:
    fields = {"content": None, field: marked.format(ORDER)}
    ranking = rank(serve(completion(fields.pop("content"), **fields)), "direct", 3)
    assert (ranking.order, ranking.repairs, ranking.steps[0].thought) == ((2, 0, 1), 0, "the third")


def test_a_thought_in_its_own_marks_that_does_not_end(serve: Serve) -> None:
    for said in ("[THINK]a [1]", "<|channel|>analysis<|message|>a [1]"):
        [answer] = backend(serve(completion(said, finish="length"))).answer([call()])
        assert (answer.text, answer.closed_at) == ("<think>a [1]", "limit")


OBJECT = '{"thought": "a", "answer": "[2]"}'


@pytest.mark.parametrize("said", [f"{OBJECT}\n\n[1] was close.", f"```json\n{OBJECT}\n```\nI prefer it to [1]."])
def test_words_behind_the_answer_do_not_count(serve: Serve, said: str) -> None:
    [answer] = backend(serve(completion(said))).answer([call()])
    assert (answer.choice, answer.thought, answer.closed_at) == (("[2]",), "a", None)
    [either] = backend(serve(completion(f"{OBJECT} or {OBJECT} or so"))).answer([call()])
    assert either.choice is None


@pytest.mark.parametrize(
    "said",
    [
        "<think>I must write <answer>[1]</answer> but first",
        "<|channel|>analysis<|message|>I must write <answer>[1]</answer> but first",
        '<think>I must write {"answer": "[1]"}',
        'I must write {"answer": "[1]"}',
    ],
)
@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_a_thought_at_its_limit_may_speak_of_answers(serve: Serve, said: str, field: str) -> None:
    fields = {"content": None, field: said}
    [answer] = backend(serve(completion(fields.pop("content"), finish="length", **fields))).answer([call()])
    assert (answer.choice, answer.closed_at) == (None, "limit") and answer.thought.startswith("I must write")
    assert not read_answer(answer.text, 3, "one").indices


LOOPS = [
    "<|channel|>" + "a" * 10**6,
    "analysis" + "commentary" * 10**5,
    "a" + "\n" * 10**6 + "x\ny z",
    "```json a" + "\n" * 10**6 + "x",
    '{"answer": "[1]"} ' * 10**5 + "x",
    '{"answer":' * 10**5,
]


@pytest.mark.parametrize("said", LOOPS, ids=lambda said: said[:20])
@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_what_repeats_itself_is_read_in_seconds(serve: Serve, said: str, field: str) -> None:
    """Of a model that loops, or of a hostile server: a pattern that looks back at each place would take hours."""
    fields = {"content": None, field: said}
    assert rank(serve(completion(fields.pop("content"), **fields)), "iterative", 3).order


@pytest.mark.parametrize(
    "ends",
    [
        "[3] > [1] > [2]",
        "**Answer:**\n[3] > [1] > [2]",
        "**[3] > [1] > [2]**",
        "Final answer: [3] > [1] > [2]",
        "**Answer:** [3] > [1] > [2]",
    ],
)
def test_a_thought_that_ends_in_the_answer_alone(serve: Serve, ends: str) -> None:
    ranking = rank(serve(completion(None, reasoning_content=f"the third\n\n{ends}")), "direct", 3)
    assert (ranking.order, ranking.repairs, ranking.steps[0].thought) == ((2, 0, 1), 0, "the third")


@given(st.text(st.sampled_from("ab [1]\n.")).map(str.strip))
def test_text_without_marks_stays(text: str) -> None:
    assert in_one_form(text) == text
    assert in_one_form(f"<think>{text}</think>{ORDER}") == f"<think>{text}</think>{ORDER}"
