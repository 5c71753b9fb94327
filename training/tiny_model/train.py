"""Trains the embedded model from scratch on generated lists, and writes it as an ordinary Hugging Face folder.

    python -m r1ranker_ir.training.tiny_model.train --output out/tiny

needs no data and no GPU. Source of the design: this project's own experiments; see docs/embedded-model.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from .examples import NO_LABEL, Example, ExampleEncoder, Mode
from .lexicon import Lexicon, build_lexicon, read_documentation
from .lists import Shape, generate_list
from .settings import write_settings
from .tokenizer import END, IDENTIFIERS, train_tokenizer

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 3072
PROBED_LAYER = 2
PROBE_WEIGHT = 0.5
MATCH_POSITIVE_WEIGHT = 3.0
PAD_MULTIPLE = 32
REVISIT_RATE = 0.25
HELD_OUT_SEED = 10_000


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Args:
        steps: optimiser steps.
        shape: the lists of this stage.
        order_rate: share of the lists that are to be ordered; the others exclude one.
    """

    steps: int
    shape: Shape
    order_rate: float


CURRICULUM = (
    Stage(800, Shape((2, 3), (3, 6), (1, 4)), 0.3),
    Stage(700, Shape((2, 5), (4, 16), (1, 5)), 0.4),
    Stage(2300, Shape((2, 10), (8, 42), (1, 6)), 0.45),
    Stage(1300, Shape((5, 10), (16, 42), (1, 10)), 0.45),
)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Builds the untrained model: Llama's architecture, hidden 128, four layers."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def generate_batches(
    encoder: ExampleEncoder, lexicon: Lexicon, stages: Sequence[Stage], rng: random.Random, tokens: int
) -> Iterator[list[Example]]:
    """Yields batches of examples of similar length without end.

    Args:
        encoder: writes lists as sequences.
        lexicon: the words of the lists.
        stages: the stages so far; most lists come from the last.
        rng: the source of every choice.
        tokens: how many tokens a padded batch may hold.
    """
    while True:
        pool = []
        for _ in range(96):
            stage = rng.choice(stages) if rng.random() < REVISIT_RATE else stages[-1]
            mode: Mode = "order" if rng.random() < stage.order_rate else "exclude"
            pool.append(encoder.encode(generate_list(rng, stage.shape, lexicon), mode))
        pool.sort(key=lambda example: len(example.ids))
        batches: list[list[Example]] = [[]]
        for example in pool:
            if batches[-1] and (len(batches[-1]) + 1) * len(example.ids) > tokens:
                batches.append([])
            batches[-1].append(example)
        rng.shuffle(batches)
        yield from batches


@dataclass(frozen=True)
class Batch:
    """Padded tensors of shape (examples, length)."""

    ids: Tensor
    weights: Tensor
    passage: Tensor
    match: Tensor


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pads examples on the right to a multiple of 32 tokens."""
    longest = max(len(example.ids) for example in examples)
    length = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE

    def padded(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows], dtype=dtype)

    return Batch(
        padded([example.ids for example in examples], pad_id, torch.long),
        padded([example.weights for example in examples], 0.0, torch.float32),
        padded([example.passage for example in examples], NO_LABEL, torch.long),
        padded([example.match for example in examples], NO_LABEL, torch.long),
    )


class Probes(nn.Module):
    """Linear read-outs of a middle layer, for training only: a token's passage, and whether its word is wanted."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.passage = nn.Linear(hidden, len(IDENTIFIERS))
        self.match = nn.Linear(hidden, 1)

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """Returns the loss of both read-outs over a batch's labelled tokens."""
        in_passage, ends_word = batch.passage != NO_LABEL, batch.match != NO_LABEL
        passage = functional.cross_entropy(self.passage(states[in_passage]), batch.passage[in_passage])
        match = functional.binary_cross_entropy_with_logits(
            self.match(states[ends_word]).squeeze(-1),
            batch.match[ends_word].float(),
            pos_weight=torch.tensor(MATCH_POSITIVE_WEIGHT),
        )
        return passage + match


def training_loss(model: Callable[..., Any], head: nn.Linear, probes: Probes, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the weighted next-token loss and the probes' loss of a batch."""
    states = model(input_ids=batch.ids, output_hidden_states=True, use_cache=False).hidden_states
    scored = batch.weights[:, 1:] > 0
    logits = head(states[-1][:, :-1][scored])
    losses = functional.cross_entropy(logits.float(), batch.ids[:, 1:][scored], reduction="none")
    weights = batch.weights[:, 1:][scored]
    return (losses * weights).sum() / weights.sum(), probes(states[PROBED_LAYER].float(), batch)


def build_optimizers(model: LlamaForCausalLM, probes: Probes, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and probes."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in inside]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([*others, *probes.parameters()], lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def learning_rate_factor(step: int, total: int) -> float:
    """Warm-up over 50 steps, level, then linear decay over the last 30%."""
    return min(1.0, (step + 1) / 50, (total - step) / (0.3 * total))


@torch.no_grad()
def measure(model: LlamaForCausalLM, examples: Sequence[Example], pad_id: int) -> dict[str, float]:
    """Measures the share of right next tokens under the right prefix, for signs and for the first answer."""
    right = {"signs": 0, "answer": 0}
    total = {"signs": 0, "answer": 0}
    model.eval()
    for example in examples:
        ids = torch.tensor([example.ids])
        predicted = model(input_ids=ids).logits[0].argmax(-1)
        for name, positions in (("signs", example.signs), ("answer", example.answer[:1])):
            right[name] += sum(int(predicted[at - 1]) == example.ids[at] for at in positions)
            total[name] += len(positions)
    model.train()
    return {name: right[name] / max(1, total[name]) for name in right}


def held_out(encoder: ExampleEncoder, lexicon: Lexicon, shape: Shape, mode: Mode, count: int) -> list[Example]:
    """Generates lists from a seed that training never uses."""
    rng = random.Random(HELD_OUT_SEED)
    return [encoder.encode(generate_list(rng, shape, lexicon), mode) for _ in range(count)]


def train(output: Path, *, seed: int, lr: float, tokens: int, compile_model: bool, scale: float) -> None:
    """Trains tokenizer and model and writes them to a folder, with a log of losses and held-out accuracies.

    Args:
        output: the folder; made if missing. A checkpoint is written at every measurement.
        seed: fixes weights and data.
        lr: peak learning rate.
        tokens: tokens in a batch.
        compile_model: use `torch.compile`; needs a C++ compiler.
        scale: factor on every stage's steps; below 1 for a quick try.
    """
    set_seed(seed)
    lexicon = build_lexicon(read_documentation())
    tokenizer = train_tokenizer(lexicon.prose, VOCABULARY_SIZE)
    encoder = ExampleEncoder(tokenizer)
    model = build_model(tokenizer)
    model.generation_config.max_new_tokens = 512
    probes = Probes(model.config.hidden_size)
    body = torch.compile(model.model, dynamic=True) if compile_model else model.model
    optimizers = build_optimizers(model, probes, lr)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output)
    write_settings(output)
    shutil.copyfile(Path(__file__).with_name("card.md"), output / "README.md")
    logger.info("%d parameters, %d tokens in the vocabulary", model.num_parameters(), len(tokenizer))

    curriculum = [Stage(max(1, int(stage.steps * scale)), stage.shape, stage.order_rate) for stage in CURRICULUM]
    total = sum(stage.steps for stage in curriculum)
    rng, step, seen, started = random.Random(seed), 0, 0, time.perf_counter()
    with (output / "training.jsonl").open("w", encoding="utf-8") as log:
        for number, stage in enumerate(curriculum):
            batches = generate_batches(encoder, lexicon, curriculum[: number + 1], rng, tokens)
            for _ in range(stage.steps):
                for optimizer in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = lr * learning_rate_factor(step, total)
                batch = collate(next(batches), tokenizer.pad_token_id)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss, probe_loss = training_loss(body, model.lm_head, probes, batch)
                (loss + PROBE_WEIGHT * probe_loss).backward()
                nn.utils.clip_grad_norm_([*model.parameters(), *probes.parameters()], 1.0)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                step += 1
                seen += batch.ids.numel()
                if step % 200 == 0 or step == total:
                    record = {"step": step, "stage": number, "tokens": seen, "loss": loss.item()}
                    record |= {"probe_loss": probe_loss.item(), "seconds": round(time.perf_counter() - started, 1)}
                    for mode in ("exclude", "order"):
                        examples = held_out(encoder, lexicon, stage.shape, mode, 40)
                        accuracies = measure(model, examples, tokenizer.pad_token_id)
                        record |= {f"{mode}_{name}": round(value, 4) for name, value in accuracies.items()}
                    log.write(json.dumps(record) + "\n")
                    log.flush()
                    logger.info("%s", record)
                    save(model, output)
    settings: dict[str, Any] = {"seed": seed, "lr": lr, "tokens": tokens, "scale": scale}
    settings |= {"steps": total, "tokens_seen": seen}
    settings |= {"curriculum": [asdict(stage) for stage in curriculum], "torch": torch.__version__}
    settings |= {"seconds": round(time.perf_counter() - started, 1), "threads": torch.get_num_threads()}
    (output / "training.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def save(model: LlamaForCausalLM, output: Path) -> None:
    """Writes the weights in bfloat16 beside the tokenizer; the model in memory keeps its own precision."""
    weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    # Tied to the embeddings: writing it again would make the file a quarter larger.
    del weights["lm_head.weight"]
    model.config.dtype = torch.bfloat16
    model.save_pretrained(output, state_dict=weights)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model from scratch on generated lists.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0, help="fixes weights and data (default 0)")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default 3e-3)")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens in a batch (default 4096)")
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of steps (default 1)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(
        arguments.output,
        seed=arguments.seed,
        lr=arguments.lr,
        tokens=arguments.tokens,
        compile_model=arguments.compile,
        scale=arguments.scale,
    )


if __name__ == "__main__":
    main()
