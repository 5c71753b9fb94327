"""Small models of several families, and what they answer by plain forward passes: no cache, no padding, no batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1ranker_ir.types import Call

Make, Open = Callable[..., Path], Callable[..., Any]
"""The fixtures `make_checkpoint` and `open_model`."""
MODELS = ("chatml", "llama3", "gemma", "inst", "thinking", "narrow", "plain", "nfkc")
"""The recipes of `make_checkpoint`."""
WORDS = "flea wool kettle water spring cloth sheep boils degrees larvae answer identifier".split()
VOCABULARY = 120
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024},  # learned positions
    "bloom": {"n_layer": 2, "n_head": 4},  # no positions at all, but distances
    "deepseek_v3": {  # keys and values of different sizes, experts
        **{"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8},
        **{"qk_nope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
        **{"num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1, "first_k_dense_replace": 1},
    },
}
"""With full attention: `make_model(family, VOCABULARY, **FAMILIES[family])`."""
NARROW: dict[str, tuple[int, dict[str, Any]]] = {
    "mistral": (12, {"sliding_window": 12}),
    "gemma2": (12, {"sliding_window": 12, "head_dim": 8}),
    "gemma3_text": (12, {"sliding_window": 12, "head_dim": 8}),  # some layers attend to everything
    "phi3": (12, {"sliding_window": 12}),
    "gpt_oss": (12, {"sliding_window": 12, "head_dim": 8, "num_local_experts": 4}),
    "mpt": (0, {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),  # weighs by distance in columns
    "lfm2": (0, {"layer_types": ["conv", "full_attention"]}),  # convolutions beside attention
}
"""The others, with the span of their attention."""


def tokens(seed: int, count: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def assert_rows(model: Any, logits: torch.Tensor, sequences: Sequence[Sequence[int]]) -> None:
    """The next token's scores after each sequence, computed in one go, are those of the rows."""
    for row, sequence in zip(logits, sequences, strict=True):
        alone = model(torch.tensor([list(sequence)])).logits[0, -1].float()
        torch.testing.assert_close(row, alone, atol=2e-5, rtol=1e-4)


class Reference:
    """The answers of a checkpoint, token by token over whole sequences."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def prompt(self, call: Call, after: str = "") -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in call.messages]
        if self.tokenizer.chat_template is None:
            text = "".join(f"{turn['content']}\n\n" for turn in turns)
        else:
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self.encode(text) + self.encode(after)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        scores: torch.Tensor = self.model(torch.tensor([list(ids)])).logits[0, -1]
        return scores

    @torch.inference_mode()
    def written(self, prompt: list[int], limit: int) -> list[int]:
        """What the model goes on with, greedily; with the end of its turn, if it comes to it."""
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "max_new_tokens": limit, "pad_token_id": 0}
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist()[len(prompt) :]

    def probabilities(self, context: list[int], options: dict[str, list[int]]) -> dict[str, float]:
        """Every option's tokens are forced in turn; each counts among the tokens that lead to some option."""
        found = {}
        score = functools.cache(lambda prefix: self.logits([*context, *prefix]))
        for name, sequence in options.items():
            total = torch.zeros(())
            for depth, token in enumerate(sequence):
                possible = sorted({other[depth] for other in options.values() if other[:depth] == sequence[:depth]})
                total = total + score(tuple(sequence[:depth]))[possible].log_softmax(-1)[possible.index(token)]
            found[name] = float(total.exp())
        return found

    def order(self, context: list[int], names: Sequence[str], count: int) -> tuple[tuple[str, ...], dict[str, float]]:
        """So many of the names, chosen one after the other, and the probabilities at the first place."""
        first: dict[str, float] = {}
        chosen: list[str] = []
        for place in range(count):
            left = [name for name in names if name not in chosen]
            options = {name: self.encode(name if place == 0 else f" > {name}") for name in left}
            found = self.probabilities(context, options)
            first = first or found
            chosen.append(max(found, key=found.__getitem__))
            context = context + options[chosen[-1]]
        return tuple(chosen), first
