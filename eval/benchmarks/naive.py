"""What others are measured against: the loop as it is usually written, and one forward pass over each full prompt."""

from __future__ import annotations

from collections.abc import Sequence

from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import RankingRequest, Usage

from .lists import forced_order
from .model import BenchmarkModel

_ANSWER = "\n</think>\n<answer>[{number}]</answer>"


def eliminate_naively(
    model: BenchmarkModel, prompt: Prompt, request: RankingRequest, thought_tokens: int
) -> tuple[tuple[int, ...], Usage]:
    """Eliminates with a plain `generate` per step; the answers mean nothing, and the forced order comes out."""
    import torch

    texts, usage, best_first = ChatTokenizer(model.tokenizer), Usage(), forced_order(request)
    remaining, excluded = list(range(len(request.candidates))), list[int]()
    while len(remaining) > 1:
        ids = texts.prompt_ids(prompt.ask("iterative", request, remaining).messages)
        worst = max(remaining, key=best_first.index)
        answer = texts.count(_ANSWER.format(number=remaining.index(worst) + 1))
        tokens = torch.tensor([ids], device=model.device)
        written = model.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=thought_tokens + answer,
            min_new_tokens=thought_tokens + answer,
            do_sample=False,
            pad_token_id=texts.pad_id,
        )
        usage += Usage(1, len(ids), written.shape[1] - len(ids))
        remaining.remove(worst)
        excluded.append(worst)
    return (*remaining, *reversed(excluded)), usage


def read_prompts(model: BenchmarkModel, prompts: Sequence[Sequence[int]], batch_size: int) -> None:
    """Reads each prompt with one forward pass and keeps nothing: what any ranking by this model takes at least."""
    import torch

    with torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            longest = max(map(len, batch))
            # Padding behind a prompt is seen by none of its tokens.
            padded = [[*ids, *[ids[-1]] * (longest - len(ids))] for ids in batch]
            model.model(input_ids=torch.tensor(padded, device=model.device), logits_to_keep=1, use_cache=False)
