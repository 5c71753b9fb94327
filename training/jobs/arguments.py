"""The arguments of `r1ranker train`, and how they are read from recipes and the command line."""

# ruff: noqa: RUF009 -- options are fields, no defaults that instances share

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT, TINY_NAMES

from .recipe_files import recipe_names

try:
    from trl import ModelConfig, get_peft_config, get_quantization_config

    from .recipe_parser import CommandLineError, RecipeParser, close_to
except ImportError as error:
    raise missing_extra("Training", "train", error) from error


@dataclass(frozen=True)
class Method:
    """A way of training: the names of its module, and of two things there; and words for `--help` and model cards."""

    module: str
    config: str
    trainer: str
    words: str

    def named(self, part: Literal["config", "trainer"]) -> Any:
        """The class of its trainer's arguments or of its trainer, which for SFT is a function that makes one."""
        return getattr(importlib.import_module(f"r1ranker_ir.training.trainers.{self.module}"), getattr(self, part))


METHODS = {
    "sft": Method("sft", "RankingSFTConfig", "sft_trainer", "supervised fine-tuning"),
    "grpo": Method("grpo", "RankingGRPOConfig", "RankingGRPOTrainer", "reinforcement learning with GRPO"),
    "ppo": Method("ppo", "RankingPPOConfig", "RankingPPOTrainer", "reinforcement learning with PPO"),
    "likelihood": Method("likelihood", "LikelihoodConfig", "LikelihoodTrainer", "distillation into query likelihoods"),
    "episodes": Method(
        "episodes", "EpisodeGRPOConfig", "EpisodeGRPOTrainer", "reinforcement learning with GRPO on whole eliminations"
    ),
}
"""The methods by the names that the command uses."""


def _option(words: str, default: Any = dataclasses.MISSING) -> Any:
    return field(default=default, metadata={"help": words})


@dataclass(kw_only=True)
class RunArguments:
    """What becomes of a run beside its model."""

    overwrite: bool = _option("Start anew where the output folder holds an earlier run.", False)
    strategies: list[str] | None = _option(
        "Strategies that the trained model offers; without it those it was trained on.", None
    )
    curves: bool = _option("Draw curves.png into the output folder at the end.", True)
    quiet: bool = _option("Show neither messages nor progress.", False)
    verbose: bool = _option("Show more messages.", False)

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise CommandLineError("choose one of --quiet and --verbose")


@dataclass(kw_only=True)
class DataArguments:
    """What is trained on, and what is measured with."""

    train_files: list[str] = _option("Files to train on; see r1ranker data.")
    train_weights: list[float] | None = _option(
        "How often the samples of each file are drawn, one number per file.", None
    )
    curriculum: Literal["shuffled", "length", "tasks"] = _option(
        "Order of the samples: shuffled, from short lists to long ones, or one file (a task) after the other.",
        "shuffled",
    )
    transfers: str | None = _option(
        "With curriculum tasks: transfers.json of r1ranker train pilot, whose order counts; without it the files'.",
        None,
    )
    replay: float = _option("With curriculum tasks: share of a task's stage that replays earlier tasks.", 0.2)
    held_out_files: list[str] | None = _option("Files with whole lists to measure with before, during and after.", None)
    held_out_queries: int | None = _option("Measure with the first N lists of each file.", None)
    held_out_strategy: str | None = _option("How held-out lists are ranked; without it as trained.", None)
    max_passage_tokens: int | None = _option(
        "Tokens shown of a passage; without it what the model's folder says.", None
    )
    max_query_tokens: int | None = _option("Tokens shown of a query; without it what the model's folder says.", None)
    max_thought_tokens: int | None = _option(
        "Tokens after which a thought is closed, on held-out lists and by the trained folder; without it what the "
        "model's folder says.",
        None,
    )
    max_prompt_length: int | None = _option("Tokens that a prompt may take; passages are cut until it fits.", None)

    def __post_init__(self) -> None:
        weights = self.train_weights
        if weights is not None and (len(weights) != len(self.train_files) or not all(each > 0 for each in weights)):
            raise InputError(
                f"train_weights is {weights} for {len(self.train_files)} train_files: give one number above 0 per file"
            )
        if self.curriculum == "length" and weights is not None:
            raise InputError("curriculum length puts all samples in one order: leave train_weights out")
        if self.curriculum == "tasks" and len(self.train_files) < 2:
            raise InputError("curriculum tasks is for several train_files, one a task: give at least two")
        if self.transfers is not None and self.curriculum != "tasks":
            raise InputError("transfers say in which order tasks are trained: add curriculum tasks, or leave them out")
        if not 0 <= self.replay < 1:
            raise InputError(f"replay is {self.replay:g}: give a share from 0 to below 1")
        for name in ("held_out_queries", "max_passage_tokens", "max_query_tokens", "max_prompt_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: give at least 1")
        if self.max_thought_tokens is not None and self.max_thought_tokens < 0:
            raise InputError(f"max_thought_tokens is {self.max_thought_tokens}: give at least 0")


@dataclass(kw_only=True)
class ModelArguments:
    """Which model is trained, and how it is loaded; the names of LoRA's settings are TRL's."""

    model: str = _option("Model to train: a folder or a hub name; tiny for the embedded one.")
    revision: str | None = _option("Revision on the hub.", None)
    template: str | None = _option("Prompt template (TOML) in place of the model's own.", None)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _option("Type of the loaded weights.", "float32")
    attn_implementation: str | None = _option("Such as flash_attention_2.", None)
    use_peft: bool = _option("Train a LoRA adapter in place of all weights.", False)
    lora_r: int = _option("Rank of the adapter.", 16)
    lora_alpha: int = _option("Scale of the adapter.", 32)
    lora_dropout: float = _option("Dropout before the adapter.", 0.05)
    lora_target_modules: list[str] | None = _option("Layers that get an adapter; all-linear for all of them.", None)
    lora_layers: list[int] | None = _option(
        "Numbers of the layers that get an adapter, from 0; below the first one nothing is differentiated.", None
    )
    use_rslora: bool = _option("Rank-stabilised LoRA.", False)
    load_in_8bit: bool = _option("Load the base of an adapter in 8 bits.", False)
    load_in_4bit: bool = _option("Load the base of an adapter in 4 bits.", False)

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise InputError("model is blank: give a folder or a hub name, or tiny for the embedded model")
        if self.model == "tiny" or self.model in TINY_NAMES:
            self.model = os.fspath(TINY_CHECKPOINT)
        if (self.load_in_4bit or self.load_in_8bit) and not self.use_peft:
            raise InputError("weights in 4 or 8 bits can't be trained: add use_peft to train an adapter on them")
        if self.lora_layers is not None and self.lora_target_modules in (None, ["all-linear"]):
            raise InputError("lora_layers goes with lora_target_modules by name, such as q_proj v_proj: name them")
        self._as_trl()

    def _as_trl(self) -> ModelConfig:
        known = {each.name for each in dataclasses.fields(ModelConfig)}
        shared = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name in known}
        return ModelConfig(model_name_or_path=self.model, **shared)

    def peft_config(self) -> Any:
        """The adapter's settings for peft, or `None` where all weights are trained."""
        config = get_peft_config(self._as_trl())
        if config is not None:
            config.layers_to_transform = self.lora_layers
        return config

    def quantization_config(self) -> Any:
        """The base's quantisation, or `None`."""
        return get_quantization_config(self._as_trl())


@dataclass(frozen=True)
class TrainingArguments:
    """All that a training was told."""

    method: str
    run: RunArguments
    data: DataArguments
    model: ModelArguments
    trainer: Any


def trainer_class(method: str) -> Any:
    """The class of a method's trainer, or the function that makes it."""
    return METHODS[method].named("trainer")


def build_parser(method: str) -> RecipeParser:
    """Builds the parser of a method."""
    return RecipeParser(
        (DataArguments, ModelArguments, RunArguments, METHODS[method].named("config")),
        prog=f"r1ranker train {method}",
        description=f"Trains a ranker by {METHODS[method].words}. --config names a recipe: a YAML file of these "
        f"arguments, or one of {', '.join(recipe_names())}. What stands on the command line goes before what the "
        "recipe says.",
    )


def parse_arguments(method: str, arguments: Sequence[str]) -> TrainingArguments:
    """Reads a recipe and the command line."""
    parser = build_parser(method)
    try:
        recipes = RecipeParser((), prog=parser.prog, description="")
        recipes.add_argument("--config", action="append", default=[])
        given, told = recipes.parse_known_args(list(arguments))
        if len(given.config) > 1:
            raise CommandLineError(f"argument --config: one recipe only, not {' and '.join(map(repr, given.config))}")
        for name in given.config:
            parser.take_recipe(name)
        parsed: Any = parser.parse_args_into_dataclasses(told, return_remaining_strings=True, look_for_args_file=False)
    except InputError:
        raise
    # The checks of TRL and transformers raise these for every kind of mistake.
    except (ValueError, TypeError, NotImplementedError, ImportError, LookupError, ArithmeticError) as error:
        raise InputError(f"{parser.prog}: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise InputError(f"{parser.prog}: a value is nested too deeply") from None
    data, model, run, trainer, remaining = parsed
    if remaining:
        options = [option for action in parser._actions for option in action.option_strings]
        wrong = remaining[0].partition("=")[0]
        raise CommandLineError(f"unknown argument {wrong!r}{close_to(wrong, options)}")
    return TrainingArguments(method, run, data, model, trainer)
