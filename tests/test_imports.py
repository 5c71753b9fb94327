"""Which way the arrows point: packages import those below them, and no module imports itself by a detour."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (
    ("types", "errors", "quoting", "version", "option_fields"),
    ("doors", "files"),
    ("prompts", "data"),
    ("strategies",),
    ("models",),
    ("retrieval.bm25", "retrieval.first_stages"),
    ("thoughts",),
    ("backends",),
    ("cache",),
    ("engine",),
    ("rankers",),
    ("retrieval",),
    ("runs",),
    ("adapters",),
    ("integrations", "serving"),
    ("",),  # the package itself: what it offers by name
    ("eval.measuring", "eval.output"),
    ("eval.benchmarks", "eval.pages"),
    ("eval.doctor", "eval.generic", "eval.shootouts", "eval.suites"),
    ("training.data",),
    ("training.rewards",),
    ("training.trainers",),
    ("training.jobs",),
    ("training.demo", "training.tiny_model"),
    ("cli",),
    ("__main__",),
)
"""Packages and modules, the lowest first: each may import those below it, and those beside it."""


def modules() -> dict[str, Path]:
    found = {}
    for place, prefix in (("r1ranker_ir", ()), ("eval", ("eval",)), ("training", ("training",))):
        for path in sorted((ROOT / place).rglob("*.py")):
            parts = (*prefix, *path.relative_to(ROOT / place).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


class _WithoutTypeImports(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if for_types else self.generic_visit(node)


def imports(module: str, *, for_types: bool = True) -> Iterator[str]:
    """Every module of ours that a module imports anywhere, in functions as well."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree if for_types else _WithoutTypeImports().visit(tree)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ())]
            targets = [["r1ranker_ir", *base, alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            targets = [[*node.module.split("."), alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "r1ranker_ir":
                name = ".".join(target[1:])
                yield name if name in MODULES else ".".join(target[1:-1])


def level(module: str) -> int:
    parts = module.split(".")
    place = ".".join(parts[:2]) if parts[0] in ("eval", "training") else parts[0]
    for number, places in enumerate(LEVELS):
        if place in places or module in places:
            return number
    return -1


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_module_imports_nothing_above_it(module):
    if module in ("moved", "eval", "training"):
        pytest.skip("it has no place of its own: it imports nothing, or any module by name")
    assert level(module) >= 0, f"{module} has no place in LEVELS"
    above = {name for name in imports(module) if level(name) > level(module)}
    assert not above, f"{module} imports {', '.join(sorted(above))}, which stand above it"


def test_no_module_imports_itself_by_a_detour():
    arrows = {name: set(imports(name, for_types=False)) - {name} for name in MODULES}
    state: dict[str, int] = {}

    def walk(name: str, path: tuple[str, ...]) -> None:
        state[name] = 1
        for target in sorted(arrows.get(name, ())):
            assert state.get(target) != 1, " -> ".join((*path, name, target))
            if target not in state:
                walk(target, (*path, name))
        state[name] = 2

    for name in sorted(MODULES):
        if name not in state:
            walk(name, ())
