"""The local backend on real small models: its answers against brute force, thoughts of every kind, and loading."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from references import MODELS, WORDS, Make, Open, Reference
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.errors import CheckpointError, InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.types import Answer, Call, Candidate, Message, RankingRequest, Usage


def make_call(backend: Any, count: int, *, form: str = "one", shift: int = 0) -> Call:
    """A call about passages of different lengths."""
    texts = [" ".join((WORDS * 3)[n : n + 3 + (n * 7 + shift) % 9]) for n in range(shift, shift + count)]
    request = RankingRequest(f"{WORDS[shift % 12]} and wool", tuple(Candidate(text, text) for text in texts))
    prompt = Prompt(load_template(), backend)
    return prompt.ask("iterative" if form == "one" else "direct", request, range(count))


def open_folder(folder: Path, **options: Any) -> TransformersBackend:
    return TransformersBackend(folder, device="cpu", **options)


# --- against brute force -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatml", "llama3", "narrow", "plain"])
@pytest.mark.parametrize("thought_limit", [0, 12])
def test_answers_are_those_of_brute_force(
    name: str, thought_limit: int, open_model: Open, make_checkpoint: Make
) -> None:
    backend = open_model(name, max_thought_tokens=thought_limit)
    reference = Reference(make_checkpoint(name))
    # With twelve shown, [1] begins like [10], [11] and [12].
    calls = [make_call(backend, 12, shift=4), make_call(backend, 12, form="order"), make_call(backend, 3, shift=1)]
    for call, answer in zip(calls, backend.answer(calls), strict=True):
        prompt = reference.prompt(call, "<think>\n")
        written = reference.written(prompt, thought_limit) if thought_limit else []
        thought = [token for token in written if token != reference.tokenizer.eos_token_id]
        written = thought + reference.encode("\n</think>\n<answer>")
        count = 1 if call.form == "one" else len(call.identifiers)
        choice, probabilities = reference.order(prompt + written, call.identifiers, count)
        written += reference.encode(" > ".join(choice))

        assert answer.thought == reference.tokenizer.decode(thought).strip()
        assert answer.choice == choice
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-4)
        assert list(answer.probabilities) == list(call.identifiers)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.usage == Usage(1, len(prompt), len(written))
        assert answer.text.endswith(f"</think>\n<answer>{' > '.join(choice)}</answer>")
        assert answer.thought_closed


# --- the same whatever the batch -----------------------------------------------------------------------------------


def same(first: Sequence[Answer], second: Sequence[Answer]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert replace(one, probabilities=None, prompt_tokens_computed=None) == replace(
            other, probabilities=None, prompt_tokens_computed=None
        )


@pytest.mark.parametrize(("name", "temperature"), [*((name, 0.0) for name in MODELS), ("chatml", 1.5), ("gemma", 1.5)])
def test_answers_depend_neither_on_batch_size_nor_on_company(name: str, temperature: float, open_model: Open) -> None:
    options = {"max_thought_tokens": 15, "temperature": temperature}
    alone = open_model(name, batch_size=1, **options)
    kinds = [(2, "one"), (12, "order"), (7, "one"), (3, "order"), (12, "one"), (5, "one")]
    calls = [make_call(alone, count, form=form, shift=shift) for shift, (count, form) in enumerate(kinds)]
    expected = [alone.answer([call])[0] for call in calls]
    same(expected, alone.answer(calls))
    for batch_size in (3, 16):
        batched = open_model(name, batch_size=batch_size, **options)
        same(expected, batched.answer(calls))
        same([expected[4], expected[1], expected[1]], batched.answer([calls[4], calls[1], calls[1]]))
    for call, answer in zip(calls, expected, strict=True):
        # An answer is always among the identifiers.
        choice, chances = answer.choice or (), answer.probabilities or {}
        assert set(choice) <= set(call.identifiers)
        assert len(set(choice)) == (1 if call.form == "one" else len(call.identifiers))
        assert list(chances) == list(call.identifiers) and sum(chances.values()) == pytest.approx(1)
        assert chances[choice[0]] == max(chances.values())
        # The text is what the protocol asks for, also where a tokenizer marks words by spaces in front of them.
        assert answer.text.startswith("<think>\n") and answer.text.count("<answer>") == 1
        assert answer.text.endswith(f"<answer>{' > '.join(choice)}</answer>")
        assert alone.count_prompt_tokens(call.messages) == answer.usage.prompt_tokens


def test_a_seed_fixes_sampled_thoughts(open_model: Open) -> None:
    def thoughts(seed: int, temperature: float = 1.5) -> list[str]:
        backend = open_model("chatml", max_thought_tokens=15, temperature=temperature, seed=seed)
        return [answer.thought for answer in backend.answer([make_call(backend, 3), make_call(backend, 3, shift=2)])]

    assert thoughts(1) == thoughts(1)
    assert thoughts(1)[0] != thoughts(2)[0]
    assert thoughts(1)[1] != thoughts(2)[1]
    assert thoughts(1)[0] != thoughts(1)[1]
    assert thoughts(1) != thoughts(1, temperature=0.0) == thoughts(2, temperature=0.0)


# --- thoughts: models that write what a script says ----------------------------------------------------------------


@pytest.fixture
def scripted(make_checkpoint: Make, tmp_path: Path) -> Make:
    """Writes a model that thinks a given text, one token leading to the next, and prefers the identifier [2]."""

    def write(name: str, script: str, *, then: str = "", loop: bool = False) -> Path:
        source = make_checkpoint(name)
        tokenizer = AutoTokenizer.from_pretrained(source)

        def encode(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        chain = [encode("<think>\n")[-1], *encode(script), *encode(then)]
        assert len(set(chain)) == len(chain), "each token may lead to one other only"
        size = (len(tokenizer) + 7) // 8 * 8
        sizes = {"vocab_size": len(tokenizer), "hidden_size": size, "intermediate_size": 8, "num_hidden_layers": 1}
        sizes |= {"num_attention_heads": 4, "max_position_embeddings": 1024, "eos_token_id": tokenizer.eos_token_id}
        model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False)).eval()
        following = dict(itertools.pairwise(chain)) | ({chain[-1]: chain[1]} if loop else {})
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), size))
            model.lm_head.weight.zero_()
            for token, after in following.items():
                model.lm_head.weight[after, token] = 1
            model.lm_head.weight[encode("2")[-1], encode("[")[-1]] = 2
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return write


def ask(folder: Path, count: int = 3, **options: Any) -> Answer:
    backend = open_folder(folder, **options)
    return backend.answer([make_call(backend, count)])[0]


def token_count(folder: Path, *texts: str) -> int:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)


@pytest.mark.parametrize(
    ("name", "script", "then", "written", "closed_at"),
    [
        ("chatml", " The cloth is dyed.</think>", "", " The cloth is dyed.</think>", None),
        ("thinking", " The cloth is dyed.</think>", "", " The cloth is dyed.</think>", None),
        ("chatml", " The cloth is dyed.", "<|im_end|>", " The cloth is dyed.\n</think>", "end_of_turn"),
        # Vocabularies hold `><` and `>[` as one token.
        ("chatml", " The cloth is dyed.</think><answer>", "", " The cloth is dyed.</think>", None),
        ("chatml", " The cloth is dyed.<answer>[", "", " The cloth is dyed.", "answer"),
    ],
)
def test_how_a_thought_ends(
    name: str, script: str, then: str, written: str, closed_at: str | None, scripted: Make
) -> None:
    folder = scripted(name, script, then=then)
    pieces = AutoTokenizer.from_pretrained(folder).tokenize(script + "1]")
    answer = ask(folder)
    between = "" if closed_at == "answer" else "\n"
    assert answer.text == f"<think>\n{written}{between}<answer>[2]</answer>"
    assert (answer.thought, answer.choice) == ("The cloth is dyed.", ("[2]",))
    assert (answer.closed_at, answer.thought_closed) == (closed_at, closed_at is not None)
    if "<answer>" in script:
        assert "><" in pieces or ">[" in pieces, "the tokenizer of this test has to know it"
    if "</think><answer>" in script:
        expected = token_count(folder, " The cloth is dyed.</think", ">\n<answer>", "[2]")
        assert answer.usage.completion_tokens == expected


def test_a_thought_that_never_ends_is_closed_and_marked(scripted: Make) -> None:
    folder = scripted("thinking", " flea wool", loop=True)
    answer = ask(folder, max_thought_tokens=40)

    assert (answer.thought_closed, answer.closed_at) == (True, "limit")
    assert len(answer.thought) > 80
    assert (" flea wool" * 40).startswith(f" {answer.thought}")
    assert answer.usage.completion_tokens == 40 + token_count(folder, "\n</think>\n<answer>", "[2]")
    assert answer.text == f"<think>\n {answer.thought}\n</think>\n<answer>[2]</answer>"


@pytest.mark.parametrize("limit", [0, 1, 50])
def test_a_turn_that_ends_at_once(limit: int, scripted: Make) -> None:
    answer = ask(scripted("chatml", "", then="<|im_end|>"), max_thought_tokens=limit)
    assert answer.text == "<think>\n\n</think>\n<answer>[2]</answer>"
    assert (answer.thought, answer.thought_closed) == ("", True)
    assert answer.closed_at == ("end_of_turn" if limit else "limit")


def test_every_end_of_turn_of_the_generation_config_counts(scripted: Make) -> None:
    folder = scripted("chatml", " The cloth is dyed.", then="<|endoftext|>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    path = folder / "generation_config.json"
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    path.write_text(json.dumps({"eos_token_id": ends}))
    assert ask(folder, max_thought_tokens=20).thought == "The cloth is dyed."


# --- prompts and limits --------------------------------------------------------------------------------------------


def test_without_chat_template_a_tokenizer_brings_its_beginning_but_not_its_end(
    load_tokenizer: Open, tmp_path: Path
) -> None:
    from tokenizers.processors import TemplateProcessing

    from r1ranker_ir.backends.texts import ChatTokenizer

    load_tokenizer("inst").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    )
    assert tokenizer.encode("a")[-1] == tokenizer.eos_token_id
    ids = ChatTokenizer(tokenizer).prompt_ids([Message("system", "a wool"), Message("user", "flea")])
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == "a wool\n\nflea\n\n<think>\n"
    assert tokenizer.eos_token_id not in ids


def test_limits_follow_the_configuration(open_model: Open, caplog: pytest.LogCaptureFixture) -> None:
    backend = open_model("chatml", max_thought_tokens=100)
    assert (backend.context_length, backend.max_thought_tokens, backend.answer_reserve) == (1024, 100, 300)
    own = open_model("chatml", max_thought_tokens=100, context_length=400)
    assert (own.context_length, own.answer_reserve) == (400, 300)
    with caplog.at_level(logging.WARNING):
        short = open_model("chatml", max_thought_tokens=2000)
    assert short.max_thought_tokens == 512
    assert "max_thought_tokens 2000 is more than half of the context" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: give at least 1"),
        ({"max_thought_tokens": -1}, "max_thought_tokens is -1: give at least 0"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"context_length": 0}, "context_length is 0: give at least 1"),
        ({"dtype": "int8"}, "dtype is 'int8': use auto or one of float32"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, make_checkpoint: Make) -> None:
    with pytest.raises(InputError, match=message):
        open_folder(make_checkpoint("chatml"), **options)


# --- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_a_lora_adapter_is_put_on_its_base(make_checkpoint: Make, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_checkpoint("chatml")

    def scores(folder: Path) -> dict[str, float]:
        backend = open_folder(folder, max_thought_tokens=4)
        assert backend.context_length == 1024
        found = backend.answer([make_call(backend, 5)])[0].probabilities
        assert found is not None
        return dict(found)

    adapter = tmp_path / "adapter"
    targets = ["q_proj", "v_proj"]
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(adapter))
    plain, adapted = scores(base), scores(adapter)
    assert max(abs(plain[name] - adapted[name]) for name in plain) > 1e-3
    AutoTokenizer.from_pretrained(base).save_pretrained(adapter)
    assert scores(adapter) == pytest.approx(adapted)

    stated = adapter / "adapter_config.json"
    stated.write_text(json.dumps(json.loads(stated.read_text()) | {"base_model_name_or_path": "nobody/gone"}))
    with pytest.raises(CheckpointError, match=r"'nobody/gone', the base of adapter .*adapter', can't be loaded"):
        open_folder(adapter)
    torch.save({}, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors: other weight files are not loaded"):
        open_folder(adapter)


def _spoil(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    if damage == "garbled":
        weights.write_bytes(b"\x00" * 100)
    elif damage == "short":
        weights.write_bytes(weights.read_bytes()[:-5000])
    elif damage == "pickled":
        torch.save(AutoModelForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
        weights.unlink()
    elif damage == "headless":
        AutoModelForCausalLM.from_pretrained(folder).model.save_pretrained(folder)
    else:
        (folder / damage).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        *((name, "can't be loaded: ") for name in ("config.json", "tokenizer.json", "garbled", "short")),
        ("pickled", "can't be loaded: .*safetensors"),
        ("headless", r"lacks 1 of its weights, among them 'lm_head.weight'.*embedding model"),
    ],
)
def test_a_damaged_checkpoint_is_named(damage: str, said: str, make_checkpoint: Make, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_checkpoint("chatml"), tmp_path / "copy"))
    _spoil(folder, damage)
    with pytest.raises(CheckpointError, match=f"copy' {said}"):
        open_folder(folder)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "./no/such/folder", "/no/such/folder", "a b"])
def test_a_missing_checkpoint_is_named_with_a_way_out(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        TransformersBackend(name)
    message = str(caught.value)
    assert f"checkpoint {name!r} can't be loaded" in message
    assert "'r1ranker-iterative-tiny'" in message
    assert len(message) < 1200


@pytest.mark.parametrize(
    ("name", "said", "then", "closed_at"),
    [
        ("thinking", " The cloth is dyed.", "<｜end▁of▁sentence｜>", "end_of_turn"),
        ("thinking", " The cloth is dyed.</think> [2]", "<｜end▁of▁sentence｜>", None),
        # Where no thought was opened, what was said is an answer.
        ("chatml", " The cloth is dyed.", "<|im_end|>", None),
    ],
)
def test_a_free_answer_that_ends_within_its_thought(
    name: str, said: str, then: str, closed_at: str | None, scripted: Make
) -> None:
    backend = open_folder(scripted(name, said, then=then), max_thought_tokens=40)
    [answer] = backend.answer([replace(make_call(backend, 3), free=True)])
    assert (answer.closed_at, answer.thought_closed) == (closed_at, closed_at is not None)
