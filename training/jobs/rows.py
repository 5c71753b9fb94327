"""The rows of a training: files read, put together as asked, and given their prompts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.prompting import PromptRenderer, sample_of, training_rows
from r1ranker_ir.training.data.sample_files import read_samples
from r1ranker_ir.training.trainers.mixture import mix, order_by_length

from .arguments import DataArguments, TrainingArguments
from .transfers import turns_of


def rows_to_train(arguments: TrainingArguments, renderer: PromptRenderer) -> tuple[Any, Counter[str]]:
    """Reads the training's files.

    A mixture and a curriculum put rows in an order of their own: they turn the trainer's shuffling off.
    """
    read = read_completions if arguments.method == "sft" else read_samples
    rows = _in_order(arguments, [read(path) for path in arguments.data.train_files])
    strategies = Counter(rows["strategy"]) if "strategy" in rows.column_names else Counter[str]()
    if arguments.method == "sft":
        return rows, strategies
    if arguments.method == "likelihood":
        return rows, Counter({"likelihood": len(rows)})
    if arguments.method == "episodes":
        from r1ranker_ir.training.trainers.episodes import episode_rows

        return episode_rows(rows, renderer), Counter({"iterative": len(rows)})
    return training_rows(rows, renderer), strategies


def _in_order(arguments: TrainingArguments, parts: Sequence[Any]) -> Any:
    """Puts the samples of all files together, as the mixture or the curriculum asks."""
    from datasets import concatenate_datasets

    data, config = arguments.data, arguments.trainer
    seed = config.seed if config.data_seed is None else config.data_seed
    for number, part in enumerate(parts):
        if part.features != parts[0].features:
            raise DataFileError(
                f"{data.train_files[number]} has the columns {', '.join(part.column_names)}, {data.train_files[0]} "
                f"{', '.join(parts[0].column_names)}: train on files of one kind"
            )
    if data.curriculum == "tasks":
        _keep_order(config)
        weights = data.train_weights or [len(part) for part in parts]
        return mix(parts, weights, length=_rows_taken(arguments), seed=seed, turns=task_turns(data), replay=data.replay)
    if data.train_weights is not None:
        # Every beginning of a mixture keeps to its proportions, which another shuffling would only blur.
        _keep_order(config)
        return mix(parts, data.train_weights, length=_rows_taken(arguments), seed=seed)
    rows = concatenate_datasets(list(parts))
    if data.curriculum == "length":
        if grading := [name for name in rows.unique("strategy") if STRATEGIES[name].asks == "grade"]:
            raise InputError(f"curriculum length is for prompts that show a list: {grading[0]} shows one candidate")
        if "gains" not in rows.column_names:
            raise InputError("curriculum length needs samples, which know their candidates: give such files")
        _keep_order(config)
        return order_by_length(rows, length=_rows_taken(arguments), seed=seed)
    return rows


def _keep_order(config: Any) -> None:
    """Turns a trainer's shuffling off."""
    config.shuffle_dataset = False
    # The former is all that GRPO's sampler heeds, the latter all that transformers' own heeds, which serves SFT.
    config.train_sampling_strategy = "sequential"


def _rows_taken(arguments: TrainingArguments) -> int | None:
    """How many rows the training's steps take; `None` if that is not known."""
    config = arguments.trainer
    if config.max_steps <= 0 or arguments.method == "episodes":
        # How many rows of a batch a list takes up is found out by the trainer of episodes.
        return None
    batches: int = config.max_steps * config.gradient_accumulation_steps
    if arguments.method in ("sft", "likelihood"):
        return batches * int(config.per_device_train_batch_size * config.world_size)
    # TRL generates for this many prompts at once, uses what comes out in several batches, and leaves a rest out.
    generations: int = math.ceil(batches / (config.steps_per_generation * config.num_iterations))
    return generations * int(config.generation_batch_size // config.num_generations)


def task_turns(data: DataArguments) -> list[int]:
    """The order in which the files are trained on as tasks: places in `train_files`."""
    return list(range(len(data.train_files))) if data.transfers is None else turns_of(data.transfers, data.train_files)


def held_out_by_file(data: DataArguments) -> list[list[JudgedRequest]]:
    """Reads the lists to measure with, file by file."""
    read = [read_samples(path) for path in data.held_out_files or ()]
    most = [len(rows) if data.held_out_queries is None else min(len(rows), data.held_out_queries) for rows in read]
    return [[sample_of(row).record for row in rows.take(count)] for rows, count in zip(read, most, strict=True)]
