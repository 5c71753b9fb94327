"""Trained folders: what they carry, that they load when they are whole, and not before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.errors import CheckpointError, DataFileError, InputError
from r1ranker_ir.models.checkpoints import SETTINGS_FILE, TINY_CHECKPOINT, CheckpointSettings, read_settings
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import write_samples
from r1ranker_ir.training.jobs.model_card import write_card
from r1ranker_ir.training.jobs.recipe_files import find_template
from r1ranker_ir.training.jobs.record import (
    DataFile,
    TrainingRecord,
    changed_arguments,
    describe_file,
    library_versions,
)
from r1ranker_ir.training.jobs.trained_folder import base_name, is_finished, save_trained_folder, settings_content
from r1ranker_ir.types import Task

RECORD = TrainingRecord(
    method="grpo",
    base_model="someone/base-3b",
    strategies=["iterative"],
    data=[DataFile(name="steps.parquet", sha256="ab" * 32, rows=7, metadata={"seed": 3, "corpus": "x|y"})],
    seed=11,
    arguments={"learning_rate": 2e-5},
    libraries={"trl": "9.9", "r1ranker-ir": "0.1.0"},
    rewards=["exclusion", "format"],
    steps=40,
    generated_tokens=1234,
    before={"RR": 0.25},
    after={"RR": 0.5},
)
SETTINGS = settings_content(read_settings(TINY_CHECKPOINT), ["iterative"])


class TinyTokenizer:
    """Copies the embedded model's tokenizer files."""

    def save_pretrained(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(TINY_CHECKPOINT / name, folder / name)


def copy_weights(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(TINY_CHECKPOINT / name, folder / name)
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "value_head.safetensors").write_bytes(b"head")


def save(folder: Path, settings: dict[str, Any] = SETTINGS, **options: Any) -> None:
    arguments: dict[str, Any] = {"save_weights": copy_weights, "tokenizer": TinyTokenizer(), "card": "# A card\n"}
    save_trained_folder(folder, settings=settings, **(arguments | options))


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_saved_folder_ranks_as_its_base_does_with_what_was_trained(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    save(folder)
    texts = ["the life cycle of a flea", "a star lives long", "fleas jump far in a cycle"]
    request = RankingRequest("flea cycle", tuple(Candidate(str(place), text) for place, text in enumerate(texts)))
    rankers = [Ranker(each, strategy="iterative") for each in (folder, TINY_CHECKPOINT)]
    [ranking], [expected] = (ranker.rank([request]) for ranker in rankers)
    assert ranking.order == expected.order
    assert rankers[0].template.digest() == rankers[1].template.digest()
    assert read_settings(TINY_CHECKPOINT).strategies == ("iterative", "direct")
    assert read_settings(folder).strategies == ("iterative",)
    with pytest.raises(CheckpointError, match="direct"):
        Ranker(folder, strategy="direct")
    # Files of the trainer are not among them.
    assert files_of(folder) == {
        *("config.json", "generation_config.json", "model.safetensors", SETTINGS_FILE, "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }


def test_saved_folder_asks_in_the_words_of_each_task(tmp_path: Path) -> None:
    trained = dataclasses.replace(read_settings(TINY_CHECKPOINT), template=load_template(find_template("tiny-domains")))
    save(tmp_path / "out", settings_content(trained, ["iterative"]))
    ranker = Ranker(tmp_path / "out", strategy="iterative")
    candidates = (Candidate("s", "small"), Candidate("l", "large"))

    def asked(task: Task, aim: str) -> str:
        request = RankingRequest("two\nlines", candidates, task, aim=aim)
        return Prompt(ranker.template, ranker.backend).ask("iterative", request, [0, 1]).messages[-1].content

    assert asked("model", "a low cost") == "exclude model a low cost two lines\n[1] small\n[2] large"
    assert asked("item", "the next film") == "exclude lines two\n[1] small\n[2] large"
    assert asked("passage", "") == "exclude two lines\n[1] small\n[2] large"


@pytest.mark.parametrize("crash_at", ["weights", "tokenizer"])
def test_crash_leaves_nothing_that_loads(tmp_path: Path, crash_at: str) -> None:
    def crash(folder: Path) -> None:
        copy_weights(folder)
        raise KeyboardInterrupt

    class Crashing:
        save_pretrained = staticmethod(crash)

    options: dict[str, Any] = {"save_weights": crash} if crash_at == "weights" else {"tokenizer": Crashing()}
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "out", **options)
    assert not is_finished(tmp_path / "out")
    # The next try finds what is left and gets through.
    save(tmp_path / "out")
    assert is_finished(tmp_path / "out")
    assert ".unfinished" not in files_of(tmp_path / "out")


def test_an_earlier_model_goes_first_and_what_makes_a_folder_loadable_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "curves.png"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "checkpoint-5").mkdir()
    moved: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        assert not is_finished(tmp_path)
        moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    save(tmp_path)
    assert moved[-1] == "config.json"
    assert {"curves.png", "checkpoint-5"} <= files_of(tmp_path)
    assert not {"adapter_config.json", "adapter_model.safetensors"} & files_of(tmp_path)


def test_weights_are_gathered_and_the_main_process_writes_the_rest(tmp_path: Path) -> None:
    called: list[Path] = []
    save(tmp_path / "out", save_weights=called.append, main_process=False)
    assert len(called) == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="FULL_STATE_DICT"):
        save(tmp_path / "out", save_weights=lambda folder: None)
    assert not is_finished(tmp_path / "out")


def test_record_is_read_back_with_the_settings(tmp_path: Path) -> None:
    base = dataclasses.replace(read_settings(TINY_CHECKPOINT), max_passage_tokens=33)
    save(tmp_path / "out", settings_content(base, ["iterative", "direct"], RECORD))
    found = read_settings(tmp_path / "out")
    for name in ("template", "window_size", "stride", "batch_size", "max_passage_tokens", "max_thought_tokens"):
        assert getattr(found, name) == getattr(base, name)
    written = json.loads((tmp_path / "out" / SETTINGS_FILE).read_text(encoding="utf-8"))["training"]
    assert written["data"] == [
        {"name": "steps.parquet", "sha256": "ab" * 32, "rows": 7, "metadata": {"seed": 3, "corpus": "x|y"}}
    ]
    assert (written["method"], written["steps"], written["rewards"]) == ("grpo", 40, ["exclusion", "format"])
    assert "base_revision" not in written
    assert TrainingRecord.model_validate(written) == RECORD


def test_strategy_without_a_wording_is_refused() -> None:
    with pytest.raises(InputError, match=r"no section \[setwise\]"):
        settings_content(read_settings(TINY_CHECKPOINT), ["setwise"])
    assert "max_passage_tokens" not in settings_content(CheckpointSettings(), ["setwise"])


def test_card_says_what_the_record_holds() -> None:
    card = write_card(RECORD, settings_content(CheckpointSettings(), ["iterative"], RECORD))
    assert "base_model: someone/base-3b" in card.split("---")[1]
    for said in ("GRPO", "40 optimizer steps", "seed 11", "1234 tokens", "`exclusion`, `format`", "ab" * 32):
        assert said in card
    for said in ("| RR | 0.2500 | 0.5000 |", "| learning_rate | 2e-05 |", "x\\|y"):
        assert said in card
    # The hub refuses a base that is not a repository.
    local = RECORD.model_copy(update={"base_model": "sft", "before": {}, "after": {}})
    card = write_card(local, settings_content(CheckpointSettings(), ["iterative"], local))
    assert "base_model:" not in card
    assert "Held-out" not in card


def test_data_file_is_described(tmp_path: Path) -> None:
    path, lines = tmp_path / "steps.parquet", tmp_path / "rows.jsonl"
    candidates = (Candidate("a", "one"), Candidate("b", "two"))
    write_samples(path, [Sample("iterative", judged("q", candidates, (1.0, 0.0)))] * 3, {"seed": 5})
    found = describe_file(path)
    assert (found.name, found.rows, found.metadata["seed"]) == ("steps.parquet", 3, 5)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    lines.write_text("{}\n", encoding="utf-8")
    assert describe_file(lines) == DataFile(name="rows.jsonl", sha256=hashlib.sha256(b"{}\n").hexdigest())
    with pytest.raises(InputError, match="can't be read"):
        describe_file(tmp_path / "nowhere.parquet")
    path.write_bytes(b"no parquet")
    with pytest.raises(DataFileError, match=r"steps\.parquet: not a Parquet file"):
        describe_file(path)


def test_changed_arguments_are_those_that_say_what_was_learned(tmp_path: Path) -> None:
    from r1ranker_ir.training.trainers.grpo import RankingGRPOConfig

    plain = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    found = changed_arguments(
        RankingGRPOConfig(**plain, learning_rate=0.5, hub_token="secret", seed=3, logging_steps=1, rewards=["ranking"])
    )
    assert (found["learning_rate"], found["use_cpu"]) == (0.5, True)
    assert not {"output_dir", "hub_token", "seed", "logging_steps", "rewards"} & set(found)
    assert "secret" not in json.dumps(found)


def test_base_model_and_versions_are_named_without_their_place(tmp_path: Path) -> None:
    import torch
    import trl

    assert base_name(str(TINY_CHECKPOINT)) == "r1ranker-iterative-tiny"
    assert base_name("Qwen/Qwen2.5-3B-Instruct") == "Qwen/Qwen2.5-3B-Instruct"
    (tmp_path / "sft").mkdir()
    assert base_name(str(tmp_path / "sft") + "/") == "sft"
    found = library_versions()
    assert (found["trl"], found["torch"]) == (trl.__version__, torch.__version__)
    assert {"python", "r1ranker-ir", "transformers", "datasets", "accelerate", "peft"} <= set(found)
