"""Wheel and sdist: complete, small at the base, and working where there is no checkout."""

from __future__ import annotations

import email
import email.message
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


def wheel_metadata(wheel: Path) -> email.message.Message:
    [name] = [name for name in wheel_contents(wheel) if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel_contents(wheel)[name])


def test_wheel_holds_every_source_file_and_nothing_else(distributions: Distributions) -> None:
    names = {name for name in wheel_contents(distributions.wheel_of_tree) if ".dist-info/" not in name}
    assert names == source_files()


def test_wheel_holds_what_the_package_reads_at_run_time(distributions: Distributions) -> None:
    contents = wheel_contents(distributions.wheel_of_tree)
    for name in (
        "r1ranker_ir/py.typed",
        "r1ranker_ir/demo_collection/corpus.jsonl",
        "r1ranker_ir/demo_collection/queries.jsonl",
        "r1ranker_ir/demo_collection/qrels/test.tsv",
        "r1ranker_ir/tiny/README.md",
        "r1ranker_ir/tiny/config.json",
        "r1ranker_ir/tiny/model.safetensors",
        "r1ranker_ir/tiny/r1ranker.json",
        "r1ranker_ir/tiny/tokenizer.json",
    ):
        assert name in contents
    assert any(name.startswith("r1ranker_ir/prompts/") and name.endswith(".toml") for name in contents)
    assert sum(len(data) for name, data in contents.items() if name.startswith("r1ranker_ir/tiny/")) <= LARGEST_MODEL


def test_sdist_builds_into_the_same_wheel(distributions: Distributions) -> None:
    of_tree, of_sdist = wheel_contents(distributions.wheel_of_tree), wheel_contents(distributions.wheel_of_sdist)
    assert of_sdist.keys() == of_tree.keys()
    assert [name for name in of_tree if of_tree[name] != of_sdist[name]] == []


def test_sdist_holds_the_licence_and_the_tables_of_the_build(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "PKG-INFO", "eval/__init__.py", "training/__init__.py"} <= names


def test_metadata(distributions: Distributions) -> None:
    metadata = wheel_metadata(distributions.wheel_of_tree)
    assert metadata["Name"] == "r1ranker-ir"
    assert metadata["Version"] == version("r1ranker-ir")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"local", "small", "openai", "langchain", "eval", "pyserini", "ray", "litellm", "train", "dev"} == set(
        metadata.get_all("Provides-Extra", ())
    )
    [licence] = [name for name in wheel_contents(distributions.wheel_of_tree) if name.endswith("licenses/LICENSE")]
    assert b"Apache License" in wheel_contents(distributions.wheel_of_tree)[licence]


def test_base_install_needs_nothing_heavy(distributions: Distributions) -> None:
    requirements = [Requirement(text) for text in wheel_metadata(distributions.wheel_of_tree).get_all("Requires-Dist")]
    base = {canonicalize_name(each.name) for each in requirements if each.marker is None}
    assert base
    assert base.isdisjoint(HEAVY)


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


def test_wheel_is_what_gets_imported(installed: Path, tmp_path: Path) -> None:
    code = (
        "import r1ranker_ir, r1ranker_ir.eval.measuring.measures, r1ranker_ir.training; "
        "print(r1ranker_ir.__file__, r1ranker_ir.eval.__file__, r1ranker_ir.training.__file__, r1ranker_ir.__version__)"
    )
    done = outside(installed, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    *files, found = done.stdout.split()
    assert all(Path(file).is_relative_to(installed) for file in files), files
    assert found == version("r1ranker-ir")


def test_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    # Whatever a wheel lacks is missing from short lists too, and its ten candidates a query take a minute.
    done = outside(installed, tmp_path, "r1ranker", "demo", "--depth", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("nDCG@10", "RR", "BM25", "DRanker", "IRanker"):
        assert expected in done.stdout


def test_rerankers_finds_the_names_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import r1ranker_ir\n"
        "from rerankers import Reranker\n"
        "results = Reranker('r1ranker-iterative-tiny').rank('flea eggs', ['a flea lays eggs', 'a boat', 'the moon'])\n"
        "print(sorted(result.doc_id for result in results), len(results.trace))\n"
    )
    done = outside(installed, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 1, 2] 2"  # above it, rerankers says what it loads


def pyproject() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_constraints_pin_every_direct_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict[str, str]()
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"{line!r} is not a plain pin"
        pins[canonicalize_name(match[1])] = match[2]
    project = pyproject()["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]  # type: ignore[attr-defined]
    for text in [*project["dependencies"], *extras]:  # type: ignore[misc]
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is not {requirement.specifier}"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=inherited, capture_output=True, text=True)


@pytest.mark.parametrize("target", ["demo", "test"])
@pytest.mark.parametrize("interpreter", ["false", "/nowhere/python3.9"])
def test_make_asks_for_a_newer_python(tmp_path: Path, target: str, interpreter: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = make(tmp_path, target, f"PYTHON={interpreter}")
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("lint", "tests", "succeeds"), [(0, 0, True), (1, 0, False), (0, 1, False)], ids=["clean", "lint", "tests"]
)
def test_ci_fails_with_lint_or_tests_and_ends_with_the_summary(
    tmp_path: Path, lint: int, tests: int, succeeds: bool
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    summary = "3 passed in 0.10s"
    (tmp_path / "Makefile").write_text(f"lint:\n\t@exit {lint}\ntest:\n\t@echo '{summary}'; exit {tests}\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"],
        cwd="/",
        env=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode == 0) == succeeds
    assert done.stdout.splitlines()[-1] == summary
