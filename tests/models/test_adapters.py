"""Adapters whose training added tokens: loaded as they were saved, on a base that does not know these tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.models.loading import load_model
from r1ranker_ir.rankers.systems import family_options
from r1ranker_ir.training.jobs.arguments import ModelArguments
from r1ranker_ir.training.jobs.model_loading import load_for_training

Make = Callable[..., Path]

pytestmark = [
    pytest.mark.latest,
    pytest.mark.filterwarnings("ignore"),  # peft says much about embeddings that it saves
]

NEW = ["<|query|>", "<|passage|>", "<|verdict|>"]
BOTH = ["embed_tokens", "lm_head"]


class Trained:
    """An adapter as peft saves it after a training that added tokens, and its scores then."""

    def __init__(self, base: Path, folder: Path, *, multiple: int | None = None, tie: bool = False, **options: Any):
        torch.manual_seed(7)
        if tie:
            base = self._tied(base, folder.with_name("tied"))
        self.base, self.folder = base, folder
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.tokenizer.add_tokens(NEW, special_tokens=True)
        model = AutoModelForCausalLM.from_pretrained(base)
        self.before = model.get_input_embeddings().weight.shape[0]
        room = self.before - len(self.tokenizer) + len(NEW)
        # The checkpoints of these tests have rows to spare; the new tokens go behind them.
        self.tokenizer.add_tokens([f"<|filler-{number}|>" for number in range(room)])
        model.resize_token_embeddings(len(self.tokenizer), pad_to_multiple_of=multiple)
        self.rows = model.get_input_embeddings().weight.shape[0]
        assert self.rows > self.before
        saving = options.pop("save_embedding_layers", "auto")
        targets = options.pop("target_modules", ["q_proj", "v_proj"])
        config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False, **options)
        tuned: Any = get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if parameter.requires_grad and "lora" not in name:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        tuned.save_pretrained(str(folder), save_embedding_layers=saving)
        self.tokenizer.save_pretrained(folder)
        self.text = torch.tensor([[*range(20, 40), len(self.tokenizer) - 1, len(self.tokenizer) - 2, 41]])
        self.scores = self.scores_of(tuned.eval())

    @staticmethod
    def _tied(base: Path, to: Path) -> Path:
        model = AutoModelForCausalLM.from_pretrained(base)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(to)
        AutoTokenizer.from_pretrained(base).save_pretrained(to)
        return to

    @torch.no_grad()
    def scores_of(self, model: Any) -> torch.Tensor:
        scores: torch.Tensor = model(self.text).logits[0]
        return scores


def opened(folder: Path) -> tuple[Any, Any]:
    return load_model(str(folder), device="cpu", dtype="auto", device_map=None, trust_remote_code=False, revision=None)


KINDS: dict[str, dict[str, Any]] = {
    "saved as resized": {},
    "padded to a multiple": {"multiple": 64},
    "trained whole": {"modules_to_save": BOTH},
    "trained whole and padded": {"modules_to_save": BOTH, "multiple": 128},
    "low rank, too": {"target_modules": ["q_proj", *BOTH]},
    "weights decomposed": {"use_dora": True, "multiple": 8},
    "tied": {"tie": True},
    "tied and trained whole": {"tie": True, "modules_to_save": ["embed_tokens"]},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_an_adapter_with_more_tokens_scores_as_when_it_was_saved(
    kind: str, name: str, make_checkpoint: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = json.loads(json.dumps(KINDS[kind]))
    if name == "plain":  # GPT-NeoX calls its layers otherwise
        names = {"q_proj": "query_key_value", "v_proj": "dense", "embed_tokens": "embed_in", "lm_head": "embed_out"}
        for key in ("target_modules", "modules_to_save"):
            options[key] = [names[each] for each in options.get(key, [] if key == "modules_to_save" else ["q_proj"])]
        options["modules_to_save"] = options["modules_to_save"] or None
    trained = Trained(make_checkpoint(name), tmp_path / "adapter", **options)
    with caplog.at_level(logging.WARNING, logger="r1ranker_ir"):
        model, tokenizer = opened(trained.folder)
    assert not [record for record in caplog.records if record.name.startswith("r1ranker_ir")]
    assert len(tokenizer) == len(trained.tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == trained.rows
    torch.testing.assert_close(trained.scores_of(model), trained.scores, atol=1e-4, rtol=1e-4)
    # What changes plain linear layers alone is added to their weights.
    assert isinstance(model, PeftModel) == (kind == "low rank, too")

    further, _ = load_for_training(ModelArguments(model=str(trained.folder), use_peft=True))
    assert any(parameter.requires_grad for parameter in further.parameters())
    torch.testing.assert_close(trained.scores_of(further.eval()), trained.scores)


def test_an_adapter_of_rank_r1s_layout_answers_as_the_merged_model(make_checkpoint: Make, tmp_path: Path) -> None:
    """Random weights in the form of the checkpoints, an adapter without a tokenizer, since these can't be had here."""
    base = make_checkpoint("chatml")
    torch.manual_seed(3)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=16, lora_alpha=32, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    adapted.merge_and_unload().save_pretrained(str(tmp_path / "merged"))
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")

    def chances(folder: Path) -> dict[str, float]:
        options = family_options("rank-r1", {"device": "cpu", "max_thought_tokens": 6, "max_repair_rate": 1.0})
        texts = ("fleas jump", "kettles boil", "wool")
        request = RankingRequest("fleas", tuple(Candidate(text, text) for text in texts))
        ranking = Ranker(folder, strategy="setwise", **options).rank([request])[0]
        return dict(ranking.steps[0].probabilities or {})

    plain, adapter, merged = (chances(folder) for folder in (base, tmp_path / "adapter", tmp_path / "merged"))
    assert len(adapter) == 3
    assert adapter == pytest.approx(merged, abs=1e-3)
    assert max(abs(adapter[each] - plain[each]) for each in plain) > 1e-3


@pytest.mark.parametrize("saving", [False, True])
def test_tokens_that_were_trained_by_themselves(saving: bool, make_checkpoint: Make, tmp_path: Path) -> None:
    base = make_checkpoint("chatml")
    size = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight.shape[0]
    indices = {"embed_tokens": list(range(size, size + len(NEW))), "lm_head": list(range(size, size + len(NEW)))}
    trained = Trained(base, tmp_path / "a", trainable_token_indices=indices, save_embedding_layers=saving)
    model, _ = opened(trained.folder)
    torch.testing.assert_close(trained.scores_of(model), trained.scores, atol=1e-4, rtol=1e-4)


def test_what_was_not_saved_is_the_same_each_time_and_said(
    make_checkpoint: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = Trained(make_checkpoint("chatml"), tmp_path / "a", save_embedding_layers=False)
    with caplog.at_level(logging.WARNING):
        first, second = (trained.scores_of(opened(trained.folder)[0]) for _ in range(2))
    assert torch.equal(first, second)
    assert f"adds {trained.rows - trained.before} tokens to the vocabulary" in caplog.text


def test_fewer_embeddings_than_the_base(make_checkpoint: Make, tmp_path: Path) -> None:
    """Some trainings cut a vocabulary's spare rows off."""
    base = make_checkpoint("chatml")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    assert len(tokenizer) < model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(len(tokenizer))
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    tuned.save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(tmp_path)
    assert opened(tmp_path)[0].get_input_embeddings().weight.shape[0] == len(tokenizer)


@pytest.mark.parametrize(
    ("layers", "edit", "said"),
    [
        (("lm_head",), lambda tensor: tensor[:-2], "size mismatch"),
        (("embed", "lm_head"), lambda tensor: tensor[:-2], "put the tokenizer that it was trained with"),
        (("embed",), lambda tensor: tensor[:, :-8].contiguous(), "size mismatch"),
    ],
)
def test_an_adapter_that_can_not_fit_is_refused(
    layers: tuple[str, ...], edit: Any, said: str, make_checkpoint: Make, tmp_path: Path
) -> None:
    path = Trained(make_checkpoint("chatml"), tmp_path / "a").folder / "adapter_model.safetensors"
    changed = {n: edit(t) if any(layer in n for layer in layers) else t for n, t in load_file(path).items()}
    save_file(changed, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=said):
        opened(path.parent)
    with pytest.raises(CheckpointError, match=said):
        load_for_training(ModelArguments(model=str(path.parent), use_peft=True))


def test_only_adapters_of_weights_are_loaded(make_checkpoint: Make, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_checkpoint("chatml"))
    prefix: PeftModel = get_peft_model(model, PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    prefix.save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"of the kind PREFIX_TUNING.*such as LoRA"):
        opened(tmp_path)
