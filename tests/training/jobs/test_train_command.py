"""`r1ranker train`: mistakes are explained, short trainings of the embedded model write folders that rank, and a
training that stopped goes on exactly."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from r1ranker_ir import Candidate, Ranker, RankingRequest
from r1ranker_ir.cli.app import app
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import SETTINGS_FILE, TINY_CHECKPOINT, read_settings
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.training.data.completion_files import CompletedSample, write_completions
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.sample_files import write_samples
from r1ranker_ir.training.jobs.arguments import parse_arguments
from r1ranker_ir.training.jobs.command import TrainingSummary, start_record, train
from r1ranker_ir.training.jobs.curves import read_history
from r1ranker_ir.training.jobs.output_folder import check_continues
from r1ranker_ir.training.jobs.record import TrainingRecord
from r1ranker_ir.training.jobs.rows import rows_to_train
from r1ranker_ir.training.trainers.sft import sft_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

WORDS = "apple boat cloud desk eagle flute grape house island jacket kettle lemon moon nest ocean piano".split()
ANSWER = "<think>\n[1] no\n</think>\n<answer>[1]</answer>"
CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "seed": 3}


def make_record(number: int, length: int, rng: random.Random) -> JudgedRequest:
    """A list whose gains have nothing to do with its words, so that answers differ in what they earn."""
    candidates = tuple(Candidate(f"d{number}-{place}", rng.choice(WORDS)) for place in range(length))
    best = rng.randrange(length)
    gains = tuple(float(place == best) for place in range(length))
    return judged(rng.choice(WORDS), candidates, gains, id=f"q{number}", source="words")


@dataclass(frozen=True)
class Data:
    steps: Path
    lists: Path
    completions: Path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    found = Data(folder / "steps.parquet", folder / "lists.parquet", folder / "completions.parquet")
    steps = [Sample("iterative", make_record(number, 2, rng)) for number in range(24)]
    write_samples(found.steps, steps, {"seed": 0})
    write_samples(found.lists, [Sample("direct", make_record(100 + number, 2, rng)) for number in range(4)])
    write_completions(found.completions, [CompletedSample(sample, ANSWER) for sample in steps])
    return found


Recipe = Callable[..., Path]


@pytest.fixture
def recipe(tmp_path: Path, data: Data) -> Recipe:
    """Writes a recipe: `recipe("grpo", learning_rate=0.1)`; `None` leaves a key out."""

    def write(method: str, **changes: Any) -> Path:
        content: dict[str, Any] = CPU | {"model": "tiny", "output_dir": str(tmp_path / "out"), "max_steps": 4}
        content |= {"per_device_train_batch_size": 8, "learning_rate": 1e-4, "logging_steps": 1, "save_steps": 2}
        if method == "sft":
            content |= {"train_files": [str(data.completions)], "learning_rate": 1e-5}
        else:
            content |= {"train_files": [str(data.steps)], "max_completion_length": 40, "temperature": 2.5}
        content |= {"grpo": {"num_generations": 4, "held_out_every": 2}}.get(method, {})
        path = tmp_path / f"{method}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in (content | changes).items() if value is not None}))
        return path

    return write


def tiny_renderer() -> PromptRenderer:
    template = read_settings(TINY_CHECKPOINT).template
    return PromptRenderer(AutoTokenizer.from_pretrained(TINY_CHECKPOINT), template or load_template())


def run(method: str, path: Path, *arguments: str) -> TrainingSummary:
    return train(parse_arguments(method, ["--config", str(path), *arguments]))


def r1ranker(*arguments: str | Path, code: int) -> str:
    """Runs the command in this process, checks its exit code and that nothing escapes as a traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return " ".join(result.output.replace("│", " ").split())


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learnin_rate", "1"], "unknown argument '--learnin_rate': did you mean --learning_rate"),
        (["--learning", "1"], "unknown argument '--learning'"),  # no abbreviations
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--zero_variance", "maybe"], "invalid choice: 'maybe'"),
        (["stray"], "unknown argument 'stray'"),
        (["--config"], "argument --config: expected one argument"),
        (["--config", "a.yaml", "--config", "b.yaml"], "one recipe only"),
        (["--quiet", "--verbose"], "choose one of --quiet and --verbose"),
    ],
)
def test_command_line_that_can_not_be_understood(recipe: Recipe, arguments: list[str], said: str) -> None:
    given = arguments if "--config" in arguments else ["--config", str(recipe("grpo")), *arguments]
    assert said in r1ranker("train", "grpo", *given, code=2)


def test_what_is_missing_is_named_and_recipes_are_listed() -> None:
    said = r1ranker("train", "grpo", "--use_cpu", "true", code=2)
    assert "--train_files" in said and "--model" in said
    assert "tiny-iranker-grpo" in r1ranker("train", "grpo", "--config", "nowhere.yaml", code=1)
    assert "iranker-ppo-paper IRanker-3B" in r1ranker("train", "recipes", code=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learnin_rate": 1}, "unknown key 'learnin_rate': did you mean learning_rate"),
        ({"use_cpu": "perhaps"}, "use_cpu is 'perhaps': Truthy value expected"),
        ({"zero_variance": "maybe"}, "zero_variance is 'maybe': invalid choice: 'maybe' (choose from"),
        ({"num_generations": 3}, "must be divisible by num_generations (3)"),
        ({"env": 3}, "unknown key 'env'"),
        ({"train_weights": [1, 2]}, "train_weights is [1.0, 2.0] for 1 train_files"),
        ({"load_in_4bit": True}, "add use_peft"),
        ({"model": " "}, "model is blank"),
        ({"held_out_queries": 0}, "held_out_queries is 0: give at least 1"),
        ({"max_thought_tokens": -1}, "max_thought_tokens is -1: give at least 0"),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 4}, "save_steps is 2"),
        ({"rewards": ["exclusoin"]}, "reward 'exclusoin' is unknown"),
        ({"train_files": ["nowhere.parquet"]}, "'nowhere.parquet' does not exist"),
        ({"model": "./nowhere"}, "there is no such folder"),
        ({"template": "nowhere.toml"}, "template 'nowhere.toml' is not a file"),
        ({"strategies": ["setwise"]}, "no section [setwise]"),
        ({"reward_weights": [1, 2]}, "can't be set up"),
        ({"loss_type": "none at all"}, "stopped in step 1: Unknown loss type: none at all"),
        ({"per_device_train_batch_size": 100}, "there are 24 rows to train on, and a generation batch needs 25"),
        ({"output_dir": None}, "name one with output_dir"),
        ({"output_dir": str(TINY_CHECKPOINT)}, "is the model to be trained"),
        ({"resume_from_checkpoint": "last"}, "holds no checkpoint"),
    ],
)
def test_recipe_that_can_not_be_run_is_explained(recipe: Recipe, changes: dict[str, Any], said: str) -> None:
    assert said in r1ranker("train", "grpo", "--config", recipe("grpo", **changes), code=1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model: [", "is not valid YAML"),
        (b"- model", "must contain a YAML mapping"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"seed: null\n", "seed is None"),
    ],
)
def test_malformed_recipe_is_explained(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    assert said in r1ranker("train", "sft", "--config", path, code=1)


def test_command_line_goes_before_the_recipe(recipe: Recipe) -> None:
    path = recipe("grpo", rewards="exclusion", learning_rate="1e-5")
    plain = parse_arguments("grpo", [f"--config={path}"])
    # YAML reads 1e-5 as text; one name stands for a list of one.
    assert (plain.trainer.learning_rate, plain.trainer.rewards) == (1e-5, ["exclusion"])
    told = ["--config", str(path), "--learning-rate", "2e-5", "--rewards", "exclusion", "format", "--no_curves"]
    changed = parse_arguments("grpo", told)
    assert (changed.trainer.learning_rate, changed.trainer.rewards) == (2e-5, ["exclusion", "format"])
    assert (plain.run.curves, changed.run.curves) == (True, False)
    assert plain.model.model == os.fspath(TINY_CHECKPOINT)


@pytest.mark.parametrize(("method", "own"), [("sft", "--overwrite"), ("ppo", "--gae"), ("episodes", "--episodes_per")])
def test_help_shows_own_arguments_first(method: str, own: str) -> None:
    text = r1ranker("train", method, "--help", code=0)
    theirs = text.index("arguments of TRL and transformers")
    for name in (own, "--train_files", "--model", "--held_out_files"):
        assert text.index(name) < theirs
    assert theirs < text.index("--learning_rate")


def test_a_judged_training_says_what_the_judge_did_and_keeps_its_options_to_itself(
    recipe: Recipe, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "rewards": ["exclusion", "judged"],
        "judge_model": "tiny",
        "max_steps": 1,
        "save_steps": 1,
    }
    changes["judge_options"] = {"think": "never", "max_thought_tokens": 0}
    path = recipe("grpo", **changes, judge_cache=str(tmp_path / "judge.sqlite"), per_device_train_batch_size=4)
    summary = run("grpo", path)
    judge = summary.record.judge
    assert judge["outputs"] == 4 and judge["failed"] == 0 and judge["graded"] == judge["calls"]
    assert f"{judge['graded']} thoughts judged, 0 not for failures" in summary.line()
    written = json.loads((tmp_path / "out" / SETTINGS_FILE).read_text(encoding="utf-8"))["training"]
    assert written["judge"] == judge and "judge_options" not in written["arguments"]
    [logged] = [entry for entry in read_history(tmp_path / "out") if "rewards/judged/mean" in entry]
    assert logged["rewards/judged/failed"] == 0
    nobody = recipe("grpo", rewards=["judged"], output_dir=str(tmp_path / "other"))
    assert "name one with judge_model" in r1ranker("train", "grpo", "--config", nobody, code=1)


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "told", "said"),
    [
        ("checkpoint-2/x", "", r"holds checkpoints.*resume_from_checkpoint.*overwrite"),
        ("config.json", "", r"holds a trained model.*overwrite"),
        ("config.json", "--overwrite --resume_from_checkpoint last", "choose one of overwrite"),
        ("checkpoint-2/x", "--overwrite --model {out}/checkpoint-2", "lies in the output folder"),
        ("checkpoint-base/config.json", "--overwrite --model {out}/checkpoint-base", r"model .* lies in folder"),
        ("adapter/x", "--overwrite --model {out}/../adapter", "is the model to be trained"),
        *((name, "", f"holds '{name}', which no training wrote there") for name in ("README.md", "curves.png")),
        *((name, "", f"holds '{name}', which no") for name in ("embeddings.safetensors", "r1ranker.json")),
    ],
)
def test_what_lies_in_the_output_folder_stays(recipe: Recipe, tmp_path: Path, there: str, told: str, said: str) -> None:
    out, adapter = tmp_path / "out", tmp_path / "adapter"
    file = out / there
    for folder in (adapter, file.parent):
        folder.mkdir(parents=True)
    file.write_text("mine", encoding="utf-8")
    base = json.dumps({"base_model_name_or_path": str(out)})
    (adapter / "adapter_config.json").write_text(base, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        run("sft", recipe("sft"), *told.format(out=out).split())
    assert [path for path in out.rglob("*") if path.is_file()] == [file]
    assert file.read_text(encoding="utf-8") == "mine"


def go_on(whole: Path, to: Path, checkpoint: int) -> None:
    """Makes a folder as a training leaves it that stopped after a checkpoint."""
    to.mkdir()
    shutil.copytree(whole / f"checkpoint-{checkpoint}", to / f"checkpoint-{checkpoint}")
    shutil.copy(whole / "training_run.json", to)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def differing(one: Path, other: Path) -> list[str]:
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name].float(), right[name].float())]


def rank(folder: Path) -> tuple[int, ...]:
    """What a trained folder makes of a list, through the library."""
    texts = ["a boat at sea", "an apple on the moon", "the piano in the house"]
    request = RankingRequest("apple moon", tuple(Candidate(text, text) for text in texts))
    [ranking] = Ranker(folder, strategy="iterative", device="cpu", max_repair_rate=1.0).rank([request])
    return ranking.order


# --- trainings ------------------------------------------------------------------------------------------------------


@pytest.mark.latest
def test_sft_goes_on_exactly_and_its_folder_ranks(recipe: Recipe, tmp_path: Path, data: Data) -> None:
    path = recipe("sft", held_out_files=[str(data.lists)], held_out_queries=1, curves=False, max_steps=2, save_steps=1)
    summary = run("sft", path)
    straight = tmp_path / "out"
    assert summary.folder == straight
    go_on(straight, tmp_path / "resumed", 1)
    resumed = run("sft", path, "--output_dir", str(tmp_path / "resumed"), "--resume_from_checkpoint", "last")
    assert differing(straight, tmp_path / "resumed") == []
    assert differing(straight, straight / "checkpoint-1")
    assert (summary.record.steps, resumed.record.steps) == (2, 2)
    # A training that goes on has been measured before already.
    assert resumed.record.before == summary.record.before
    assert [entry["step"] for entry in read_history(straight) if "loss" in entry] == [1, 2]
    assert sorted(rank(straight)) == [0, 1, 2]


@pytest.mark.latest
def test_thoughts_are_bounded_on_held_out_lists_and_in_the_folder(recipe: Recipe, tmp_path: Path, data: Data) -> None:
    measured = {"held_out_files": [str(data.lists)], "held_out_queries": 1, "curves": False, "max_steps": 1}
    summary = run("sft", recipe("sft", **measured, save_steps=None, max_thought_tokens=2))
    assert summary.before is not None
    assert summary.before.thoughts_closed > 0
    assert read_settings(tmp_path / "out").max_thought_tokens == 2


def test_grpo_goes_on_exactly(recipe: Recipe, tmp_path: Path, data: Data) -> None:
    held_out = {"held_out_files": [str(data.lists)], "held_out_queries": 1, "held_out_every": 1}
    path = recipe("grpo", max_steps=2, save_steps=1, **held_out)
    text = r1ranker("train", "grpo", "--config", path, code=0)
    straight = tmp_path / "out"
    assert "2 steps" in text
    assert "held-out RR" in text
    go_on(straight, tmp_path / "resumed", 1)
    checkpoint = tmp_path / "resumed" / "checkpoint-1"
    told = ["--output_dir", str(tmp_path / "resumed"), "--resume_from_checkpoint", str(checkpoint), "--no_curves"]
    resumed = run("grpo", path, *told)
    assert differing(straight, tmp_path / "resumed") == []
    assert differing(straight, straight / "checkpoint-1")
    histories = [read_history(folder) for folder in (straight, tmp_path / "resumed")]
    for key in ("reward", "loss", "generated_tokens", "held_out/RR"):
        values = [[(entry["step"], entry[key]) for entry in history if key in entry] for history in histories]
        assert values[0] == values[1]
    assert [entry["step"] for entry in histories[0] if "held_out/RR" in entry] == [0, 1, 2]
    # A measurement does not swallow what the step itself has to say.
    assert [entry["step"] for entry in histories[0] if "reward" in entry] == [1, 2]
    content = json.loads((straight / SETTINGS_FILE).read_text(encoding="utf-8"))["training"]
    assert content["generated_tokens"] == resumed.record.generated_tokens
    assert content["data"][0]["metadata"]["seed"] == 0
    assert {"curves.png", "README.md", "tokenizer.json"} <= {path.name for path in straight.iterdir()}


def test_what_goes_on_is_the_same_training(
    recipe: Recipe, tmp_path: Path, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    def record(**changes: Any) -> TrainingRecord:
        return start_record(parse_arguments("grpo", ["--config", str(recipe("grpo", **changes))]), ["iterative"])

    (tmp_path / "training_run.json").write_text(json.dumps(record().as_json()), encoding="utf-8")
    check_continues(tmp_path, record())
    assert not caplog.messages
    check_continues(tmp_path, record(learning_rate=0.5))
    assert "learning_rate was 0.0001 and is 0.5" in caplog.text
    for changes, said in (
        ({"seed": 4}, "has seed 3, this one 4"),
        ({"rewards": ["format"]}, "has rewards"),
        ({"train_files": [str(data.lists)]}, "train_files are not those"),
    ):
        with pytest.raises(InputError, match=said):
            check_continues(tmp_path, record(**changes))


@pytest.mark.latest
def test_adapter_folder_ranks_and_trains_on(recipe: Recipe, tmp_path: Path) -> None:
    from rerankers import Reranker

    path = recipe("grpo", max_steps=1, use_peft=True, lora_r=2, lora_target_modules=["all-linear"], curves=False)
    run("grpo", path)
    folder = tmp_path / "out"
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "model.safetensors").exists()
    assert sorted(rank(folder)) == [0, 1, 2]
    ranker = Reranker(str(folder), model_type="r1ranker-iterative", device="cpu", verbose=0)
    assert len(ranker.rank("apple moon", docs=["a boat", "an apple"]).results) == 2
    # The reference model of an adapter that goes on is a copy of it, and no part of what is saved.
    told = ["--model", str(folder), "--output_dir", str(tmp_path / "more"), "--beta", "0.1"]
    run("grpo", path, *told)
    assert not (tmp_path / "more" / "ref").exists()
    assert sorted(rank(tmp_path / "more")) == [0, 1, 2]
    with pytest.raises(Exception, match="is a LoRA adapter: add use_peft"):
        run("grpo", recipe("grpo"), *told[:2], "--output_dir", str(tmp_path / "full"))


@pytest.mark.parametrize(
    ("method", "changes"),
    [("ppo", {"train_weights": [1.0]}), ("episodes", {"episodes_per_list": 2, "curriculum": "length"})],
)
@pytest.mark.latest
def test_other_methods_write_folders_that_rank(
    recipe: Recipe, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    summary = run(method, recipe(method, max_steps=1, save_strategy="no", curves=False, **changes))
    assert summary.record.method == method
    assert summary.record.generated_tokens
    folder = tmp_path / "out"
    assert read_settings(folder).strategies == ("iterative",)
    assert not (folder / "value_head.safetensors").exists()
    assert weights_of(folder).keys() == weights_of(TINY_CHECKPOINT).keys()
    assert sorted(rank(folder)) == [0, 1, 2]


def test_fine_tuning_shows_short_lists_first(recipe: Recipe, tmp_path: Path) -> None:
    """GRPO's trainer has another switch for its shuffling than the one for fine-tuning."""
    completed = []
    for number in range(12):
        shown = tuple(Candidate(f"d{place}", "moon") for place in range(2 + number % 3))
        record = judged("apple", shown, (1.0, *[0.0] * (len(shown) - 1)), id=str(number))
        completed.append(CompletedSample(Sample("iterative", record), ANSWER))
    write_completions(tmp_path / "sft.jsonl", completed)
    path = recipe("sft", train_files=[str(tmp_path / "sft.jsonl")], curriculum="length", per_device_train_batch_size=4)
    arguments = parse_arguments("sft", ["--config", str(path), "--max_steps", "3"])
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT)
    rows, _ = rows_to_train(arguments, renderer := tiny_renderer())
    model = AutoModelForCausalLM.from_pretrained(TINY_CHECKPOINT)
    trainer = sft_trainer(model, args=arguments.trainer, train_dataset=rows, renderer=renderer, tokenizer=tokenizer)
    tokens = [int(mask.sum()) for batch in trainer.get_train_dataloader() for mask in batch["attention_mask"]]
    assert len(tokens) == 12
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == 3


@pytest.mark.parametrize(
    ("method", "settings", "taken"),
    [
        # Prompts of a generation batch, times the generation batches of 5 steps.
        ("grpo", {"steps_per_generation": 4, "num_iterations": 2}, 8),
        ("grpo", {"steps_per_generation": 2, "gradient_accumulation_steps": 3}, 4 * 8),
        ("grpo", {"generation_batch_size": 48}, 12),
        ("ppo", {"gradient_accumulation_steps": 2, "num_iterations": 2}, 16 * 3),
        ("sft", {"gradient_accumulation_steps": 2}, 16 * 5),
    ],
)
def test_a_mixture_is_as_long_as_the_steps_take(
    method: str, settings: dict[str, Any], taken: int, recipe: Recipe
) -> None:
    from trl.trainer.utils import RepeatSampler

    path = recipe(method, train_weights=[1.0], max_steps=5, save_strategy="no", **settings)
    arguments = parse_arguments(method, ["--config", str(path)])
    rows, strategies = rows_to_train(arguments, tiny_renderer())
    assert (len(rows), strategies.total()) == (taken, taken)
    config = arguments.trainer
    if method == "sft":
        return
    # TRL deals in whole generation batches, each for several batches of a step: these suffice, one less would not.
    prompts = config.generation_batch_size // config.num_generations
    uses = config.num_iterations * config.steps_per_generation
    dealt = [
        len(RepeatSampler(range(count), config.num_generations, prompts, uses)) // config.generation_batch_size
        for count in (taken, taken - 1)
    ]
    assert dealt[1] < 5 * config.gradient_accumulation_steps <= dealt[0]


def test_curves_of_folders_become_a_picture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        history = {"log_history": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]}
        (tmp_path / name / "trainer_state.json").write_text(json.dumps(history), encoding="utf-8")
    output = tmp_path / "curves.png"
    r1ranker("train", "curves", f"seeds={tmp_path / 'a'}", f"seeds={tmp_path / 'b'}", "--output", output, code=0)
    assert output.read_bytes().startswith(b"\x89PNG")
    assert "does not exist" in r1ranker("train", "curves", tmp_path / "nowhere", "--output", output, code=1)
