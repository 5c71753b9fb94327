"""Wheel and sdist: complete, small at the base, and working where there is no checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# Source folder to the package that it is installed as.
TREES = {"r1ranker_ir": "r1ranker_ir", "training": "r1ranker_ir/training", "eval": "r1ranker_ir/eval"}
# Folders that run from a checkout alone.
LEFT_OUT = {"training/tiny_model": "how the embedded model was trained, and what GRPO costs: tools of developers"}
HEAVY = {"torch", "transformers", "accelerate", "peft", "openai", "langchain-core"}
LARGEST_MODEL = 8_000_000  # bytes
DEMO_TIMEOUT = 300  # seconds; the demo itself is to take under 60 on an idle machine with 2 cores


@dataclass(frozen=True)
class Distributions:
    sdist: Path
    wheel_of_sdist: Path
    wheel_of_tree: Path


def python(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def source_files() -> set[str]:
    """Every file of the source folders under the name that it has in the wheel."""
    return {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in TREES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not is_left_out(path)
    }


def is_left_out(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / folder) for folder in LEFT_OUT)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    # A copy is built, since setuptools leaves its traces in the folder that it builds from.
    tree = tmp_path_factory.mktemp("source")
    for folder in TREES:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    both, direct = tree / "both", tree / "direct"
    # Without --sdist or --wheel, build makes the wheel from the unpacked sdist.
    python("-m", "build", "--no-isolation", "--outdir", both, cwd=tree)
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", direct, cwd=tree)
    [sdist], [of_sdist], [of_tree] = both.glob("*.tar.gz"), both.glob("*.whl"), direct.glob("*.whl")
    return Distributions(sdist, of_sdist, of_tree)


def wheel_contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_holds_every_source_file_and_what_is_read_at_run_time(distributions):
    contents = wheel_contents(distributions.wheel_of_tree)
    assert {name for name in contents if ".dist-info/" not in name} == source_files()
    read = "py.typed demo_collection/corpus.jsonl demo_collection/queries.jsonl demo_collection/qrels/test.tsv".split()
    read += [f"tiny/{name}" for name in "README.md config.json model.safetensors r1ranker.json tokenizer.json".split()]
    assert [name for name in read if f"r1ranker_ir/{name}" not in contents] == []
    assert any(name.startswith("r1ranker_ir/prompts/") and name.endswith(".toml") for name in contents)
    assert sum(len(data) for name, data in contents.items() if name.startswith("r1ranker_ir/tiny/")) <= LARGEST_MODEL


def test_sdist_builds_into_the_same_wheel(distributions):
    assert wheel_contents(distributions.wheel_of_tree) == wheel_contents(distributions.wheel_of_sdist)
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "PKG-INFO", "eval/__init__.py", "training/__init__.py"} <= names


def test_metadata_and_a_base_install_without_anything_heavy(distributions):
    contents = wheel_contents(distributions.wheel_of_tree)
    [name] = [name for name in contents if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(contents[name])
    said = {"Name": "r1ranker-ir", "Version": version("r1ranker-ir"), "License-Expression": "Apache-2.0"}
    assert {key: metadata[key] for key in said} == said and metadata["Requires-Python"] == ">=3.11"
    extras = (
        "local small openai langchain llama-index haystack pyterrier eval pyserini ray router calibrate generic "
        "litellm serve train dev"
    ).split()
    assert set(extras) == set(metadata.get_all("Provides-Extra", ()))
    [licence] = [name for name in contents if name.endswith("licenses/LICENSE")]
    assert b"Apache License" in contents[licence]
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    base = {canonicalize_name(each.name) for each in requirements if each.marker is None}
    assert base and base.isdisjoint(HEAVY)


@pytest.fixture(scope="module")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; it sees this environment's libraries, but not its editable install.

    A path that a .pth file names joins `sys.path` without the .pth files inside it being read, and the editable
    install is such a file.
    """
    environment = tmp_path_factory.mktemp("environment")
    python("-m", "venv", "--without-pip", environment, cwd=environment)
    inner = environment / "bin" / "python"
    asked = [inner, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "libraries.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    arguments = ["install", "--quiet", "--no-deps", "--no-index", distributions.wheel_of_sdist]
    python("-m", "pip", "--python", inner, *arguments, cwd=environment)
    return environment


def outside(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the fresh environment away from the checkout and from this user's caches."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "R1RANKER"))}
    return subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        cwd=folder,
        env={**kept, "HOME": str(folder), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT,
    )


def test_wheel_is_what_gets_imported(installed, tmp_path):
    code = (
        "import r1ranker_ir, r1ranker_ir.eval.measuring.measures, r1ranker_ir.training; "
        "print(r1ranker_ir.__file__, r1ranker_ir.eval.__file__, r1ranker_ir.training.__file__, r1ranker_ir.__version__)"
    )
    done = outside(installed, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    *files, found = done.stdout.split()
    assert all(Path(file).is_relative_to(installed) for file in files), files
    assert found == version("r1ranker-ir")


RANKS = """
import r1ranker_ir
from rerankers import Reranker
results = Reranker("r1ranker-iterative-tiny").rank("flea eggs", ["a flea lays eggs", "a boat", "the moon"])
print(sorted(result.doc_id for result in results), len(results.trace))
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        # Whatever a wheel lacks is missing from short lists too, and its ten candidates per query take a minute.
        (("r1ranker", "demo", "--depth", "3"), ("nDCG@10", "RR", "BM25", "r1ranker-iterative-tiny")),
        (("python", "-c", RANKS), ("[0, 1, 2] 2",)),
    ],
)
def test_the_wheel_runs(installed, tmp_path, command, expected):
    done = outside(installed, tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(each in done.stdout for each in expected)


def test_constraints_pin_every_direct_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
            assert match, f"{line!r} is not a plain pin"
            pins[canonicalize_name(match[1])] = match[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        pinned = pins.get(canonicalize_name(requirement.name), "0")
        assert requirement.specifier.contains(pinned), f"{requirement.name}: {pinned} is not {requirement.specifier}"


def outcome(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, cwd=folder, env=inherited, **both)


@pytest.mark.parametrize(("target", "interpreter"), [("demo", "false"), ("test", "/nowhere/python3.9")])
def test_make_asks_for_a_newer_python(tmp_path, target, interpreter):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = outcome(tmp_path, "make", target, f"PYTHON={interpreter}")
    assert done.returncode != 0 and "Python 3.11 or newer" in done.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("lint", "tests", "succeeds"), [(0, 0, True), (1, 0, False), (0, 1, False)], ids=["clean", "lint", "tests"]
)
def test_ci_fails_with_lint_or_tests_and_ends_with_the_summary(tmp_path, lint, tests, succeeds):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    summary = "3 passed in 0.10s"
    (tmp_path / "Makefile").write_text(f"lint:\n\t@exit {lint}\ntest:\n\t@echo '{summary}'; exit {tests}\n")
    done = outcome(Path("/"), "bash", tmp_path / ".ci" / "run")
    assert (done.returncode == 0) == succeeds
    assert done.stdout.splitlines()[-1] == summary
