"""Supervised fine-tuning: the ids that are learned are those of inference, and the result ranks as it was taught."""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config

from r1ranker_ir import Candidate, Ranker
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.errors import CheckpointError, InputError, MissingExtraError
from r1ranker_ir.models.checkpoints import SETTINGS_FILE, TINY_CHECKPOINT, read_settings
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.runs.traces import trace_of
from r1ranker_ir.training.data import sample_files
from r1ranker_ir.training.data.from_traces import read_traces
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.trainers.sft import NO_LOSS, CompletionTokenizer, RankingSFTConfig, end_of_turn, sft_trainer
from r1ranker_ir.types import RankingRequest

Make = Callable[..., Any]
TEXTS = ("a blue car on the road", "a red boat at sea", "some old bread")
REQUEST = RankingRequest("a red boat", tuple(Candidate(f"d{number}", text) for number, text in enumerate(TEXTS)))
COMPLETION = "<think>\nThe third one is about bread.\n</think>\n<answer>[3]</answer>"
RECIPES = ("chatml", "llama3", "gemma", "inst", "thinking", "nfkc", "plain")
CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}


def row_of(completion: str = COMPLETION, strategy: Any = "iterative", texts: tuple[str, ...] = TEXTS) -> dict[str, Any]:
    candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
    record = judged("a red boat", candidates, (0.0,) * len(texts), id="q")
    return sample_files.row_of(Sample(strategy, record)) | {"completion": completion}


def parts(folder: Path, **limits: Any) -> tuple[Any, PromptRenderer]:
    """Tokenizer and renderer of a checkpoint."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = read_settings(folder)
    template = settings.template or load_template()
    return tokenizer, PromptRenderer(
        tokenizer, template, **{"max_passage_tokens": settings.max_passage_tokens, **limits}
    )


def tokenized(folder: Path, *rows: dict[str, Any], max_length: int | None = None, **limits: Any) -> Dataset:
    tokenizer, renderer = parts(folder, **limits)
    end_id = end_of_turn(tokenizer, GenerationConfig.from_pretrained(folder))
    completions = CompletionTokenizer(renderer, tokenizer, end_id=end_id, max_length=max_length)
    return completions.tokenize(Dataset.from_list(list(rows)))


def trainer_of(folder: Path, output: Path, *rows: dict[str, Any], more: Any = None, **options: Any) -> SFTTrainer:
    """A trainer on rows; `more` are its further arguments, `options` those of its configuration."""
    tokenizer, renderer = parts(folder)
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    args = RankingSFTConfig(output_dir=str(output), **CPU, **quiet, **options)
    given = {"args": args, "train_dataset": Dataset.from_list(list(rows) or [row_of()]), "renderer": renderer}
    return sft_trainer(AutoModelForCausalLM.from_pretrained(folder), tokenizer=tokenizer, **given, **(more or {}))


def ranked(folder: Path, **options: Any) -> Any:
    """How a checkpoint ranks the texts, and the token ids of its first prompt."""
    ranker = Ranker(folder, strategy="iterative", device="cpu", **options)
    [ranking] = ranker.rank([REQUEST])
    prompt = ranker.prompt.ask("iterative", REQUEST, range(3))
    return ranking, ChatTokenizer(AutoTokenizer.from_pretrained(folder)).prompt_ids(prompt.messages)


@pytest.mark.parametrize(
    ("name", "strategy"), list(zip(RECIPES, itertools.cycle(["iterative", "direct"]), strict=False))
)
def test_the_ids_are_the_prompt_of_inference_then_the_completion_then_the_end(
    name: str, strategy: str, make_checkpoint: Make
) -> None:
    folder = make_checkpoint(name)
    ranker = Ranker(folder, strategy=strategy, device="cpu", max_thought_tokens=50)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    call = ranker.prompt.ask(strategy, REQUEST, range(3))
    prompt = ChatTokenizer(tokenizer).prompt_ids(call.messages)
    # A row of turns whose completion thinks is rendered like a sample.
    turns = {
        "prompt": [{"role": message.role, "content": message.content} for message in call.messages],
        "completion": [{"role": "assistant", "content": COMPLETION}],
    }
    [row], [of_turns] = tokenized(folder, row_of(strategy=strategy)), tokenized(folder, turns)
    assert row == of_turns
    learned = [label for label in row["labels"] if label != NO_LOSS]
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"] == [NO_LOSS] * len(prompt) + row["input_ids"][len(prompt) :]
    assert tokenizer.decode(learned[:-1]) == COMPLETION.removeprefix("<think>\n")
    assert learned[-1] == tokenizer.eos_token_id


def test_the_embedded_model_learns_the_very_ids_that_it_writes(tmp_path: Path) -> None:
    ranking, _ = ranked(TINY_CHECKPOINT)
    step = ranking.steps[0]
    (tmp_path / "trace").write_text(json.dumps(trace_of(ranking, "iterative")))
    read = next(read_traces(tmp_path / "trace"))
    row, from_trace = tokenized(TINY_CHECKPOINT, row_of(step.text), row_of(read.completion))
    # The backend stops at the identifier; the rest of its answer is the closing tag, and the end comes last.
    tail = len(AutoTokenizer.from_pretrained(TINY_CHECKPOINT).encode("</answer>")) + 1
    assert from_trace == row
    assert row["labels"].count(NO_LOSS) == step.usage.prompt_tokens
    assert len(row["labels"]) == step.usage.prompt_tokens + step.usage.completion_tokens + tail


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"which {role}?"} for role in roles]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "which is red? ", "completion": "the boat"},
        {"prompt": "which is red?", "completion": "the boat<|im_end|>"},
        {"prompt": turns("system", "user"), "completion": turns("assistant")},
        {"prompt": turns("user"), "completion": turns("assistant", "user", "assistant")},
    ],
)
def test_other_prompts_and_completions_give_the_ids_that_trl_gives(
    row: dict[str, Any], make_checkpoint: Make, tmp_path: Path
) -> None:
    folder = make_checkpoint("chatml")
    trl = SFTTrainer(str(folder), args=SFTConfig(str(tmp_path), **CPU), train_dataset=Dataset.from_list([row]))
    [theirs] = trl.train_dataset
    [ours] = tokenized(folder, row)
    assert ours == {name: theirs[name] for name in ("input_ids", "labels")}


@pytest.mark.parametrize(
    ("name", "stops", "expected"),
    [
        *(("chatml", [], "<|im_end|>"), ("chatml", ["<|endoftext|>", "<|im_end|>"], "<|im_end|>")),
        *(("gemma", [], "<eos>"), ("gemma", ["<eos>", "<end_of_turn>"], "<end_of_turn>")),
        *(("plain", [], "<|endoftext|>"), ("inst", [], "</s>")),
    ],
)
def test_a_turn_ends_with_what_the_template_writes_if_generation_stops_there(
    name: str, stops: list[str], expected: str, make_checkpoint: Make
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_checkpoint(name))
    ids = [tokenizer.convert_tokens_to_ids(token) for token in stops]
    assert tokenizer.decode([end_of_turn(tokenizer, GenerationConfig(eos_token_id=ids))]) == expected


def test_a_tokenizer_without_an_end_is_refused(make_checkpoint: Make) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_checkpoint("plain"))
    tokenizer.eos_token = None
    with pytest.raises(CheckpointError, match="names no token that ends a turn: set its eos_token"):
        end_of_turn(tokenizer, None)


def test_rows_that_are_too_long_or_hold_a_control_token_are_left_out_and_counted(
    make_checkpoint: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint("chatml")
    long, ends, opens = (
        row_of(COMPLETION.replace("bread", text)) for text in ("bread " * 20, "<|im_end|>", "<|im_start|>")
    )
    [short] = tokenized(folder, row_of())
    length = len(short["input_ids"])
    with caplog.at_level(logging.WARNING):
        kept = tokenized(folder, long, row_of(), ends, opens, long, max_length=length)
    assert list(kept) == [short]
    assert (
        f"4 of 5 rows are left out: 2 longer than {length} tokens (max_length), "
        "2 with a control token of the model in the completion"
    ) in caplog.text
    with pytest.raises(InputError, match=f"none of 1 rows can be trained on: 1 longer than {length - 1} tokens"):
        tokenized(folder, row_of(), max_length=length - 1)


def test_passages_are_cut_as_at_inference_and_queries_without_room_left_out(
    make_checkpoint: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint("chatml")
    long, endless = row_of(texts=(*TEXTS[:2], "bread " * 400)), row_of() | {"context": "boat " * 2000}
    [whole] = tokenized(folder, long)
    with caplog.at_level(logging.WARNING):
        [cut] = tokenized(folder, long, endless, context_length=800, completion_tokens=60)
    assert len(whole["input_ids"]) > 800 > len(cut["input_ids"]) > 600
    assert "1 of 2 rows are left out: 1 whose query leaves no room for passages" in caplog.text


@pytest.mark.parametrize(
    ("name", "completion", "said"),
    [
        ("inst", "", "none of 1 rows can be trained on: 1 without a completion"),
        ("plain", "y", r"can't render turns .* give prompt and completion as text"),
    ],
)
def test_turns_that_can_not_be_learned(name: str, completion: str, said: str, make_checkpoint: Make) -> None:
    row = {"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": completion}]}
    with pytest.raises(InputError, match=said):
        tokenized(make_checkpoint(name), row)


def test_packing_needs_a_length(make_checkpoint: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="packing is on and max_length is not set"):
        trainer_of(make_checkpoint("chatml"), tmp_path, packing=True)


@pytest.mark.parametrize("missing", ["trl", "datasets"])
def test_without_the_extra_it_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "r1ranker_ir.training.trainers.sft")
    with pytest.raises(MissingExtraError, match=r"pip install \"r1ranker-ir\[train\]\""):
        importlib.import_module("r1ranker_ir.training.trainers.sft")


def test_the_embedded_model_learns_to_answer_as_it_is_taught(tmp_path: Path) -> None:
    taught = "<think>\nbread is old\n</think>\n<answer>[3]</answer>"
    rows = [row_of(taught), row_of(taught, texts=(TEXTS[1], TEXTS[0], TEXTS[2]))]
    settings = {"max_steps": 14, "learning_rate": 3e-3, "lr_scheduler_type": "constant"}
    trainer = trainer_of(TINY_CHECKPOINT, tmp_path / "run", *rows, **settings)
    before = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] < 0.2 < 1 < before
    trainer.save_model(str(tmp_path / "trained"))
    shutil.copy(TINY_CHECKPOINT / SETTINGS_FILE, tmp_path / "trained")
    ranking, ids = ranked(tmp_path / "trained")
    assert ranking.steps[0].thought == "bread is old"
    assert ranking.order[-1] == 2
    # It has learned to stop as well.
    written = trainer.model.generate(input_ids=torch.tensor([ids]), max_new_tokens=50, do_sample=False)[0, len(ids) :]
    assert written.tolist() == [label for label in trainer.train_dataset[0]["labels"] if label != NO_LOSS]


def test_an_adapter_is_trained_alone_and_loads(make_checkpoint: Make, weights_of: Make, tmp_path: Path) -> None:
    lora = {"peft_config": get_peft_config(ModelConfig(use_peft=True, lora_r=4, lora_target_modules="all-linear"))}
    trainer = trainer_of(make_checkpoint("chatml"), tmp_path / "run", more=lora, max_steps=3, learning_rate=1e-2)
    before = weights_of(trainer)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    moved = {name for name, value in weights_of(trainer).items() if not value.equal(before[name])}
    assert moved == {name for name in before if "lora_" in name}
    ranking, _ = ranked(tmp_path / "adapter", max_thought_tokens=5)
    assert sorted(ranking.order) == [0, 1, 2]


def test_generation_stops_at_the_token_that_was_learned(make_checkpoint: Make, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(make_checkpoint("chatml"), folder)
    generation = GenerationConfig.from_pretrained(folder)
    end, other = generation.eos_token_id, AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|endoftext|>")
    GenerationConfig(eos_token_id=other).save_pretrained(folder)
    trainer = trainer_of(folder, tmp_path / "run")
    assert trainer.train_dataset[0]["labels"][-1] == end
    assert trainer.model.generation_config.eos_token_id == [end, other]
