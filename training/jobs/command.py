"""What `r1ranker train` does: arguments, model and data become a trained folder, with its record and its curves."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from r1ranker_ir.backends.limits import ANSWER_TOKENS, configured_context, thought_limit
from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.files.locks import folder_lock
from r1ranker_ir.files.paths import NamedFile, check_folder, check_outputs
from r1ranker_ir.models.checkpoints import CheckpointSettings, read_settings
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.rewards.judged import JudgedReward

from .arguments import DataArguments, TrainingArguments, trainer_class
from .curves import plot_curves
from .held_out import HeldOutResult, rank_held_out
from .json_records import write_record
from .model_card import write_card
from .model_loading import load_for_training
from .output_folder import (
    CURVES_FILE,
    RUN_FILE,
    WRITTEN_NAMES,
    check_continues,
    check_is_free,
    clear,
    find_checkpoint,
    model_folders,
    output_folder,
)
from .progress import HELD_OUT, HeldOutMeasurements, show_progress
from .recipe_files import find_template
from .record import TrainingRecord, changed_arguments, describe_file, library_versions, write_ranks
from .rows import held_out_by_file, rows_to_train, task_turns
from .trained_folder import base_name, save_trained_folder, settings_content

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSummary:
    """What a training has done."""

    record: TrainingRecord
    folder: Path
    before: HeldOutResult | None = None

    def line(self) -> str:
        """Steps, tokens, seconds and held-out measures in one line."""
        record, parts = self.record, [f"{self.record.steps} steps"]
        if record.generated_tokens is not None:
            parts.append(f"{record.generated_tokens} tokens generated")
        parts.append(f"{record.seconds or 0:.1f} seconds")
        if record.judge:
            parts.append(f"{record.judge['graded']} thoughts judged, {record.judge['failed']} not for failures")
        for name in ("RR", "nDCG@10"):
            if name in record.before and name in record.after:
                parts.append(f"held-out {name} {record.before[name]:.4f} before, {record.after[name]:.4f} after")
        return ", ".join(parts)


def train(
    arguments: TrainingArguments, *, progress: bool = False, before: HeldOutResult | None = None
) -> TrainingSummary:
    """Trains a model and writes its folder; what is known of the model before need not be measured again."""
    folder = output_folder(arguments)
    checkpoint = find_checkpoint(arguments, folder)
    check_is_free(arguments, folder, checkpoint)
    _check_inputs_stay(arguments, folder)
    # Of several processes one writes; the others have nobody to share the folder with.
    main = arguments.trainer.process_index == 0
    with folder_lock(folder, "output_dir") if main else contextlib.nullcontext():
        return _train_into(folder, checkpoint, arguments, progress=progress, before=before)


def _check_inputs_stay(arguments: TrainingArguments, folder: Path) -> None:
    """Refuses files of data that the training would overwrite, or remove with an earlier run."""
    data = arguments.data
    given = [NamedFile("train_files", path) for path in data.train_files]
    given += [NamedFile("held_out_files", path) for path in data.held_out_files or ()]
    check_outputs((NamedFile("output_dir", folder / name) for name in WRITTEN_NAMES), given)
    given += [NamedFile("model", model) for model in model_folders(arguments.model.model)]
    if arguments.run.overwrite:
        for removed in folder.glob("checkpoint-*"):
            check_folder(removed, "output_dir", given)


def _train_into(
    folder: Path,
    checkpoint: Path | None,
    arguments: TrainingArguments,
    *,
    progress: bool,
    before: HeldOutResult | None,
) -> TrainingSummary:
    config, main = arguments.trainer, arguments.trainer.process_index == 0
    settings = _settings(arguments)
    set_seed(config.seed)
    model, tokenizer = load_for_training(arguments.model, trust_remote_code=config.trust_remote_code)
    # Trainers set padding in the tokenizer that they are given.
    saved_tokenizer = copy.deepcopy(tokenizer)
    renderer = _renderer(arguments, settings, model, tokenizer)
    rows, strategies = rows_to_train(arguments, renderer)
    by_file = held_out_by_file(arguments.data)
    held_out = [each for records in by_file for each in records]
    held_out_strategy = _held_out_strategy(arguments.data, strategies, settings) if held_out else ""
    record = start_record(arguments, list(strategies))
    if checkpoint is not None:
        check_continues(folder, record)
    # What the trained folder will say can't be wrong after hours of training.
    offered = arguments.run.strategies or list(strategies) or list(settings.strategies)
    settings_content(settings, offered)
    trainer = _build_trainer(arguments, model, tokenizer, renderer, rows)
    show_progress(trainer, bar=progress)

    def measure(trained: Any) -> HeldOutResult:
        return rank_held_out(trained, tokenizer, renderer, held_out, held_out_strategy, settings)

    measured = HeldOutMeasurements(trainer, measure, getattr(config, "held_out_every", 0), before)
    if held_out:
        trainer.add_callback(measured)
    if main:
        if arguments.run.overwrite and checkpoint is None:
            clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / RUN_FILE, record.as_json(), "output_dir", indent=2)
    started = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except R1RankerError:
        raise
    except ValueError as error:
        # Some settings are read by TRL in the first step only, such as the kind of loss.
        where = f"the training stopped in step {trainer.state.global_step + 1}"
        raise InputError(f"{where}: {' '.join(str(error).split())} (verbose shows where)") from error
    record = _finished(record, trainer, time.perf_counter() - started)
    content = settings_content(settings, offered, record)
    if main and held_out:
        files = zip(arguments.data.held_out_files or (), by_file, strict=True)
        named = [Path(path).name for path, records in files for _ in records]
        write_ranks(folder, [each.request.query_id for each in held_out], measured.before, measured.after, named)
    save_trained_folder(
        folder,
        save_weights=lambda staging: trainer.save_model(str(staging)),
        tokenizer=saved_tokenizer,
        settings=content,
        card=write_card(record, content),
        main_process=main,
    )
    trainer.save_state()
    if main and arguments.run.curves:
        try:
            plot_curves({folder.name: [trainer.state.log_history]}, folder / CURVES_FILE, title=folder.name)
        except R1RankerError as error:
            # The model is saved: a picture is no reason to fail.
            logger.warning("no curves are drawn: %s", error)
    return TrainingSummary(record, folder, measured.first)


def _settings(arguments: TrainingArguments) -> CheckpointSettings:
    """How the model wants to be asked, with what the training changes of it."""
    settings = read_settings(arguments.model.model, arguments.model.revision)
    if arguments.model.template is not None:
        settings = replace(settings, template=load_template(find_template(arguments.model.template)))
    limits = ("max_passage_tokens", "max_query_tokens", "max_thought_tokens")
    wanted = {name: getattr(arguments.data, name) for name in limits}
    return replace(settings, **{name: limit for name, limit in wanted.items() if limit is not None})


def _renderer(arguments: TrainingArguments, settings: CheckpointSettings, model: Any, tokenizer: Any) -> PromptRenderer:
    """Renders the training's prompts."""
    context = configured_context(model.config)
    # What a backend keeps free of a prompt, or passages would be cut elsewhere than when the model ranks.
    kept = thought_limit(settings.max_thought_tokens, context) + ANSWER_TOKENS
    reserve = max(kept, getattr(arguments.trainer, "max_completion_length", None) or 0)
    wanted = arguments.data.max_prompt_length
    contexts = [context, None if wanted is None else wanted + reserve]
    return PromptRenderer(
        tokenizer,
        settings.template or load_template(),
        max_passage_tokens=settings.max_passage_tokens,
        max_query_tokens=settings.max_query_tokens,
        context_length=min((each for each in contexts if each is not None), default=None),
        completion_tokens=reserve,
    )


def _held_out_strategy(data: DataArguments, trained: Counter[str], settings: CheckpointSettings) -> str:
    wanted = data.held_out_strategy
    if wanted is None:
        # Of several trained strategies the most frequent; of files that name none, the model's first.
        offered = [name for name, _ in trained.most_common()] or list(settings.strategies)
        wanted = next((name for name in offered if name in STRATEGIES), offered[0])
    if wanted not in STRATEGIES:
        raise InputError(
            f"held-out lists can't be ranked by {wanted!r}: set held_out_strategy to {' or '.join(STRATEGIES)}, or "
            "leave held_out_files out"
        )
    return wanted


def start_record(arguments: TrainingArguments, strategies: list[str]) -> TrainingRecord:
    """Records what is known before the first step."""
    config, data = arguments.trainer, arguments.data
    told = [changed_arguments(each) for each in (config, data, arguments.model)]
    return TrainingRecord(
        method=arguments.method,
        base_model=base_name(arguments.model.model),
        base_revision=arguments.model.revision,
        strategies=strategies,
        data=[describe_file(path) for path in data.train_files],
        held_out=[describe_file(path) for path in data.held_out_files or ()],
        seed=config.seed,
        rewards=list(getattr(config, "rewards", ())),
        task_order=[Path(data.train_files[turn]).name for turn in task_turns(data)]
        if data.curriculum == "tasks"
        else [],
        arguments=told[0] | told[1] | told[2],
        libraries=library_versions(),
    )


def _build_trainer(
    arguments: TrainingArguments, model: Any, tokenizer: Any, renderer: PromptRenderer, rows: Any
) -> Any:
    config = arguments.trainer
    config.disable_tqdm = False
    # An adapter to go on with is on the model already.
    adapter = None if hasattr(model, "peft_config") else arguments.model.peft_config()
    options = {"args": config, "train_dataset": rows, "renderer": renderer, "peft_config": adapter}
    options["tokenizer" if arguments.method == "sft" else "processing_class"] = tokenizer
    try:
        if arguments.method in ("sft", "likelihood"):
            return trainer_class(arguments.method)(model, **options)
        from r1ranker_ir.training.rewards.rewards import find_reward

        return trainer_class(arguments.method)(model, [find_reward(name, config) for name in config.rewards], **options)
    except R1RankerError:
        raise
    # TRL checks what goes together in its trainers, and imports there what only some settings need.
    except (ValueError, TypeError, ImportError, NotImplementedError, AttributeError) as error:
        raise InputError(f"the training can't be set up: {' '.join(str(error).split())}") from error


def _finished(record: TrainingRecord, trainer: Any, seconds: float) -> TrainingRecord:
    """The record with what is known after the last step."""
    measured = [
        {name.removeprefix(HELD_OUT): value for name, value in entry.items() if name.startswith(HELD_OUT)}
        for entry in trainer.state.log_history
        if f"{HELD_OUT}RR" in entry
    ]
    generated = getattr(trainer, "generated", None)
    known: dict[str, Any] = {"steps": trainer.state.global_step, "seconds": round(seconds, 1)}
    known["generated_tokens"] = None if generated is None else generated.count
    judged = [each for each in getattr(trainer, "reward_funcs", ()) if isinstance(each, JudgedReward)]
    known["judge"] = judged[0].told() if judged else {}
    return record.model_copy(update=known | ({"before": measured[0], "after": measured[-1]} if measured else {}))
