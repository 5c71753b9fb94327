"""What a backend says of itself: the same for the same answers anywhere, and another as soon as they may differ."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.backends import open_backend
from r1ranker_ir.cache.records import version_of

Make = Callable[..., Path]


def identity_of(model: Path | str, **options: Any) -> dict[str, Any]:
    return dict(open_backend("transformers", str(model), **({"device": "cpu"} | options)).identity)


@pytest.fixture
def checkpoint(make_checkpoint: Make, tmp_path: Path) -> Path:
    """A checkpoint folder of the test's own."""
    folder = tmp_path / "model"
    shutil.copytree(make_checkpoint("chatml"), folder)
    return folder


def flip_a_bit(path: Path) -> None:
    """Changes a file's content, and neither its size nor the time that it shows."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_folder_is_told_by_its_content_wherever_it_lies(checkpoint: Path, tmp_path: Path) -> None:
    first = identity_of(checkpoint)
    assert "not_cacheable" not in first
    assert json.loads(json.dumps(first)) == first
    assert str(tmp_path) not in json.dumps(first)
    shutil.copytree(checkpoint, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for unread in ("README.md", "r1ranker.json", "trainer_state.json"):
        (tmp_path / "elsewhere" / unread).write_text("{}")
    assert identity_of(tmp_path / "elsewhere") == first
    assert version_of(first) == first["checkpoint"]["files"][:12]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json", "code/x.py"])
def test_whatever_changes_in_a_folder_makes_another_checkpoint(checkpoint: Path, name: str) -> None:
    before = identity_of(checkpoint)["checkpoint"]
    path = checkpoint / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        flip_a_bit(path)
    else:
        with path.open("a") as file:
            file.write("\n")
    assert identity_of(checkpoint)["checkpoint"] != before


def test_a_chat_template_counts_by_what_it_writes(checkpoint: Path) -> None:
    before = identity_of(checkpoint)
    template = (checkpoint / "chat_template.jinja").read_text()
    (checkpoint / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}\n" + template)
    assert identity_of(checkpoint)["chat_template"] != before["chat_template"]


def test_files_written_since_the_loading_began_are_not_trusted(checkpoint: Path) -> None:
    backend = open_backend("transformers", str(checkpoint), device="cpu")
    time.sleep(0.02)  # file systems tell time in steps of some milliseconds
    flip_a_bit(checkpoint / "model.safetensors")
    assert "were written while it was loaded or after that" in backend.identity["not_cacheable"]


def test_a_hub_name_is_told_by_its_commit(
    make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = {"main": "1" * 40, "old": "2" * 40}
    repository = tmp_path / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    for branch, commit in commits.items():
        shutil.copytree(make_checkpoint("chatml"), repository / "snapshots" / commit)
        (repository / "refs" / branch).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = identity_of("org/model")
    assert found["checkpoint"] == {"name": "org/model", "revision": "1" * 40}
    assert version_of(found) == "1" * 12
    assert "not_cacheable" not in found
    assert identity_of("org/model", revision="old")["checkpoint"]["revision"] == "2" * 40
    assert identity_of("org/model", revision="2" * 40)["checkpoint"]["revision"] == "2" * 40


def test_an_adapter_is_told_by_its_own_files_and_by_its_base(checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    adapter = tmp_path / "adapter"
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(adapter)
    first = identity_of(adapter)
    assert first["checkpoint"]["base"] == identity_of(checkpoint)["checkpoint"]
    assert {"peft", "torch"} <= set(first["versions"])
    flip_a_bit(adapter / "adapter_model.safetensors")
    second = identity_of(adapter)["checkpoint"]
    flip_a_bit(checkpoint / "model.safetensors")
    third = identity_of(adapter)["checkpoint"]
    assert first["checkpoint"]["files"] != second["files"] == third["files"]
    assert first["checkpoint"]["base"] == second["base"] != third["base"]


def test_what_decides_a_local_answer_is_in_it_and_nothing_else(checkpoint: Path) -> None:
    plain = identity_of(checkpoint)
    assert identity_of(checkpoint, batch_size=3, seed=7) == plain
    other: list[dict[str, Any]] = [{"max_thought_tokens": 5}, {"temperature": 0.5}, {"temperature": 0.5, "seed": 1}]
    other += [{"dtype": "bfloat16"}, {"context_length": 400}]
    found = [json.dumps(identity_of(checkpoint, **options)) for options in other]
    assert len({json.dumps(plain), *found}) == 6
    assert (plain["dtype"], plain["device"]) == (["float32"], ["cpu"])


def server_identity(**options: Any) -> dict[str, Any]:
    return dict(open_backend("openai", "m", **({"base_url": "http://127.0.0.1:1/v1"} | options)).identity)


def test_what_is_asked_of_a_server_is_in_its_identity_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-great-secrecy")
    plain = server_identity()
    assert "not_cacheable" not in plain
    assert server_identity(concurrency=3, batch_size=2, timeout=3, max_retries=0, context_length=99) == plain
    assert server_identity(base_url="http://user:hidden-password@127.0.0.1:1/v1/") == plain
    assert version_of(plain) == "http://127.0.0.1:1/v1"
    others: list[dict[str, Any]] = [{"base_url": "http://127.0.0.1:2/v1"}, {"max_thought_tokens": 5}, {"seed": 1}]
    others += [{"temperature": 0.5}, {"limit_field": "max_tokens"}, *({"extra_body": {"top_k": k}} for k in (3, 4))]
    found = [json.dumps(server_identity(**options)) for options in others]
    assert len({json.dumps(plain), *found}) == 8
    key = "sk-of-great-secrecy"
    assert "secrecy" not in json.dumps(server_identity(base_url=f"http://h/{key}", extra_body={"k": key}))


@pytest.mark.parametrize(
    ("options", "cacheable"),
    [
        ({"temperature": 0.0, "seed": None}, True),
        ({"temperature": 0.7, "seed": 1}, True),
        ({"temperature": None, "seed": None}, False),
        ({"temperature": 0.0, "seed": None, "extra_body": {"temperature": 1.0}}, False),
        ({"temperature": 0.7, "seed": None, "extra_body": {"seed": 4}}, True),
    ],
)
def test_sampling_without_a_seed_is_not_cacheable(options: dict[str, Any], cacheable: bool) -> None:
    assert ("not_cacheable" not in server_identity(**options)) == cacheable
