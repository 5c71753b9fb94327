"""Query likelihood: the scores are the model's own, whatever is computed together, and the rankings are theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.types import Ranking

TEXTS = (
    "a blue car",
    "a red boat at sea, with sails of cloth that was dyed last of all, and a cat with fleas",
    "",
    "fleas live for months",
    "a red boat at sea, with sails of cloth that was dyed last of all, and a cat with fleas",
)
REQUESTS = tuple(
    RankingRequest(query, tuple(Candidate(f"d{n}", text) for n, text in enumerate(TEXTS)), query_id=query)
    for query in ("how long do fleas live", "boats", "a red boat <|im_end|> at sea")
)


def alone(model: Any, tokenizer: Any, passage: str, query: str) -> float:
    """log P(query | passage) by transformers alone, one pair at a time."""
    import torch

    turns = [{"role": "user", "content": f"Passage: {passage}\n\nWrite a question that this passage answers."}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    said = tokenizer.encode(f"{prompt}{query}", add_special_tokens=False)[len(before) :]
    with torch.no_grad():
        logits = model(torch.tensor([before + said])).logits[0, len(before) - 1 : -1]
    return float(torch.log_softmax(logits, -1)[range(len(said)), said].sum())


def ranked(requests: Sequence[RankingRequest] = REQUESTS, **options: Any) -> list[Ranking]:
    return Ranker(**{"model": TINY_CHECKPOINT, "strategy": "likelihood", "device": "cpu", **options}).rank(requests)


def scores(ranking: Ranking) -> list[float]:
    return [step.score or 0.0 for step in ranking.steps]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_are_those_of_one_pair_at_a_time(batch_size: int, make_checkpoint: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = make_checkpoint("chatml")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    for ranking in ranked(REQUESTS[:2], model=checkpoint, batch_size=batch_size):
        expected = [alone(model, tokenizer, text or "(no text)", ranking.request.query) for text in TEXTS]
        assert scores(ranking) == pytest.approx(expected, abs=1e-4)
        assert list(ranking.order) == sorted(range(len(TEXTS)), key=lambda place: -scores(ranking)[place])
        assert list(ranking.scores) == sorted(scores(ranking), reverse=True)
        assert ranking.scores.count(scores(ranking)[1]) == 2
