"""The packaged recipes: read by the real parser, with the figures that the papers publish."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.training.jobs.arguments import METHODS, TrainingArguments, parse_arguments
from r1ranker_ir.training.jobs.recipe_files import RECIPES, describe_recipes, find_recipe, find_template, recipe_names
from r1ranker_ir.training.rewards.rewards import REWARDS

TRAINING_PAGE = Path(__file__).resolve().parents[3] / "docs" / "training.md"
# Batches are of all GPUs together: rollouts generated at once, and rows of one optimizer update.
PUBLISHED: dict[str, dict[str, Any]] = {
    "iranker-ppo-paper": {
        **{"gpus": 4, "model": "Qwen/Qwen2.5-3B-Instruct", "rewards": ["exclusion"], "generated_at_once": 64},
        **{"update": 32, "num_generations": 1, "epsilon": 0.2, "max_prompt_length": 1400},
        **{"max_completion_length": 1024, "learning_rate": 1e-6, "temperature": 1.0, "beta": 0.001},
        **{"use_bias_correction_kl": False, "batches": 1501},
    },
    "rank-r1-grpo": {
        **{"use_peft": True, "lora_r": 16, "lora_alpha": 32, "rewards": ["setwise"], "learning_rate": 1e-5},
        **{"num_generations": 8, "max_prompt_length": 4096, "max_completion_length": 2048},
    },
    "reasonrank-sft": {
        **{"use_peft": False, "learning_rate": 5e-6, "num_train_epochs": 5},
        **{"lr_scheduler_type": "cosine", "warmup_steps": 0.1},
    },
    "erank-sft": {
        **{"gpus": 8, "use_peft": True, "lora_r": 32, "lora_alpha": 64, "learning_rate": 1e-4, "update": 128},
        **{"num_train_epochs": 1, "max_length": 2048, "lr_scheduler_type": "cosine", "warmup_steps": 0.05},
    },
    "erank-grpo": {
        **{"gpus": 8, "rewards": ["grade_rank"], "num_generations": 5, "max_prompt_length": 1024, "beta": 0.001},
        **{"max_completion_length": 1024, "learning_rate": 1e-6, "epsilon": 0.2, "num_train_epochs": 10},
    },
    "reasonrank-grpo": {
        **{"gpus": 8, "prompts": 16, "num_generations": 8, "max_prompt_length": 20480, "max_completion_length": 3072},
        **{"beta": 0.001, "use_bias_correction_kl": False, "learning_rate": 1e-6},
    },
}
PUBLISHED["dranker-ppo-paper"] = PUBLISHED["iranker-ppo-paper"] | {"rewards": ["ranking"]}

pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
every_recipe = pytest.mark.parametrize("name", recipe_names())


def comment(name: str) -> str:
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def command(name: str) -> list[str]:
    """The words of the command that a recipe's comment gives, from the method on."""
    joined = re.sub(r"\\\n#\s*", "", comment(name))
    [line] = re.findall(r"^#   \S.*?(?:r1ranker|r1ranker_ir)? train (.*)$", joined, re.MULTILINE)
    return shlex.split(line)


@functools.cache
def parse(name: str, *more: str) -> TrainingArguments:
    # use_cpu: bfloat16 is refused where there is neither a GPU nor the word that none is wanted.
    return parse_arguments(command(name)[0], ["--config", name, "--use_cpu", "true", *more])


def told(arguments: TrainingArguments, name: str) -> Any:
    for part in (arguments.trainer, arguments.model, arguments.data):
        if hasattr(part, name):
            return getattr(part, name)
    raise AssertionError(f"no argument {name}")


@every_recipe
def test_recipe_parses_and_runs_by_the_command_in_its_comment(name: str) -> None:
    arguments, words = parse(name), command(name)
    assert arguments.method in METHODS
    assert arguments.trainer.output_dir.startswith("out/")
    assert set(getattr(arguments.trainer, "rewards", ())) <= set(REWARDS)
    assert words[words.index("--config") + 1] == name
    # What follows the recipe there is understood as well.
    parse(name, *words[words.index("--config") + 2 :])


@every_recipe
def test_recipe_says_what_it_is_and_whether_it_was_run_as_the_documentation_does(name: str) -> None:
    assert len(describe_recipes()[name]) > 20
    said = " ".join(comment(name).replace("#", " ").split())
    assert "Hardware: " in said
    assert name.startswith(("tiny-", "small-")) or "PROTOCOLS.md" in said or "by the paper's appendix" in said
    page = TRAINING_PAGE.read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if line.startswith("| `") and f"`{name}`" in line]
    _, _, methods, *_, run, _ = (cell.strip() for cell in row.split("|"))
    assert command(name)[0] in methods.split(", ")
    assert re.search(r"Run here: (yes|no|a few steps)\b", said) and f"Run here: {run}" in said


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_holds_the_published_figures(name: str) -> None:
    published = dict(PUBLISHED[name])
    arguments = parse(name)
    trainer = arguments.trainer
    gpus = published.pop("gpus", 1)
    assert trainer.world_size == 1
    update = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps * gpus
    derived = {"update": update}
    if arguments.method != "sft":
        at_once = trainer.per_device_train_batch_size * trainer.steps_per_generation * gpus
        derived["generated_at_once"] = at_once
        derived["prompts"] = at_once // trainer.num_generations
        derived["batches"] = trainer.max_steps * update // at_once
    found = {key: derived[key] if key in derived else told(arguments, key) for key in published}
    assert found == published


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("tiny-")])
def test_tiny_recipes_need_no_gpu(name: str) -> None:
    arguments = parse_arguments(command(name)[0], ["--config", name])
    trainer = arguments.trainer
    assert (trainer.use_cpu, trainer.bf16, trainer.gradient_checkpointing) == (True, False, False)


@pytest.mark.parametrize("path", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path: Any) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.distributed_type.value in ("FSDP", "DEEPSPEED")
    assert config.num_processes == 3
    assert str(config.mixed_precision) == "bf16"


def test_full_recipe_shares_its_batch_among_three_gpus() -> None:
    trainer = parse("qwen2.5-3b-full-grpo").trainer
    at_once = trainer.per_device_train_batch_size * trainer.steps_per_generation * 3
    assert at_once % trainer.num_generations == 0
    assert at_once == 48


@pytest.mark.parametrize(
    ("find", "name", "ending"), [(find_recipe, "tiny-sft", "yaml"), (find_template, "tiny-domains", "toml")]
)
def test_a_recipe_and_a_template_are_found_by_name_and_by_path(
    find: Callable[[str], Path], name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packaged, own = RECIPES / f"{name}.{ending}", Path(f"{name}.{ending}")
    assert find(name) == find(str(own)) == packaged
    # A file at hand goes before a packaged one of its name.
    own.touch()
    assert (find(str(own)), find(name)) == (own, packaged)
    with pytest.raises(InputError, match=rf"is not a file.*{name}"):
        find(f"elsewhere/{own}")
    assert load_template(find_template("tiny-domains")).shows_aim("direct", "model")
