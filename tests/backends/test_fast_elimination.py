"""Eliminations and orderings that cost less than the published ones, driven by hand and by the embedded model."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import r1ranker
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1ranker_ir import Ranker
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.runs.traces import read_trace, trace_of
from r1ranker_ir.strategies.direct import order_directly
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.training.data.from_traces import OTHER_PROMPT, SEVERAL_EXCLUDED, read_traces, select_steps
from r1ranker_ir.training.data.gold_answers import gold_completion
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.trainers.sft import CompletionTokenizer, end_of_turn
from r1ranker_ir.types import Answer, Call, Candidate, RankingRequest

SCHEDULES = ["one", "fixed:3", "halving", "halving:5", "confident:0.6", "all"]
OPTIONS = st.builds(
    RankingOptions,
    schedule=st.sampled_from([None, *SCHEDULES]),
    layout=st.sampled_from(["shrink", "mark"]),
    think=st.sampled_from(["always", "first", "never"]),
    top_k=st.one_of(st.none(), st.integers(1, 30)),
)


def shown(call: Call) -> dict[str, int]:
    """Identifier to document of those that a call lets be answered."""
    lines = re.findall(r"^(\[\d+\]) document (\d+)$", call.messages[-1].content, re.MULTILINE)
    assert [name for name, _ in lines] == [f"[{number}]" for number in range(1, len(lines) + 1)]
    documents = {name: int(document) for name, document in lines}
    return {name: documents[name] for name in call.identifiers}


def judge(scores: Callable[[int], float], *, best: bool = False) -> Callable[[Call], Answer]:
    """Answers by scores: the probability of an identifier grows with its document's badness, or with its quality."""

    def reply(call: Call) -> Answer:
        documents = shown(call)
        values = {name: scores(document) * (1 if best else -1) for name, document in documents.items()}
        highest = max(values.values())
        weights = {name: math.exp(value - highest) for name, value in values.items()}
        total = sum(weights.values())
        order = sorted(values, key=lambda name: -values[name])
        wanted = 1 if call.form == "one" else call.top or len(order)
        chances = {name: weight / total for name, weight in weights.items()}
        return Answer("", thought="[1] is bad", choice=tuple(order[:wanted]), probabilities=chances)

    return reply


@settings(max_examples=30)
@given(quality=st.integers(0, 34).flatmap(lambda n: st.permutations(range(n))), options=OPTIONS)
def test_every_option_gives_a_permutation_with_the_best_first(
    quality: list[int], options: RankingOptions, prompt: Prompt, conversation: Any
) -> None:
    count = len(quality)
    ranking, calls = conversation.drive(
        eliminate(conversation.request(count), prompt, options=options), judge(lambda document: quality[document])
    )
    ideal = sorted(range(count), key=lambda document: -quality[document])
    assert sorted(ranking.order) == list(range(count))
    sure = count if count <= 20 else 10
    kept = min(sure, options.top_k or sure)
    assert list(ranking.order[:kept]) == ideal[:kept]
    if options.top_k is not None:
        assert list(ranking.order[options.top_k :]) == sorted(ranking.order[options.top_k :])
    assert len(calls) <= max(0, count - 1)
    assert sum(len(step.outcome) for step in ranking.steps) == max(0, count - 1)
    for step in ranking.steps:
        assert set(step.outcome) <= set(step.shown) - set(step.marked)
    again = trace_of(ranking, "iterative")
    assert json.loads(json.dumps(again)) == again


def test_how_many_calls_a_list_of_twenty_takes(prompt: Prompt, conversation: Any) -> None:
    for calls, options in [
        *((19, {}), (5, {"schedule": "halving"}), (6, {"schedule": "halving:5"}), (5, {"schedule": "fixed:4"})),
        *((1, {"think": "never"}), (5, {"think": "never", "schedule": "halving"})),
        *((5, {"top_k": 5}), (1, {"top_k": 1}), (19, {"top_k": 20})),
    ]:
        program = eliminate(conversation.request(20), prompt, options=RankingOptions(**options))  # type: ignore[arg-type]
        ranking, made = conversation.drive(program, judge(lambda document: document))
        assert len(made) == len(ranking.steps) == calls, options
        assert {call.thought for call in made} == ({""} if "think" in options else {None})
    program = eliminate(conversation.request(100), prompt, options=RankingOptions(schedule="halving"))
    ranking, made = conversation.drive(program, judge(lambda document: document))
    assert [len(call.identifiers) for call in made] == [20] * 9 + [10, 5, 3, 2]
    assert ranking.order[:10] == tuple(range(99, 89, -1))


def test_mark_shows_the_same_beginning_with_every_call(prompt: Prompt, conversation: Any) -> None:
    program = eliminate(conversation.request(6), prompt, options=RankingOptions(layout="mark"))
    ranking, calls = conversation.drive(program, judge(lambda document: [3, 0, 5, 1, 4, 2][document]))

    ends = [call.messages[-1].content.rpartition("Dropped before: ") for call in calls]
    assert len({beginning for beginning, _, _ in ends}) == len({call.messages[0] for call in calls}) == 1
    assert [end for _, _, end in ends] == ["none", "[2]", "[2][4]", "[2][4][6]", "[2][4][6][1]"]
    assert calls[2].identifiers == ("[1]", "[3]", "[5]", "[6]")
    assert ranking.order == (2, 4, 0, 5, 3, 1)
    assert [step.marked for step in ranking.steps][:3] == [(), (1,), (1, 3)]
    assert set(ranking.steps[2].probabilities or {}) == {0, 2, 4, 5}


def test_mark_cuts_passages_alike_in_all_calls(word_limits: Any, prompt: Prompt, conversation: Any) -> None:
    texts = tuple(Candidate(f"d{place}", f"document {place} " + "word " * 40) for place in range(5))
    tight = Prompt(prompt.template, word_limits(context_length=220, answer_reserve=10))
    program = eliminate(RankingRequest("q", texts), tight, options=RankingOptions(layout="mark"))
    _, calls = conversation.drive(program, lambda call: Answer("", choice=(call.identifiers[-1],)))
    assert all(call.cut_passages for call in calls)
    assert len({call.messages[-1].content.rpartition("Dropped before")[0] for call in calls}) == 1


def test_the_first_thought_stays_with_its_identifiers_brought_up_to_date(prompt: Prompt, conversation: Any) -> None:
    quality = judge(lambda document: [3, 0, 2, 1][document])

    def reply(call: Call) -> Answer:
        thought = "[2] is off, [4] and [3] better, [9] unknown" if call.thought is None else call.thought
        answer = quality(call)
        return Answer("", thought, answer.choice, answer.probabilities)

    request = conversation.request(4)
    ranking, calls = conversation.drive(eliminate(request, prompt, options=RankingOptions(think="first")), reply)
    assert [call.thought for call in calls] == [
        None,
        "(excluded) is off, [3] and [2] better, [9] unknown",
        "(excluded) is off, (excluded) and [2] better, [9] unknown",
    ]
    assert [step.thought_given for step in ranking.steps] == [False, True, True]
    assert ranking.order == (0, 2, 3, 1)
    marked = RankingOptions(think="first", layout="mark")
    _, calls = conversation.drive(eliminate(request, prompt, options=marked), reply)
    assert [call.thought for call in calls][1:] == ["[2] is off, [4] and [3] better, [9] unknown"] * 2


def test_the_best_are_shown_first_after_the_first_answer(prompt: Prompt, conversation: Any) -> None:
    program = eliminate(conversation.request(5), prompt, options=RankingOptions(show_best_first=True))
    ranking, calls = conversation.drive(program, judge(lambda document: document))
    assert [list(shown(call).values()) for call in calls] == [[0, 1, 2, 3, 4], [4, 3, 2, 1], [4, 3, 2], [4, 3]]
    assert ranking.order == (4, 3, 2, 1, 0)


@settings(max_examples=30)
@given(
    quality=st.integers(0, 60).flatmap(lambda n: st.permutations(range(n))),
    think=st.sampled_from(["always", "never"]),
    top_k=st.integers(1, 30),
)
def test_direct_orders_the_top_as_it_would_without_the_options(
    quality: list[int], think: Any, top_k: int, prompt: Prompt, conversation: Any
) -> None:
    request = conversation.request(len(quality))
    reply = judge(lambda document: quality[document], best=True)
    whole, _ = conversation.drive(order_directly(request, prompt), reply)
    options = RankingOptions(think=think, top_k=top_k)
    ranking, calls = conversation.drive(order_directly(request, prompt, options=options), reply)
    assert ranking.order[:top_k] == whole.order[:top_k]
    assert list(ranking.order[top_k:]) == sorted(ranking.order[top_k:])
    assert all((call.form, call.thought) == ("one", "") for call in calls if think == "never")
    assert all(1 <= call.top <= len(call.identifiers) for call in calls if think == "always")
    if think == "always" and len(quality) <= 20:
        assert [call.top for call in calls] == [min(top_k, len(quality))] * len(calls)


@pytest.mark.parametrize("named", ["schedule='halving'", "top_k=3", "think='never'", "show_best_first"])
def test_without_probabilities_the_option_is_named(named: str, prompt: Prompt, conversation: Any) -> None:
    name, _, value = named.partition("=")
    options = RankingOptions(**{name: ast.literal_eval(value or "True")})
    program = eliminate(conversation.request(5), prompt, options=options)
    with pytest.raises(InputError, match=f"{re.escape(named)} goes by the probabilities"):
        conversation.drive(program, lambda call: Answer("<answer>[1]</answer>"))


@pytest.mark.parametrize(
    "arguments,said",
    [
        ({"schedule": "some"}, "schedule is 'some'"),
        ({"layout": "list"}, "layout is 'list': use shrink or mark"),
        ({"think": "twice"}, "think is 'twice': use always or first or never"),
        ({"top_k": 0}, "top_k is 0"),
        ({"layout": "mark", "show_best_first": True}, "drop one of them"),
        ({"strategy": "direct", "think": "first"}, "think='first' is for the iterative strategy"),
        ({"layout": "mark"}, r"template 'tiny' has no section \[mark\], .*, or layout 'shrink'"),
        ({"backend": "openai", "think": "never"}, "'openai' can't"),
        ({"backend": "openai", "schedule": "halving"}, "which 'openai' does not give"),
    ],
)
def test_what_does_not_go_together_is_said_before_a_model_is_loaded(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Ranker(TINY_CHECKPOINT, **{"strategy": "iterative", **arguments})


SUBJECTS = ("flea", "horse", "kettle", "sheep", "boat", "river", "stone", "apple")
REQUEST = RankingRequest(
    "kettle and boat",
    tuple(Candidate(f"d{place}", f"{word} and other words about it") for place, word in enumerate(SUBJECTS)),
    query_id="q",
)


def scores_without_a_thought(places: Sequence[int]) -> dict[int, float]:
    """The probabilities of being the worst, by the embedded model alone: no part of this package."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT)
    model = AutoModelForCausalLM.from_pretrained(TINY_CHECKPOINT, dtype="float32")
    lines = [f"[{number}] {REQUEST.candidates[place].text}" for number, place in enumerate(places, start=1)]
    turn = {"role": "user", "content": "\n".join([f"exclude {REQUEST.query}", *lines])}
    text = tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    ids = tokenizer(f"{text}</think>\n<answer>", add_special_tokens=False, return_tensors="pt").input_ids
    names = tokenizer.convert_tokens_to_ids([f"[{number}]" for number in range(1, len(places) + 1)])
    with torch.inference_mode():
        chances = torch.softmax(model(ids).logits[0, -1, names].double(), -1)
    return dict(zip(places, chances.tolist(), strict=True))


def test_the_embedded_model_follows_every_option() -> None:
    [one_by_one] = _rank(think="never", schedule="one")
    assert len(one_by_one.steps) == 7
    for step in one_by_one.steps:
        chances = scores_without_a_thought(step.shown)
        assert step.probabilities == pytest.approx(chances, abs=1e-5)
        assert step.outcome == (max(chances, key=lambda place: chances[place]),)
        assert step.text.startswith("<think>\n</think>\n<answer>[") and not step.thought_closed

    [scored] = _rank(think="never")
    assert len(scored.steps) == 1
    first = scores_without_a_thought(range(8))
    assert list(scored.order) == sorted(first, key=lambda place: first[place])

    [kept] = _rank(think="first", schedule="halving")
    thoughts = [step.thought for step in kept.steps]
    assert len(thoughts) == 3 and all(thoughts)
    assert [step.thought_given for step in kept.steps] == [False, True, True]

    direct = Ranker(TINY_CHECKPOINT, strategy="direct")
    [whole] = direct.rank([REQUEST])
    [top] = Ranker(TINY_CHECKPOINT, strategy="direct", top_k=3).rank([REQUEST])
    assert top.order[:3] == whole.order[:3]
    assert top.usage.completion_tokens < whole.usage.completion_tokens


def _rank(**options: Any) -> Any:
    return Ranker(TINY_CHECKPOINT, strategy="iterative", **options).rank([REQUEST])


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
@pytest.mark.parametrize("name", ["chatml", "llama3", "thinking", "plain", "nfkc"])
def test_gold_answers_without_a_thought_train_what_never_thinking_asks(
    name: str, strategy: Any, open_model: Callable[..., Any], load_tokenizer: Callable[[str], Any]
) -> None:
    """A row of fine-tuning begins with the tokens that a model reads with think="never"."""
    backend = open_model(name, context_length=8192, max_thought_tokens=0)
    tokenizer, template = load_tokenizer(name), load_template()
    record = judged(REQUEST.query, REQUEST.candidates, (1.0, 0.0, *[2.0] * 6), id="r")
    sample = Sample(strategy, record)
    renderer = PromptRenderer(tokenizer, template)
    rows = CompletionTokenizer(renderer, tokenizer, end_id=end_of_turn(tokenizer, None), max_length=None)
    written = row_of(sample) | {"completion": gold_completion(sample)}
    asked, completion = rows.row_ids(written)

    program = {"iterative": eliminate, "direct": order_directly}[strategy]
    call = next(program(REQUEST, Prompt(template, backend), options=RankingOptions(think="never")))
    assert call.thought == ""
    read = backend._row(call).prompt
    assert asked == read[: len(asked)]
    assert tokenizer.decode(read[len(asked) :]) == "</think>\n<answer>"
    assert tokenizer.decode(completion).startswith("</think>\n<answer>[")
    # Some of these vocabularies hold `>[` as one token, so the tag's last one may be another in a row.
    assert [*asked, *completion][: len(read) - 1] == read[:-1]


def test_traces_of_fast_eliminations_come_back_whole_and_are_no_training_data(
    tmp_path: Path, prompt: Prompt, conversation: Any
) -> None:
    options = RankingOptions(schedule="halving:3", layout="mark", think="first")
    request = conversation.request(8, query_id="q")
    ranking, _ = conversation.drive(eliminate(request, prompt, options=options), judge(lambda document: document))
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(trace_of(ranking, "iterative")) + "\n")
    [traced] = read_trace(path)
    assert traced.ranking == ranking

    counts = select_steps(read_traces(path), {"q": {"d7": 1.0}}).counts
    assert counts[SEVERAL_EXCLUDED] == 1 and counts[OTHER_PROMPT] == len(ranking.steps) - 1

    printed = r1ranker("trace", "show", "q", "--trace", path).output
    assert "excluded before" in printed and "the thought of an earlier call" in printed
