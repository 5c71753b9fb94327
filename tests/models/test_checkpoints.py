"""`r1ranker.json`: what a checkpoint may say of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.models.checkpoints import CheckpointSettings, read_settings
from r1ranker_ir.prompts.template import build_template, load_template

TEMPLATE = {
    "name": "own",
    "iterative": {"user": "drop one: {query}\n{candidates}"},
    "direct": {"user": "order: {query}\n{candidates}"},
}
DIGEST = build_template(TEMPLATE, "own").digest()


def write(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "r1ranker.json").write_text(text, encoding="utf-8")
    return folder


def test_defaults_without_a_file(tmp_path: Path) -> None:
    settings = read_settings(tmp_path)
    assert settings == CheckpointSettings(template=load_template())
    assert settings.strategies == ("iterative", "direct", "setwise", "pointwise", "likelihood", "groupwise")
    assert (settings.window_size, settings.stride, settings.training) == (20, 10, {})
    assert (settings.max_passage_tokens, settings.max_thought_tokens) == (None, 1024)
    assert read_settings(str(write(tmp_path, {}))) == settings


def test_what_a_file_says_is_honoured(tmp_path: Path) -> None:
    counts = {"window_size": 8, "stride": 3, "max_passage_tokens": 40, "max_thought_tokens": 0, "batch_size": 2}
    training = {"method": "grpo", "steps": 12, "data": [{"file": "steps.parquet"}]}
    said = {"strategies": ["direct"], "template": TEMPLATE, "template_hash": DIGEST, "training": training, **counts}
    template = build_template(TEMPLATE, "own")
    expected = CheckpointSettings(strategies=("direct",), template=template, training=training, **counts)  # type: ignore[arg-type]
    assert read_settings(write(tmp_path, said)) == expected


def test_strategies_follow_the_templates_sections(tmp_path: Path) -> None:
    iterative = {key: value for key, value in TEMPLATE.items() if key != "direct"}
    assert read_settings(write(tmp_path, {"template": iterative})).strategies == (
        "iterative",
        "likelihood",
        "groupwise",
    )
    setwise = {"template": {**iterative, "setwise": iterative["iterative"]}}
    assert read_settings(write(tmp_path, setwise)).strategies == ("iterative", "setwise", "likelihood", "groupwise")
    with pytest.raises(CheckpointError, match="strategies names 'direct', but the template has no section for it"):
        read_settings(write(tmp_path, {"template": iterative, "strategies": ["iterative", "direct"]}))


def test_the_hash_guards_the_template(tmp_path: Path) -> None:
    assert read_settings(write(tmp_path, {"template": TEMPLATE})).template is not None
    with pytest.raises(CheckpointError, match=f"'0123456789abcdef'.*'{DIGEST}'.*trained on"):
        read_settings(write(tmp_path, {"template": TEMPLATE, "template_hash": "0123456789abcdef"}))
    changed = {**TEMPLATE, "separator": "\n\n"}
    with pytest.raises(CheckpointError, match=DIGEST):
        read_settings(write(tmp_path, {"template": changed, "template_hash": DIGEST}))
    # A hash without a template speaks of the project's own.
    assert read_settings(write(tmp_path, {"template_hash": load_template().digest()})).template == load_template()
    with pytest.raises(CheckpointError, match=f"'{DIGEST}'.*the project's own template"):
        read_settings(write(tmp_path, {"template_hash": DIGEST}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read: .*Correct the file or remove it"),
        ("[]", "holds list: it must be a JSON object"),
        ({"windowsize": 3}, "unknown key 'windowsize'; use .*window_size"),
        ({"window_size": "20"}, "window_size is '20'; give a whole number of at least 1"),
        ({"window_size": True}, "window_size is True"),
        ({"stride": 2.0}, "stride is 2.0"),
        ({"max_thought_tokens": -1}, "max_thought_tokens is -1; give a whole number of at least 0"),
        ({"max_passage_tokens": None}, "max_passage_tokens is None"),
        ({"strategies": "iterative"}, "strategies is 'iterative'; list some of iterative, direct, setwise"),
        ({"strategies": []}, r"strategies is \[\]"),
        ({"strategies": [["iterative"]]}, r"strategies is \[\['iterative'\]\]"),
        ({"training": "grpo"}, "training is 'grpo'; give an object, or leave it out"),
        ({"template": None}, "the record is None: give an object"),
        ({"template": {**TEMPLATE, "colour": 1}}, "field 'colour' is unknown"),
        ({"template": {**TEMPLATE, "direct": {"user": "{candidates}"}}}, r"\[direct\] user: placeholder {query}"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"r1ranker.json.*{message}"):
        read_settings(write(tmp_path, content))


@pytest.mark.parametrize("name", ["nobody/no-such-model", "a name with spaces", "a//b"])
def test_a_name_that_is_not_here_gets_defaults(name: str) -> None:
    # Whether it exists is found out, and reported, when the weights are loaded.
    assert read_settings(name) == CheckpointSettings(template=load_template())


def test_the_embedded_checkpoint_keeps_its_own_rules(embedded_checkpoint: Path) -> None:
    settings = read_settings(embedded_checkpoint)
    content = json.loads((embedded_checkpoint / "r1ranker.json").read_text())

    assert settings.strategies == ("iterative", "direct")
    assert settings.template is not None
    assert settings.template.digest() == content["template_hash"]
    assert 1 <= settings.stride < settings.window_size
    assert sum(path.stat().st_size for path in embedded_checkpoint.iterdir()) <= 8 * 2**20


def test_reading_settings_of_a_folder_imports_no_model_library(tmp_path: Path) -> None:
    code = "import sys, r1ranker_ir.models.checkpoints as checkpoints; checkpoints.read_settings(sys.argv[1]); "
    command = [sys.executable, "-c", code + "print(sorted({'torch', 'transformers'} & set(sys.modules)))"]
    done = subprocess.run([*command, write(tmp_path, {"stride": 4})], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
