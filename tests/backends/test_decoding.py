"""Batched decoding with rows that pause and look ahead: the same scores as each row alone, on several families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from r1ranker_ir.backends.decoding import DecodingSession, SeparateSession, attention_span

pytestmark = pytest.mark.latest

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024},  # learned positions
    "bloom": {"n_layer": 2, "n_head": 4},  # no positions at all, but distances
    "deepseek_v3": {  # keys and values of different sizes, experts
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
}
VOCABULARY = 120


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest, make_model: Callable[..., Any]) -> Any:
    return make_model(request.param, VOCABULARY, **FAMILIES[request.param])


def tokens(seed: int, count: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def alone(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """The next token's scores after a sequence, computed in one go without cache or padding."""
    scores: torch.Tensor = model(torch.tensor([list(ids)])).logits[0, -1]
    return scores.float()


def assert_rows(model: Any, logits: torch.Tensor, sequences: Sequence[Sequence[int]]) -> None:
    for row, sequence in zip(logits, sequences, strict=True):
        torch.testing.assert_close(row, alone(model, sequence), atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_rows_are_what_they_would_be_alone(model: Any) -> None:
    texts = [tokens(1, 3), tokens(2, 40), tokens(3, 1), tokens(4, 17)]
    session = DecodingSession(model, texts, pad_id=0)
    assert_rows(model, session.logits, texts)

    columns: list[list[int | None]] = [[5, 6, 7, 8], [None, 9, None, 10], [11, None, None, None], [None] * 4]
    for step, additions in enumerate(columns):
        session.append(additions)
        texts = [text if token is None else [*text, token] for text, token in zip(texts, additions, strict=True)]
        assert_rows(model, session.logits, texts)
        ahead = [tokens(100 + step * 4 + row, length) for row, length in enumerate((2, 0, 5, 1))]
        before = session.logits.clone()
        assert_rows(
            model,
            session.look_ahead(ahead),
            [text + more for text, more in zip(texts, ahead, strict=True)],
        )
        assert torch.equal(session.logits, before)

    sequences = [tokens(50, 4), [], tokens(51, 9), tokens(52, 2)]
    session.append_sequences(sequences)
    texts = [text + more for text, more in zip(texts, sequences, strict=True)]
    assert_rows(model, session.logits, texts)


@torch.inference_mode()
def test_a_long_row_keeps_its_scores_while_the_cache_grows(model: Any) -> None:
    texts = [tokens(1, 5), tokens(2, 30)]
    session = DecodingSession(model, texts, pad_id=0)
    more = [tokens(3, 300), tokens(4, 150)]
    for column in range(300):
        session.append([more[0][column], more[1][column // 2] if column % 2 else None])
        if column in (130, 257, 299):
            session.look_ahead([[1, 2], [3]])
            so_far = [texts[0] + more[0][: column + 1], texts[1] + more[1][: (column + 1) // 2]]
            assert_rows(model, session.logits, so_far)


@torch.inference_mode()
def test_greedy_decoding_is_that_of_generate(make_checkpoint: Callable[..., Path]) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(make_checkpoint("chatml"))
    text = tokens(7, 25)
    expected = model.generate(
        torch.tensor([text]),
        attention_mask=torch.ones(1, 25).long(),
        do_sample=False,
        max_new_tokens=60,
        pad_token_id=0,
    )[0].tolist()
    session = DecodingSession(model, [tokens(8, 60), text], pad_id=0)
    written: list[int] = []
    while len(written) < len(expected) - 25:
        written.append(int(session.logits[1].argmax()))
        session.append([None, written[-1]])
    assert text + written == expected


@torch.inference_mode()
def test_looking_ahead_leaves_no_trace(make_model: Callable[..., Any]) -> None:
    model = make_model("llama", VOCABULARY)
    texts = [tokens(1, 4), tokens(2, 9)]
    looking, plain = DecodingSession(model, texts, pad_id=0), DecodingSession(model, texts, pad_id=3)
    for first, second in pairwise(tokens(5, 20)):
        looking.look_ahead([[second, first], [first, first, second]])
        looking.append([first, second])
        plain.append([first, second])
        torch.testing.assert_close(looking.logits, plain.logits, atol=1e-5, rtol=1e-5)


NARROW: dict[str, tuple[int, dict[str, Any]]] = {
    "mistral": (12, {"sliding_window": 12}),
    "gemma2": (12, {"sliding_window": 12, "head_dim": 8}),
    "gemma3_text": (12, {"sliding_window": 12, "head_dim": 8}),
    "phi3": (12, {"sliding_window": 12}),
    "gpt_oss": (12, {"sliding_window": 12, "head_dim": 8, "num_local_experts": 4}),
    "mpt": (0, {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
    "lfm2": (0, {"layer_types": ["conv", "full_attention"]}),  # convolutions beside attention
}


@pytest.mark.parametrize("family", sorted(NARROW))
@torch.inference_mode()
def test_models_that_do_not_attend_to_everything_decode_row_by_row(family: str, make_model: Callable[..., Any]) -> None:
    span, settings = NARROW[family]
    model = make_model(family, VOCABULARY, **settings)
    assert attention_span(model) == span
    texts = [tokens(1, 3), tokens(2, 40), tokens(4, 17)]
    session = SeparateSession(model, texts)
    assert_rows(model, session.logits, texts)
    session.append([None, 5, 6])
    texts = [texts[0], [*texts[1], 5], [*texts[2], 6]]
    for round_ in range(3):
        ahead = [tokens(10 + round_, 3), [], tokens(20 + round_, 1)]
        expected = [text + more for text, more in zip(texts, ahead, strict=True)]
        assert_rows(model, session.look_ahead(ahead), expected)
        assert_rows(model, session.logits, texts)
        session.append_sequences(ahead)
        texts = expected
    assert_rows(model, session.logits, texts)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_full_attention_has_no_span(family: str, make_model: Callable[..., Any]) -> None:
    assert attention_span(make_model(family, VOCABULARY, **FAMILIES[family])) is None
