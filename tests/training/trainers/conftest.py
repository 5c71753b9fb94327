"""A bench for trainers: samples, rows and trainers of a checkpoint, with settings for a CPU and for short tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1ranker_ir import Candidate
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, read_settings
from r1ranker_ir.training.data.prompting import PromptRenderer, training_rows
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import row_of
from r1ranker_ir.training.trainers.grpo import RankingGRPOConfig, RankingGRPOTrainer

WORDS = "flea wool kettle water spring cloth sheep boils degrees larvae".split()
QUICK: dict[str, Any] = {
    **{"max_steps": 1, "logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True},
    **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "lr_scheduler_type": "constant"},
}
GRPO: dict[str, Any] = {
    # Thoughts begin with [1]; at this temperature nearly every second one begins with something else.
    **{"max_completion_length": 1, "temperature": 4.0, "num_generations": 4, "per_device_train_batch_size": 8},
    **{"learning_rate": 3e-4},
}


def pays_for_the_first_identifier(completions: Any, **columns: Any) -> list[float | None]:
    return [float(completion[0]["content"].lstrip().startswith("[1]")) for completion in completions]


@dataclass
class Bench:
    """Makes trainers of a checkpoint; prompts are those of the embedded model."""

    checkpoint: Path
    folder: Path
    kind: Any = RankingGRPOTrainer
    config: Any = RankingGRPOConfig
    settings: dict[str, Any] = field(default_factory=lambda: GRPO)
    context_length: int = 1024
    completion_tokens: int = 40

    def __post_init__(self) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.checkpoint)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        own = read_settings(TINY_CHECKPOINT)
        assert own.template is not None
        limits = {"context_length": self.context_length, "completion_tokens": self.completion_tokens}
        self.renderer = PromptRenderer(
            self.tokenizer, own.template, max_passage_tokens=own.max_passage_tokens, **limits
        )

    def samples(self, count: int) -> list[Sample]:
        """Lists of two or three candidates in turn, every other pair from a source whose rewards will not differ."""
        chosen = random.Random(0)
        samples = []
        for number in range(count):
            texts = [" ".join(chosen.sample(WORDS, 2)) for _ in range(2 + number % 2)]
            candidates = tuple(Candidate(str(place), text) for place, text in enumerate(texts))
            gains = (1.0, *[0.0] * (len(texts) - 1))
            source = ("varied", "flat")[number // 2 % 2]
            record = judged(chosen.choice(WORDS), candidates, gains, id=str(number), source=source)
            samples.append(Sample("iterative", record))
        return samples

    def rows(self, count: int = 8, *more: Sample) -> Any:
        samples = [*self.samples(count), *more]
        return training_rows(Dataset.from_list([row_of(sample) for sample in samples]), self.renderer)

    def arguments(self, **settings: Any) -> Any:
        """A configuration for short tests."""
        return self.config(**{"output_dir": str(self.folder), **QUICK, **self.settings, **settings})

    def trainer(
        self, *rewards: Callable[..., Sequence[float | None]], rows: Any = None, options: Any = None, **settings: Any
    ) -> Any:
        """A trainer; `options` are its further arguments, `settings` those of its configuration."""
        arguments = self.arguments(**settings)  # what these refuse costs no loading
        return self.kind(
            AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=torch.float32),
            list(rewards) or [pays_for_the_first_identifier],
            args=arguments,
            train_dataset=self.rows() if rows is None else rows,
            renderer=self.renderer,
            processing_class=self.tokenizer,
            **(options or {}),
        )


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    """Makes a bench of a checkpoint, by default of the embedded model."""

    def make(checkpoint: Path = TINY_CHECKPOINT, **options: Any) -> Bench:
        return Bench(checkpoint, tmp_path / "training", **options)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture
def weights_of() -> Callable[[Any], dict[str, torch.Tensor]]:
    """A copy of all parameters of a trainer's model."""
    return lambda trainer: {name: each.detach().clone() for name, each in trainer.model.named_parameters()}
