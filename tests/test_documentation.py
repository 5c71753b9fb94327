"""The documentation: its examples run, its links lead somewhere, and its site builds.

Every fenced block of README.md and docs/ is checked. The blocks of a page run in order in one folder: `python` in one
namespace, `bash` with this environment's commands (`r1ranker` is that of the fixture `commands`). A comment right above
a block changes that:

    <!-- not run: why it can't run here -->
    <!-- needs: cranfield -->    skipped where the test collections are not at hand
    <!-- needs: lm-evaluation-harness -->    skipped where it is not installed
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import r1ranker_ir
from r1ranker_ir import errors
from r1ranker_ir.backends import BACKENDS
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.retrieval.first_stages import FIRST_STAGES
from r1ranker_ir.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT.parent / "shared" / "data" / "ir_datasets"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PRESENT = {"cranfield": COLLECTIONS.is_dir(), "lm-evaluation-harness": find_spec("lm_eval") is not None}
RUNNABLE = {"python", "bash"}
LANGUAGES = RUNNABLE | {"json", "text", "toml"}
COMMENT = re.compile(r"<!--\s*(not run|needs):\s*(.*?)\s*-->")
# Cranfield's examples are run on its first queries, so that a page takes seconds.
CRANFIELD_QUERIES = 2
BASH_TIMEOUT = 300  # seconds

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@dataclass(frozen=True)
class Block:
    """One fenced block: where it starts (1-based line of its first line of code), and what is asked of it."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None
    needs: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    blocks, asked = [], dict[str, str]()
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            language = token.info.split()[0] if token.info else ""
            said = asked.get("not run"), asked.get("needs")
            blocks.append(Block(page, token.map[0] + 2, language, token.content, *said))
        if token.type == "html_block":
            asked = dict(COMMENT.findall(token.content))
        elif token.type not in ("list_item_open", "bullet_list_open", "ordered_list_open"):
            asked = {}
    return blocks


def run_python(block: Block, namespace: dict[str, object]) -> None:
    # Empty lines in front, so that a traceback names the line of the page.
    exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), namespace)


def run_bash(block: Block, folder: Path, commands: Path) -> None:
    path = (commands, Path(sys.executable).parent, os.environ["PATH"])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=BASH_TIMEOUT,
    )
    assert done.returncode == 0, f"{block.place} exits with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def copy_cranfield(home: Path) -> None:
    """Copies the collection with its first queries only; ir_datasets builds its document store beside the copy."""
    shutil.copytree(COLLECTIONS / "cranfield", home / "cranfield", copy_function=shutil.copyfile)
    (home / "cranfield").chmod(0o755)
    queries = home / "cranfield" / "queries.txt"
    kept = re.split(r"(?m)^(?=\.I )", queries.read_text(encoding="utf-8"))[: CRANFIELD_QUERIES + 1]
    queries.write_text("".join(kept), encoding="utf-8")


@pytest.fixture
def offline_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, with nothing to be downloaded from the Hugging Face hub."""
    folder, home = tmp_path / "work", tmp_path / "ir_datasets"
    folder.mkdir()
    home.mkdir()
    if COLLECTIONS.is_dir():
        copy_cranfield(home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IR_DATASETS_HOME", str(home))
    monkeypatch.delenv("R1RANKER_MODEL", raising=False)
    monkeypatch.chdir(folder)
    yield folder


@every_page
def test_blocks_are_in_known_languages_and_data_parse(page):
    for block in read_blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: language {block.language!r}: use one of {LANGUAGES}"
        assert block.not_run is None or len(block.not_run) > 10, f"{block.place}: say why it is not run"
        assert block.needs in (None, *PRESENT), f"{block.place}: needs {block.needs!r}: unknown"
        if block.language in ("toml", "json"):
            assert (tomllib if block.language == "toml" else json).loads(block.code), block.place


@pytest.fixture
def own_declarations() -> Iterator[None]:
    """What an example declares is forgotten behind it."""
    doors = (STRATEGIES, BACKENDS, FIRST_STAGES, FAMILY)
    before = [set(door) for door in doors]
    yield
    for door, names in zip(doors, before, strict=True):
        for name in set(door) - names:
            door.forget(name)


@every_page
@pytest.mark.usefixtures("own_declarations")
def test_examples_run(page, offline_folder, commands):
    namespace: dict[str, object] = {"__name__": "__main__"}
    lacking = []
    for block in read_blocks(page):
        if block.language not in RUNNABLE or block.not_run is not None:
            continue
        if block.needs is not None and not PRESENT[block.needs]:
            lacking.append(f"{block.place} ({block.needs})")
        elif block.language == "python":
            run_python(block, namespace)
        else:
            run_bash(block, offline_folder, commands)
    if lacking:
        pytest.skip(f"all but {', '.join(lacking)} were run: what those need is not here")


def test_failing_examples_are_noticed(tmp_path, commands):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nx = 1\nraise OSError(x)\n```\n\n```bash\nr1ranker nonsense\n```\n")
    python, bash = read_blocks(page)
    with pytest.raises(OSError, match="1") as caught:
        run_python(python, {})
    assert caught.traceback[-1].lineno + 1 == 5
    with pytest.raises(AssertionError, match="nonsense"):
        run_bash(bash, tmp_path, commands)


def build_site(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def site_source(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_site_builds(site_source):
    done = build_site(site_source)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES[1:]:
        place = page.relative_to(ROOT / "docs").with_suffix("")
        name = "index.html" if page.stem == "index" else f"{place.as_posix()}/index.html"
        assert "<h1" in (site_source / "site" / name).read_text(encoding="utf-8"), name


def test_the_notebook_was_executed_and_its_code_runs():
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, object] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        assert [output["output_type"] for output in cell["outputs"]] == ["execute_result"]
        exec("".join(cell["source"]), namespace)
    assert "text/html" in cells[0]["outputs"][0]["data"]


@pytest.mark.parametrize("link", ["no-such-page.md", "quickstart.md#no-such-heading", "../README.md"])
def test_broken_links_fail_the_build(site_source, link):
    with (site_source / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n\n[broken]({link})\n")
    done = build_site(site_source)
    assert done.returncode != 0
    assert "index.md" in done.stdout + done.stderr


def test_navigation_names_every_page_once_and_readme_links_lead_somewhere():
    # Zensical does not mind an entry without a page, nor a page without an entry.
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    entries = [value for entry in navigation for value in entry.values()]
    named = [
        path for entry in entries for path in ([entry] if isinstance(entry, str) else [*ChainMap(*entry).values()])
    ]
    assert sorted(named) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:])
    tokens = MarkdownIt().parse((ROOT / "README.md").read_text(encoding="utf-8"))
    inline = [child for token in tokens for child in token.children or ()]
    targets = [str(child.attrs["href"]) for child in inline if child.type == "link_open"]
    local = [target for target in targets if "://" not in target]
    assert local and [target for target in local if not (ROOT / target.partition("#")[0]).exists()] == []


def test_the_reference_names_what_the_package_offers_and_the_error_page_every_exception():
    reference, page = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("reference", "errors"))
    assert [name for name in r1ranker_ir.__all__ if not re.search(rf"`{re.escape(name)}\b", reference)] == []
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 5 and [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in page] == []
