"""What others are measured against: the loop as it is usually written, and one forward pass over each full prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import RankingRequest

_ANSWER = "\n</think>\n<answer>[{number}]</answer>"


@dataclass
class Counted:
    """What was counted on the way."""

    calls: int = 0  # prompts read
    prompt_tokens: int = 0  # of all prompts; all of them were computed
    completion_tokens: int = 0  # written


def eliminate_naively(
    model: Any, tokenizer: Any, prompt: Prompt, request: RankingRequest, best_first: Sequence[int], thought_tokens: int
) -> tuple[tuple[int, ...], Counted]:
    """Eliminates one after the other with a plain `generate` per step; nothing is kept between steps."""
    import torch

    texts, counted = ChatTokenizer(tokenizer), Counted()
    device = model.get_input_embeddings().weight.device
    remaining, excluded = list(range(len(request.candidates))), list[int]()
    while len(remaining) > 1:
        ids = texts.prompt_ids(prompt.ask("iterative", request, remaining).messages)
        worst = max(remaining, key=best_first.index)
        answer = texts.count(_ANSWER.format(number=remaining.index(worst) + 1))
        tokens = torch.tensor([ids], device=device)
        written = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=thought_tokens + answer,
            min_new_tokens=thought_tokens + answer,
            do_sample=False,
            pad_token_id=texts.pad_id,
        )
        counted.calls += 1
        counted.prompt_tokens += len(ids)
        counted.completion_tokens += written.shape[1] - len(ids)
        remaining.remove(worst)
        excluded.append(worst)
    return (*remaining, *reversed(excluded)), counted


def read_prompts(model: Any, prompts: Sequence[Sequence[int]], batch_size: int) -> None:
    """Reads each prompt with one forward pass and keeps nothing: what any ranking by this model takes at least."""
    import torch

    device = model.get_input_embeddings().weight.device
    with torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            longest = max(map(len, batch))
            # Padding behind a prompt is seen by none of its tokens.
            padded = [[*ids, *[ids[-1]] * (longest - len(ids))] for ids in batch]
            model(input_ids=torch.tensor(padded, device=device), logits_to_keep=1, use_cache=False)
