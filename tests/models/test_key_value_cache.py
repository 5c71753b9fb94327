"""Which argument takes a model's cache: by what models do, whatever the library of the day calls it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from r1ranker_ir.backends.decoding import DecodingSession, SeparateSession
from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.models.key_value_cache import cache_argument, cache_of, passed_cache

pytestmark = pytest.mark.latest

VOCABULARY = 120
WORDING = "past_key_values", "cache", "cache_params"
RECURRENT: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 8, "use_mambapy": False},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 8, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}
WITHOUT_CACHE: dict[str, dict[str, Any]] = {
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"], "num_key_value_heads": 1},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}


def _inner(own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What Llama's own forward is given of a call that names the cache otherwise."""
    others = {key: value for key, value in own.items() if key not in WORDING}
    return others | {cache_argument(built()): own.get(name)}


def _config() -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.3, **sizes)


def built(kind: type[LlamaForCausalLM] = LlamaForCausalLM) -> Any:
    torch.manual_seed(0)
    return kind(_config()).eval()


class _Renamed(LlamaForCausalLM):
    """A model whose code calls its cache as it likes, on the way in and out, and lets other arguments pass."""

    wording = "cache"

    def forward(self, input_ids: Any = None, **own: Any) -> Any:
        output = super().forward(input_ids, **_inner(own, self.wording))
        return SimpleNamespace(logits=output.logits, **{self.wording: cache_of(output)})


class _Mixing(LlamaForCausalLM):
    """Keeps what it has read in itself, as the last text left it, and hands out a cache that nothing is in."""

    def forward(self, input_ids: Any = None, **own: Any) -> Any:
        fresh = passed_cache(own) is None
        output = super().forward(
            input_ids, **_inner({"use_cache": True, "cache": None if fresh else self.states}, "cache")
        )
        self.states = cache_of(output)
        return SimpleNamespace(logits=output.logits, cache=object())


class _Forgetful(LlamaForCausalLM):
    """Takes a cache under every name, and looks at none."""

    def forward(self, input_ids: Any = None, **own: Any) -> Any:
        output = super().forward(input_ids, use_cache=True)
        return SimpleNamespace(logits=output.logits, cache=cache_of(output))


@pytest.mark.parametrize("wording", WORDING)
@torch.inference_mode()
def test_the_argument_is_found_by_its_effect(wording: str) -> None:
    model = built(type("Renamed", (_Renamed,), {"wording": wording}))
    assert cache_argument(model) == wording

    plain, texts = built(), [[1, 2, 3, 4], [7, 8]]
    for session in (DecodingSession(model, texts, 0), SeparateSession(model, texts, [None, None])):
        session.append([9, 10])
        session.append([11, 12])
        for logits, text in zip(session.logits, ([1, 2, 3, 4, 9, 11], [7, 8, 10, 12]), strict=True):
            torch.testing.assert_close(logits, plain(torch.tensor([text])).logits[0, -1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rounding_is_not_taken_for_a_fault(dtype: str, make_checkpoint: Callable[..., Path]) -> None:
    for name in ("chatml", "gemma", "plain"):
        model = AutoModelForCausalLM.from_pretrained(make_checkpoint(name), dtype=getattr(torch, dtype)).eval()
        assert cache_argument(model) in WORDING
    with torch.no_grad():  # nor that it looks at nothing before
        for layer in (model := built()).model.layers:
            layer.self_attn.o_proj.weight.zero_()
    assert cache_argument(model) in WORDING


def test_the_library_has_nothing_to_complain_of(embedded_checkpoint: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        backend = TransformersBackend(embedded_checkpoint, device="cpu")
        with torch.inference_mode():
            DecodingSession(backend._model, [[1, 2, 3]], 0).append([4])


@pytest.mark.parametrize("family", sorted(RECURRENT))
@torch.inference_mode()
def test_states_of_any_kind_will_do_row_by_row(family: str, make_model: Callable[..., Any]) -> None:
    model = make_model(family, VOCABULARY, **RECURRENT[family])
    texts = [[1, 2, 3, 4], [7, 8]]
    session = SeparateSession(model, texts)
    session.look_ahead([[5, 6], [5]])
    session.append([9, 10])
    for logits, text in zip(session.logits, ([1, 2, 3, 4, 9], [7, 8, 10]), strict=True):
        torch.testing.assert_close(logits, model(torch.tensor([text])).logits[0, -1], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", sorted(WITHOUT_CACHE))
def test_a_checkpoint_that_hands_no_cache_back_is_refused(
    family: str, make_model: Callable[..., Any], load_tokenizer: Callable[[str], Any], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer("chatml")
    make_model(family, len(tokenizer), **WITHOUT_CACHE[family]).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"hands back no cache of what it has read.*openai backend") as caught:
        TransformersBackend(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", [_Mixing, _Forgetful])
def test_a_model_that_goes_on_from_elsewhere_is_refused(kind: type[LlamaForCausalLM]) -> None:
    with pytest.raises(CheckpointError, match=r"does not go on from its own cache \(\w+: "):
        cache_argument(built(kind))
