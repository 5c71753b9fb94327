"""Fine-tuning learns thought and answer as they are given, or refuses the row; whatever the chat template drops."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.errors import CheckpointError, DataFileError, InputError
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.trainers.sft import NO_LOSS, CompletionTokenizer, end_of_turn
from r1ranker_ir.types import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As DeepSeek-R1's does: an assistant's turn loses all up to the end of its thought, and the next one is opened.
DROPS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# As Qwen3's does: only the thought of the last turn stays, and is set anew.
LAST_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set c = m.content %}{% if m.role == 'assistant' %}"
    "{% if loop.last and '</think>' in c %}<think>\n{{ c.split('</think>')[0].split('<think>')[-1].strip() }}\n</think>"
    "\n\n{{ c.split('</think>')[-1].strip() }}{% else %}{{ c.split('</think>')[-1].strip() }}{% endif %}{% else %}"
    "{{ c }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLOSES = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
TEMPLATES = {"chatml": CHATML, "drops": DROPS, "last only": LAST_ONLY, "closes": CLOSES}
PROMPT = [{"role": "system", "content": "Think in <think> and </think>."}, {"role": "user", "content": "which flea"}]


@pytest.fixture
def learn(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[str, str, str]]:
    """Reads a row from a file and tokenizes it; gives prompt and learned text, and the prompt of ranking."""

    plain = AutoTokenizer.from_pretrained(make_checkpoint("chatml"))

    def learned(template: str, row: dict[str, Any], *, thinks: bool = True) -> tuple[str, str, str]:
        tokenizer = copy.deepcopy(plain)
        tokenizer.chat_template = template
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(row) + "\n")
        renderer = PromptRenderer(tokenizer, load_template())
        rows = CompletionTokenizer(renderer, tokenizer, end_id=end_of_turn(tokenizer, None), max_length=None)
        [ids] = rows.tokenize(read_completions(path))
        start = ids["labels"].count(NO_LOSS)
        assert ids["labels"][start:] == ids["input_ids"][start:]
        messages = [Message(turn["role"], turn["content"]) for turn in row["prompt"]]
        ranking = ChatTokenizer(tokenizer).prompt_ids(messages, thinks=thinks)
        decode = tokenizer.decode
        return decode(ids["input_ids"][:start]), decode(ids["input_ids"][start:]), decode(ranking)

    return learned


def row_of(*completion: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "completion": [{"role": "assistant", **turn} for turn in completion], **more}


WORDS = st.text(st.sampled_from("abc ,.é7\n"), min_size=1, max_size=20).map(str.strip).filter(bool)
FORMS: list[Callable[[str, str], dict[str, Any]]] = [
    lambda thought, answer: {"content": f"<think>\n{thought}\n</think>\n{answer}"},
    lambda thought, answer: {"content": f"  <think>{thought}</think>{answer}\n"},
    lambda thought, answer: {"content": f"{thought}</think>\n{answer}"},
    lambda thought, answer: {"content": answer, "reasoning_content": thought},
    lambda thought, answer: {"content": answer, "reasoning": f"\n{thought}\n", "reasoning_content": None},
    lambda thought, answer: {"content": f"\n\n{answer}", "thinking": thought, "tool_calls": []},
]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(TEMPLATES)), thought=WORDS, answer=WORDS, form=st.sampled_from(FORMS))
def test_thought_and_answer_are_learned_as_they_are(
    name: str, thought: str, answer: str, form: Any, learn: Callable[..., tuple[str, str, str]]
) -> None:
    answer = f"<answer>{answer}</answer>"
    prompt, learned, ranking = learn(TEMPLATES[name], row_of(form(thought, answer)))
    assert prompt == ranking and prompt.endswith("<think>\n")
    head, closing, rest = learned.partition("</think>")
    assert closing and head.strip() == thought
    assert rest.strip() == f"{answer}<|im_end|>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_without_a_thought_follows_the_prompt_that_asks_for_none(
    name: str, learn: Callable[..., tuple[str, str, str]]
) -> None:
    prompt, learned, ranking = learn(TEMPLATES[name], row_of({"content": "<answer>[2]</answer>"}), thinks=False)
    assert prompt == ranking
    assert learned.strip() == "<answer>[2]</answer><|im_end|>"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (row_of({"content": "a</think>b", "reasoning_content": "c"}), "a thought in reasoning_content and a tag"),
        (row_of({"content": "b", "reasoning_content": "a</think>c"}), "a thought in reasoning_content and a tag"),
        (
            row_of({"content": "b", "reasoning": "a", "thinking": "c"}),
            "reasoning and thinking both hold a thought: give one",
        ),
        (row_of({"content": "b", "reasoning": ["a"]}), "field 'completion[0].reasoning' is ['a']: give a text"),
        (
            row_of({"content": "b", "tool_calls": [{"name": "x"}]}),
            "field 'completion[0].tool_calls' is unknown: use reasoning_content, ",
        ),
        (row_of({"content": "b"}, {"role": "user", "content": "c"}), "ends with another turn than the assistant's"),
        (row_of({"content": "b"}, reasoning_content="a"), "the row has reasoning_content, which would not be learned"),
        ({"prompt": "p", "completion": "c", "reasoning": "a"}, "the row has reasoning, which would not be learned"),
        (
            row_of({"content": "<think>a</think>b"}, {"role": "user", "content": "c"}, {"content": "d"}),
            "has 3 turns and a thought",
        ),
        (
            row_of({"content": "b"}, {"role": "user", "content": "c"}, {"content": "d", "reasoning": "x"}),
            "has 3 turns and a thought",
        ),
        (
            {**row_of({"content": "z"}), "prompt": [{"role": "assistant", "content": "x", "thinking": "y"}, *PROMPT]},
            "a turn of prompt has a thought of its own",
        ),
        (row_of({"content": " \n"}), "the assistant's turn of completion is blank"),
        ({"prompt": "p", "completion": " \n"}, "field 'completion' is ' \\n': give at least one word"),
        (row_of({"content": "Well. <think>a</think>b"}), "has <think> behind its beginning ('Well. <think>"),
        (row_of({"content": "b"}, tools=[{"name": "x"}]), "the row has tools, which would not be learned"),
        ({"prompt": "p", "completion": "c", "images": ["x.png"]}, "the row has images, which would not be learned"),
    ],
)
def test_what_would_be_less_is_refused_with_its_line(row: dict[str, Any], error: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"prompt": "p", "completion": "c"} if isinstance(row["prompt"], str) else row_of({"content": "a</think>b"})
    path.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(DataFileError, match=r"rows\.jsonl:2: ") as caught:
        read_completions(path)
    assert error in str(caught.value)


@pytest.mark.parametrize("row", [{"messages": PROMPT}, {"text": "fleas"}])
def test_rows_without_a_completion_say_what_is_needed(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataFileError, match=r"rows\.jsonl:1: the row has (messages|text), which would not be learned"):
        read_completions(path)


@pytest.mark.parametrize("name", TEMPLATES)
def test_half_a_surrogate_pair_is_learned_as_prompts_show_it(
    name: str, learn: Callable[..., tuple[str, str, str]], tmp_path: Path
) -> None:
    _, learned, _ = learn(TEMPLATES[name], row_of({"content": "a\ud800b"}), thinks=False)
    assert learned.strip() == "a?b<|im_end|>"
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"prompt": "p\udfff", "completion": "c\ud800"}))
    assert read_completions(path)[0] == {"prompt": "p?", "completion": "c?"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_turn_that_ends_itself_ends_once_and_holds_no_other_control_token(
    name: str, learn: Callable[..., tuple[str, str, str]]
) -> None:
    _, learned, _ = learn(TEMPLATES[name], row_of({"content": "ab<|im_end|>\n"}), thinks=False)
    assert learned.strip() == "ab<|im_end|>"
    with pytest.raises(InputError, match="1 with a control token of the model in the completion"):
        learn(TEMPLATES[name], row_of({"content": "a<|im_end|>b"}))


def test_every_answer_ends_with_the_token_that_stops_the_model(learn: Callable[..., tuple[str, str, str]]) -> None:
    labels = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    _, learned, _ = learn(labels, row_of({"content": "b"}), thinks=False)
    assert learned.split() == ["b<|im_end|>"]


def test_a_thought_in_the_prompt_that_the_template_drops_is_refused(learn: Callable[..., tuple[str, str, str]]) -> None:
    earlier = [*PROMPT, {"role": "assistant", "content": "<think>x</think>y"}, {"role": "user", "content": "and"}]
    prompt, _, _ = learn(CHATML, {**row_of({"content": "b"}), "prompt": earlier})
    assert "<think>x</think>y" in prompt
    for name in ("drops", "last only"):
        with pytest.raises(CheckpointError, match=r"row 1: the chat template of .* leaves out the assistant's turn"):
            learn(TEMPLATES[name], {**row_of({"content": "b"}), "prompt": earlier})


def test_a_samples_thought_may_stand_beside_its_completion(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    sample = {"context": "q", "candidates": ["a", "b"], "strategy": "iterative", "completion": "<answer>[2]</answer>"}
    path.write_text(json.dumps(sample | {"reasoning_content": "b is worse"}))
    [row] = read_completions(path)
    assert row["completion"] == "<think>\nb is worse\n</think>\n<answer>[2]</answer>"


def test_several_turns_that_the_template_changes_are_refused(learn: Callable[..., tuple[str, str, str]]) -> None:
    turns = ({"content": "first"}, {"role": "user", "content": "and"}, {"content": "second"})
    prompt, learned, ranking = learn(CHATML, row_of(*turns), thinks=False)
    assert prompt == ranking and "first" in learned and "second" in learned
    half = CHATML.replace("{{ m.content }}", "{{ m.content if m.role != 'assistant' or loop.last else '' }}")
    with pytest.raises(InputError, match=r"row 1: the chat template of .* does not write several turns"):
        learn(half, row_of(*turns))
