"""What GRPO steps cost on a device: a randomly initialised model of a given size, so that no weights are needed.

    python -m r1ranker_ir.training.tiny_model.benchmark --size 3b --steps 5

runs GRPO on the packaged collection and prints tokens a second, memory, and the share of time that rollouts take. The
random weights write nonsense that never ends, so every completion has its full length: the worst case.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.random_weights import read_configuration
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.retrieval.bm25 import search
from r1ranker_ir.training.data.from_runs import Retrieval, retrieved_records
from r1ranker_ir.training.data.prompting import PromptRenderer, training_rows
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.data.samples import Sampling, samples_of
from r1ranker_ir.training.rewards.rewards import find_reward
from r1ranker_ir.training.trainers.grpo import RankingGRPOConfig, RankingGRPOTrainer

# What differs from the packaged configuration of Qwen2.5-3B; `tiny` is for trying the script.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "3b": {},
}


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured over the steps after the first, which warms up."""

    device: str
    parameters: int
    steps: int
    seconds_per_step: float
    rollout_share: float
    generated_tokens_per_second: float
    trained_tokens_per_second: float
    peak_memory_gib: float | None


def collection_rows(renderer: PromptRenderer, candidates: int) -> Any:
    """Renders step samples of the packaged collection."""
    with resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder:
        corpus = open_corpus(folder)
        run = search(corpus, 20, corpus.queries())
        records = list(retrieved_records(corpus, run, Retrieval(), Counter(), Counter()))
    sampling = Sampling("iterative", candidates=candidates, positives=1)
    samples = [sample for record in records for sample in samples_of(record, sampling, Counter())]
    return training_rows(Dataset.from_list([row_of(sample) for sample in samples]), renderer)


def run_benchmark(
    size: str,
    *,
    steps: int = 5,
    rollouts: int = 32,
    num_generations: int = 8,
    completion_tokens: int = 512,
    candidates: int = 10,
    micro_batch: int = 4,
) -> BenchmarkResult:
    """Runs GRPO steps on a random model and measures them."""
    on_gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT, trust_remote_code=False)
    dimensions = read_configuration("qwen2.5-3b") | SIZES[size]
    if size == "tiny":
        dimensions["vocab_size"] = len(tokenizer)
    dimensions |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = Qwen2Config(**{name: value for name, value in dimensions.items() if name != "model_type"})
    with torch.device("cuda" if on_gpu else "cpu"):
        model: Any = Qwen2ForCausalLM(config)
        model.to(torch.bfloat16 if on_gpu else torch.float32)
    renderer = PromptRenderer(tokenizer, load_template(), completion_tokens=completion_tokens)
    with tempfile.TemporaryDirectory() as folder:
        args = RankingGRPOConfig(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=rollouts // micro_batch,
            num_generations=num_generations,
            max_completion_length=completion_tokens,
            # Every completion has the same length, whatever the random weights would like to write.
            generation_kwargs={"suppress_tokens": [tokenizer.eos_token_id], "min_new_tokens": completion_tokens},
            learning_rate=1e-6,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            gradient_checkpointing=on_gpu,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            report_to=[],
        )
        trainer = RankingGRPOTrainer(
            model,
            [find_reward("exclusion")],
            args=args,
            train_dataset=collection_rows(renderer, candidates),
            renderer=renderer,
            processing_class=tokenizer,
        )
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "step_time" in entry]
    return _summary(logs, model, "cuda" if on_gpu else "cpu")


def _summary(logs: list[dict[str, Any]], model: Any, device: str) -> BenchmarkResult:
    measured = logs[1:]
    seconds = sum(entry["step_time"] for entry in measured)
    rollouts = sum(entry["rollout_seconds"] for entry in measured)
    generated = measured[-1]["generated_tokens"] - logs[0]["generated_tokens"]
    tokens = measured[-1]["num_tokens"] - logs[0]["num_tokens"]
    return BenchmarkResult(
        torch.cuda.get_device_name() if device == "cuda" else "CPU",
        model.num_parameters(),
        len(measured),
        seconds / len(measured),
        rollouts / seconds,
        generated / rollouts,
        tokens / (seconds - rollouts),
        torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure GRPO steps on a randomly initialised model.")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="dimensions (default %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps (default %(default)s)")
    parser.add_argument("--rollouts", type=int, default=32, help="completions a step (default %(default)s)")
    parser.add_argument("--completion-tokens", type=int, default=512, help="of each (default %(default)s)")
    parser.add_argument("--micro-batch", type=int, default=4, help="completions a pass (default %(default)s)")
    given = parser.parse_args()
    result = run_benchmark(
        given.size,
        steps=given.steps,
        rollouts=given.rollouts,
        completion_tokens=given.completion_tokens,
        micro_batch=given.micro_batch,
    )
    print(json.dumps(asdict(result), indent=2))


if __name__ == "__main__":
    main()
