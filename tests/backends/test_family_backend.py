"""Answers without thought or tags, letters, free answers and adapters: the local backend on small real models."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from references import WORDS, Make, Open, Reference

from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.prompts.files import build_any_template
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies.direct import order_directly
from r1ranker_ir.strategies.options import RankingOptions
from r1ranker_ir.types import Call, Candidate, Message, RankingRequest

LISTWISE = {
    "method": "singleturn_listwise",
    "system_message": "You order passages.",
    "body": "[{rank}] {candidate}\n",
    "suffix": "For {query}, order all {num} as in [2] > [1].",
}
LETTERS = {**LISTWISE, "suffix": "For {query}, order all {num} as in [B] > [A]."}
THINKING = {**LISTWISE, "suffix": "For {query}, <think> </think> and then order all {num} as in [2] > [1]."}
RANK_R1 = {
    "prompt_system": "You find the best document.",
    "prompt_user": "Wanted: {query}\n{docs}\nThe best?",
    "pattern": r"<think>.*?</think>\s*<answer>(.*?)</answer>",
}
SETWISE = {**RANK_R1, "pattern": "<answer>(.*?)</answer>"}


def request(count: int, shift: int = 0) -> RankingRequest:
    texts = [" ".join((WORDS * 3)[place : place + 3 + place % 5]) for place in range(shift, shift + count)]
    return RankingRequest(f"{WORDS[shift]} and wool", tuple(Candidate(text, text) for text in texts))


def call_of(content: Any, backend: Any, count: int, **options: Any) -> Call:
    prompt = Prompt(build_any_template(content, "here"), backend, **options)
    section = "setwise" if "prompt_user" in content else "direct"
    return prompt.ask(section, request(count, options.pop("shift", 0)), range(count))


@pytest.mark.parametrize("name", ["chatml", "llama3"])
def test_an_order_comes_straight_away(name: str, open_model: Open, make_checkpoint: Make) -> None:
    backend, reference = open_model(name, max_thought_tokens=8), Reference(make_checkpoint(name))
    for content in (LISTWISE, LETTERS):
        call = call_of(content, backend, 12)
        [answer] = backend.answer([call])
        chosen, found = reference.order(reference.prompt(call), call.identifiers, 12)
        assert answer.probabilities == pytest.approx(found, abs=1e-4)
        assert answer.choice == chosen
        assert answer.text == " > ".join(chosen)
        assert (answer.thought, answer.thought_closed) == ("", False)
        assert answer.usage.prompt_tokens == len(reference.prompt(call))


@pytest.mark.parametrize("name", ["chatml", "llama3"])
def test_first_orders_by_the_letters_scores_behind_a_bracket(
    name: str, open_model: Open, make_checkpoint: Make
) -> None:
    backend, reference = open_model(name), Reference(make_checkpoint(name))
    call = replace(call_of(LETTERS, backend, 9), form="one", thought="")
    letters = [identifier[1] for identifier in call.identifiers]
    tokens = [reference.encode(letter) for letter in letters]
    assert all(len(each) == 1 for each in tokens)
    scores = reference.logits(reference.prompt(call, "["))[[token for [token] in tokens]].softmax(-1)
    [answer] = backend.answer([call])
    assert answer.probabilities == pytest.approx(dict(zip(call.identifiers, scores.tolist(), strict=True)), abs=1e-4)

    prompt = Prompt(build_any_template(LETTERS, "here"), backend)
    options = RankingOptions(think="never")
    [ranking] = Engine(backend).run([order_directly(request(9), prompt, options=options)])
    assert ranking.order == tuple(scores.argsort(descending=True).tolist())
    [step] = ranking.steps
    assert step.probabilities == pytest.approx(dict(enumerate(scores.tolist())), abs=1e-4)
    assert ranking.repairs == 0
    # More than a window: as many calls as windows, each of them by its letters.
    [ranking] = Engine(backend).run([order_directly(request(20), prompt, window_size=10, stride=5, options=options)])
    assert len(ranking.steps) == 3


def test_an_answer_in_tags_without_a_thought(open_model: Open, make_checkpoint: Make) -> None:
    backend, reference = open_model("chatml", max_thought_tokens=8), Reference(make_checkpoint("chatml"))
    call = call_of(SETWISE, backend, 4)
    [answer] = backend.answer([call])
    options = {each: reference.encode(each) for each in call.identifiers}
    found = reference.probabilities(reference.prompt(call, "<answer>"), options)
    assert answer.probabilities == pytest.approx(found, abs=1e-4)
    assert answer.text == f"<answer>{answer.choice[0]}</answer>"


def test_a_thought_that_the_chat_template_opens_is_closed_where_none_is_wanted(
    open_model: Open, load_tokenizer: Open
) -> None:
    tokenizer = load_tokenizer("thinking")
    texts, messages = ChatTokenizer(tokenizer), [Message("user", "sheep")]
    assert texts.decode(texts.prompt_ids(messages, thinks=False)).endswith("<think>\n\n</think>\n\n")
    assert texts.decode(texts.prompt_ids(messages, thinks=None)).endswith("<｜Assistant｜><think>\n")
    assert texts.prompt_ids(messages) == texts.prompt_ids(messages, thinks=None)
    backend = open_model("thinking", max_thought_tokens=4)
    [answer] = backend.answer([call_of(LISTWISE, backend, 3)])
    assert answer.text == " > ".join(answer.choice)


@pytest.mark.parametrize(("name", "content"), [("chatml", RANK_R1), ("llama3", LISTWISE)])
def test_a_free_answer_is_what_the_model_writes(
    name: str, content: Any, open_model: Open, make_checkpoint: Make
) -> None:
    backend, reference = open_model(name, max_thought_tokens=3), Reference(make_checkpoint(name))
    call = call_of(content, backend, 5, published=True)
    # Others of the batch, which stop elsewhere, change nothing.
    others = [call_of(content, backend, 3), call_of(content, backend, 2, published=True)]
    answer = backend.answer([call, *others])[0]
    prompt = reference.prompt(call)
    written = reference.written(prompt, 203)
    ended = reference.tokenizer.eos_token_id in written
    written = [token for token in written if token != reference.tokenizer.eos_token_id]
    assert answer.text == reference.tokenizer.decode(written)
    assert (answer.choice, answer.probabilities) == (None, None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(written))
    assert answer.thought_closed == (content is RANK_R1 and not ended and "</think>" not in answer.text)


def test_batches_of_all_forms_change_no_answer(open_model: Open) -> None:
    together = open_model("chatml", max_thought_tokens=5, batch_size=8)
    own = Prompt(load_template(), together)
    calls = [
        *(
            call_of(content, together, count)
            for count, content in enumerate((LISTWISE, LETTERS, THINKING, RANK_R1, SETWISE), 3)
        ),
        own.ask("iterative", request(4), range(4)),
        replace(call_of(LETTERS, together, 6), form="one", thought=""),
    ]
    alone = [together.answer([call])[0] for call in calls]
    for one, other in zip(alone, together.answer(calls), strict=True):
        assert (one.choice, one.text, one.usage) == (other.choice, other.text, other.usage)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_turns_behind_the_system_turn_stay_apart(load_tokenizer: Open) -> None:
    # Gemma's chat template refuses a system turn.
    texts = ChatTokenizer(load_tokenizer("gemma"))
    said = {"system": "order", "user": "two come", "assistant": "yes"}
    turns = [*(Message(role, text) for role, text in said.items()), Message("user", "flea")]
    # This tokenizer decodes a space behind each special token.
    text = re.sub(r"(<\w+>) ", r"\1", texts.decode(texts.prompt_ids(turns, thinks=False)))
    assert "<start_of_turn>user\norder\n\ntwo come<end_of_turn>" in text
    assert "<start_of_turn>assistant\nyes<end_of_turn>" in text
    assert text.count("<start_of_turn>") == 4
