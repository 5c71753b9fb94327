"""Batched decoding with rows that pause and look ahead: the same scores as each row alone, on several families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from references import FAMILIES, NARROW, VOCABULARY, Make, Open, assert_rows, tokens
from transformers import AutoModelForCausalLM

from r1ranker_ir.backends.decoding import DecodingSession, SeparateSession, attention_span

pytestmark = pytest.mark.latest


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest, make_model: Open) -> Any:
    return make_model(request.param, VOCABULARY, **FAMILIES[request.param])


@torch.inference_mode()
def test_rows_are_what_they_would_be_alone(model: Any) -> None:
    assert attention_span(model) is None
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
        expected = [text + more for text, more in zip(texts, ahead, strict=True)]
        assert_rows(model, session.look_ahead(ahead), expected)
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
def test_greedy_decoding_is_that_of_generate(make_checkpoint: Make) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(make_checkpoint("chatml"))
    text = tokens(7, 25)
    options = {"attention_mask": torch.ones(1, 25).long(), "do_sample": False, "max_new_tokens": 60, "pad_token_id": 0}
    expected = model.generate(torch.tensor([text]), **options)[0].tolist()
    session = DecodingSession(model, [tokens(8, 60), text], pad_id=0)
    written: list[int] = []
    while len(written) < len(expected) - 25:
        written.append(int(session.logits[1].argmax()))
        session.append([None, written[-1]])
    assert text + written == expected


@pytest.mark.parametrize("family", sorted(NARROW))
@torch.inference_mode()
def test_models_that_do_not_attend_to_everything_decode_row_by_row(family: str, make_model: Open) -> None:
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
