"""The packaged recipes and their prompt templates: where they lie, and what each recipe is."""

from __future__ import annotations

from pathlib import Path

from r1ranker_ir.errors import InputError

RECIPES = Path(__file__).parents[1] / "recipes"
"""The folder of the packaged recipes; `accelerate/` in it holds configurations for several GPUs."""


def recipe_names() -> list[str]:
    """The names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def describe_recipes() -> dict[str, str]:
    """What each packaged recipe is: its name, and the first line of its comment."""
    described = {}
    for name in recipe_names():
        with (RECIPES / f"{name}.yaml").open(encoding="utf-8") as file:
            described[name] = file.readline().removeprefix("#").strip()
    return described


def find_recipe(name: str) -> Path:
    """Finds a recipe."""
    return _find(name, ".yaml", "recipe", "YAML")


def find_template(name: str) -> Path:
    """Finds the prompt template that a training is told of."""
    return _find(name, ".toml", "template", "TOML")


def _find(name: str, ending: str, noun: str, kind: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    packaged = RECIPES / f"{path.name.removesuffix(ending)}{ending}"
    if path.name == name and packaged.is_file():
        return packaged
    known = ", ".join(sorted(each.stem for each in RECIPES.glob(f"*{ending}")))
    raise InputError(f"{noun} {name!r} is not a file: give a {kind} file, or one of the packaged {noun}s {known}")
