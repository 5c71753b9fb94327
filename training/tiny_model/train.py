"""Trains the embedded model from scratch on generated lists, and writes it as an ordinary Hugging Face folder.

    python -m r1ranker_ir.training.tiny_model.train --output out/tiny

needs no data and no GPU. Source of the design: this project's own experiments; see docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from r1ranker_ir.training.demo.lexicon import Lexicon, build_lexicon, read_documentation
from r1ranker_ir.training.demo.lists import IDENTIFIERS, Mode

from .examples import END, MODE_WORDS, NO_LABEL, Example, ExampleEncoder
from .lists import Shape, generate_list
from .settings import write_settings
from .tokenizer import PAD, train_tokenizer

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 3072
PROBED_LAYER = 2
PROBE_WEIGHT = 0.5
MATCH_POSITIVE_WEIGHT = 3.0
PAD_MULTIPLE = 32
REVISIT_RATE = 0.25
WARM_UP_STEPS = 50
HELD_OUT_SEED = 10_000


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum."""

    steps: int
    shapes: tuple[Shape, ...]
    order_rate: float


_MANY_STOPS = (0, 1, 2, 3, 4, 5, 6, 7)
_LONG = Shape((9, 10), (16, 42), (4, 18), _MANY_STOPS)
CURRICULUM = (
    Stage(800, (Shape((2, 3), (3, 6), (1, 4)),), 0.3),
    Stage(700, (Shape((2, 5), (4, 16), (1, 5)),), 0.4),
    Stage(1900, (Shape((2, 10), (8, 42), (1, 6)),), 0.45),
    Stage(
        2200,
        (
            *(Shape((2, 4), (4, 12), (1, 8), _MANY_STOPS), Shape((2, 10), (12, 42), (1, 6), _MANY_STOPS)),
            Shape((9, 10), (16, 42), (1, 8), _MANY_STOPS),
        ),
        0.5,
    ),
    # Queries of more words than a thought walks through: it has to stop after the eighth.
    Stage(
        800, (Shape((2, 4), (4, 12), (1, 18), _MANY_STOPS), Shape((2, 10), (12, 42), (1, 8), _MANY_STOPS), _LONG), 0.5
    ),
    # Every shape again while the learning rate falls. The shipped weights were trained up to here with one sign per
    # word, and learned in this stage to give rare words two of them.
    Stage(
        4000, (Shape((2, 5), (4, 20), (1, 6), _MANY_STOPS), Shape((2, 10), (12, 42), (1, 8), _MANY_STOPS), _LONG), 0.5
    ),
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
    """Yields batches of examples of similar length without end."""
    while True:
        pool = []
        for _ in range(96):
            stage = rng.choice(stages) if rng.random() < REVISIT_RATE else stages[-1]
            mode: Mode = "order" if rng.random() < stage.order_rate else "exclude"
            pool.append(encoder.encode(generate_list(rng, rng.choice(stage.shapes), lexicon), mode))
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


def decay(step: int, total: int) -> float:
    """The learning rate's factor: level, then falling to nothing over the last 35%."""
    return min(1.0, (total - step) / (0.35 * total))


MEASURED = ("walk", "signs", "answer")


@torch.no_grad()
def measure(model: LlamaForCausalLM, examples: Sequence[Example]) -> dict[str, float]:
    """Measures the share of right next tokens after the right beginning: words walked, signs, and the first answer."""
    right, total = dict.fromkeys(MEASURED, 0), dict.fromkeys(MEASURED, 0)
    model.eval()
    for example in examples:
        predicted = model(input_ids=torch.tensor([example.ids])).logits[0].argmax(-1)
        for name, positions in zip(MEASURED, (example.walk, example.signs, example.answer[:1]), strict=True):
            right[name] += sum(int(predicted[at - 1]) == example.ids[at] for at in positions)
            total[name] += len(positions)
    model.train()
    return {name: right[name] / max(1, total[name]) for name in MEASURED}


def held_out(encoder: ExampleEncoder, lexicon: Lexicon, shape: Shape, mode: Mode, count: int) -> list[Example]:
    """Generates lists from a seed that training never uses."""
    rng = random.Random(HELD_OUT_SEED)
    return [encoder.encode(generate_list(rng, shape, lexicon), mode) for _ in range(count)]


@dataclass
class Progress:
    """How far a training has come."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Options:
    """How to train."""

    seed: int = 0
    lr: float = 3e-3
    batch_tokens: int = 4096
    compile_model: bool = False


def train(output: Path, options: Options, *, scale: float = 1.0, resume: bool = False) -> None:
    """Trains tokenizer and model and writes them to a folder, with a log of losses and held-out accuracies."""
    set_seed(options.seed)
    lexicon = build_lexicon(read_documentation())
    progress = _last_progress(output) if resume else Progress()
    if resume:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(output)
        model = LlamaForCausalLM.from_pretrained(output, dtype=torch.float32).train()
    else:
        tokenizer = train_tokenizer(lexicon.prose, VOCABULARY_SIZE)
        model = build_model(tokenizer)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(output)
    write_settings(output)
    shutil.copyfile(Path(__file__).with_name("card.md"), output / "README.md")
    logger.info("%d parameters, %d tokens in the vocabulary", model.num_parameters(), len(tokenizer))
    curriculum = [replace(stage, steps=max(1, int(stage.steps * scale))) for stage in CURRICULUM]
    optimise(model, ExampleEncoder(tokenizer, lexicon.common), lexicon, curriculum, output, options, progress)
    settings = asdict(options) | asdict(progress) | {"threads": torch.get_num_threads(), "torch": torch.__version__}
    settings["curriculum"] = [asdict(stage) for stage in curriculum]
    (output / "training.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _last_progress(output: Path) -> Progress:
    record = json.loads((output / "training.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return Progress(record["step"], record["tokens"], record["seconds"])


def optimise(
    model: LlamaForCausalLM,
    encoder: ExampleEncoder,
    lexicon: Lexicon,
    curriculum: Sequence[Stage],
    output: Path,
    options: Options,
    progress: Progress,
) -> None:
    """Goes through what is left of a curriculum and keeps count in `progress`; the other arguments are `train`'s."""
    probes = Probes(model.config.hidden_size)
    body = torch.compile(model.model, dynamic=True) if options.compile_model else model.model
    optimizers = build_optimizers(model, probes, options.lr)
    total, first, before = sum(stage.steps for stage in curriculum), progress.step, progress.seconds
    rng, started, ends = random.Random(f"{options.seed}:{first}"), time.perf_counter(), 0
    for number, stage in enumerate(curriculum):
        ends += stage.steps
        batches = generate_batches(encoder, lexicon, curriculum[: number + 1], rng, options.batch_tokens)
        while progress.step < ends:
            warm_up = min(1.0, (progress.step - first + 1) / WARM_UP_STEPS)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = options.lr * warm_up * decay(progress.step, total)
            batch = collate(next(batches), encoder.word(PAD)[0])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, probe_loss = training_loss(body, model.lm_head, probes, batch)
            (loss + PROBE_WEIGHT * probe_loss).backward()
            nn.utils.clip_grad_norm_([*model.parameters(), *probes.parameters()], 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            progress.tokens += batch.ids.numel()
            if progress.step % 200 == 0 or progress.step == total:
                progress.seconds = round(before + time.perf_counter() - started, 1)
                record: dict[str, Any] = {"stage": number, "loss": loss.item(), "probe_loss": probe_loss.item()}
                for mode in MODE_WORDS:
                    measured = measure(model, held_out(encoder, lexicon, stage.shapes[-1], mode, 40))
                    record |= {f"{mode}_{name}": round(value, 4) for name, value in measured.items()}
                record = asdict(progress) | record
                logger.info("%s", record)
                with (output / "training.jsonl").open("a" if progress.step > 200 else "w", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
                save(model, output)


def save(model: LlamaForCausalLM, output: Path) -> None:
    """Writes the weights in bfloat16 beside the tokenizer; the model in memory keeps its own precision."""
    weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    # Tied to the embeddings: writing it again would make the file a quarter larger.
    del weights["lm_head.weight"]
    model.config.dtype = torch.bfloat16
    model.generation_config.max_new_tokens = 512
    model.save_pretrained(output, state_dict=weights)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model from scratch on generated lists.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=Options.seed, help="fixes weights and data (default %(default)s)")
    parser.add_argument("--lr", type=float, default=Options.lr, help="peak learning rate (default %(default)s)")
    parser.add_argument(
        "--batch-tokens", type=int, default=Options.batch_tokens, help="tokens in a batch (default %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of steps (default %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = Options(given.seed, given.lr, given.batch_tokens, given.compile)
    train(given.output, options, scale=given.scale, resume=given.resume)


if __name__ == "__main__":
    main()
