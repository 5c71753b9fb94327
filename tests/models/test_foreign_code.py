"""Python code that comes with a checkpoint or tokenizer runs only for who asks for it; no one is asked for a yes."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import Ranker
from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.models.random_weights import open_configuration
from r1ranker_ir.training.jobs.arguments import ModelArguments
from r1ranker_ir.training.jobs.model_loading import load_for_training

pytestmark = pytest.mark.latest

Make = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
SERVER = {"base_url": "http://127.0.0.1:9/v1"}
CODE = """
open({marker!r}, "w").close()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
class OwnConfig(LlamaConfig):
    model_type = "own-llama"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
TOKENIZER = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}}
MODEL = {
    "model_type": "own-llama",
    "architectures": ["OwnForCausalLM"],
    "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
}


@pytest.fixture(autouse=True)
def a_user_who_says_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask whether to run code, and take this for an answer."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What the code leaves behind where it runs."""
    return tmp_path / "ran"


@pytest.fixture
def with_code(make_checkpoint: Make, tmp_path: Path, marker: Path) -> Make:
    """A checkpoint with code for its tokenizer, its model, or both."""

    def make(*parts: str) -> Path:
        folder = Path(shutil.copytree(make_checkpoint("chatml"), tmp_path / "-".join(parts)))
        (folder / "own.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
        files = {"tokenizer": ("tokenizer_config.json", TOKENIZER), "model": ("config.json", MODEL)}
        for part, (file, entries) in files.items():
            if part in parts:
                path = folder / file
                path.write_text(json.dumps(json.loads(path.read_text()) | entries), encoding="utf-8")
        return folder

    return make


def test_counting_tokens_for_a_server(with_code: Make, marker: Path) -> None:
    folder = str(with_code("tokenizer"))
    advice = r"needs Python code that comes with it, and such code is not run: give a tokenizer .*`tokenizer=None`"
    with pytest.raises(CheckpointError, match=advice):
        OpenAIBackend("served", tokenizer=folder, **SERVER)
    # A folder's own tokenizer counts for a server without being named.
    with pytest.raises(CheckpointError, match=advice):
        Ranker(folder, strategy="iterative", backend="openai", **SERVER)
    with pytest.raises(CheckpointError, match="Python code that comes with it, and that is not run"):
        open_configuration(folder)
    assert not marker.exists()


@pytest.mark.parametrize("parts", [("tokenizer",), ("model",), ("tokenizer", "model")])
def test_a_checkpoint_runs_its_code_for_who_asks_only(parts: tuple[str, ...], with_code: Make, marker: Path) -> None:
    folder = with_code(*parts)
    with pytest.raises(CheckpointError, match=r"Python code that comes with it.*pass trust_remote_code=True"):
        TransformersBackend(folder, device="cpu")
    with pytest.raises(CheckpointError, match=r"for training: it needs Python code"):
        load_for_training(ModelArguments(model=str(folder)))
    assert not marker.exists()

    TransformersBackend(folder, device="cpu", trust_remote_code=True)
    assert marker.exists()
    marker.unlink()
    load_for_training(ModelArguments(model=str(folder)), trust_remote_code=True)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_its_tokenizer_and_its_base(
    with_code: Make, make_checkpoint: Make, tmp_path: Path, marker: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_checkpoint("chatml")
    adapter = tmp_path / "adapter"
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(adapter))
    stated = json.loads((adapter / "adapter_config.json").read_text())

    def state(**changes: Any) -> None:
        (adapter / "adapter_config.json").write_text(json.dumps(stated | changes), encoding="utf-8")

    def refuse(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            TransformersBackend(adapter, device="cpu")
        with pytest.raises(CheckpointError, match=message):
            load_for_training(ModelArguments(model=str(adapter), use_peft=True))
        assert not marker.exists()

    state(base_model_name_or_path=str(with_code("model")))
    refuse("Python code that comes with it")
    state(base_model_name_or_path=str(with_code("tokenizer")))
    refuse("Python code that comes with it")
    # peft imports the module that stands here, from the folder of the command as well.
    state(megatron_config={"tensor_model_parallel_size": 1}, megatron_core="own")
    refuse("made for Megatron")
    state()
    TransformersBackend(adapter, device="cpu")
    for path in with_code("tokenizer", "model").iterdir():
        if path.suffix == ".py" or path.name.startswith("tokenizer"):
            shutil.copy(path, adapter)
    refuse("Python code that comes with it")
    TransformersBackend(adapter, device="cpu", trust_remote_code=True)
    assert marker.exists()


AUTO = {"AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor", "AutoModel", "GenerationConfig"}


def test_every_call_that_could_run_code_says_whether_it_may() -> None:
    """Left out, the flag means a question on standard input."""
    seen, silent = 0, []
    for path in [*ROOT.glob("r1ranker_ir/**/*.py"), *ROOT.glob("training/**/*.py"), *ROOT.glob("eval/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            named = isinstance(owner, ast.Name) and owner.id in AUTO
            if named and node.func.attr in ("from_pretrained", "from_config"):
                seen += 1
                # `**source` holds the flag in these: the tests above open folders through all of them.
                if not {"trust_remote_code", None} & {keyword.arg for keyword in node.keywords}:
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert seen >= 10
    assert not silent
