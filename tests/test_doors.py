"""What can be added without a change to the package: objects in Python, declarations of installed packages, systems."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command_server import command_server
from commands import write_corpus

from r1ranker_ir import Candidate, InputError, Ranker, RankingRequest, Reranker
from r1ranker_ir.backends import BACKENDS, backend_class
from r1ranker_ir.backends.declaration import Capabilities
from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.doors import Door
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section, known_sections
from r1ranker_ir.rankers.systems import FAMILY, family_options, read_system
from r1ranker_ir.runs.traces import trace_of
from r1ranker_ir.strategies import STRATEGIES, Strategy
from r1ranker_ir.strategies.asking import Asker
from r1ranker_ir.strategies.options import PUBLISHED, RankingOptions
from r1ranker_ir.types import Program, Ranking

TEXTS = ("wool is spun", "a flea lives for months", "the kettle boils", "fleas bite")
REQUEST = RankingRequest("fleas", tuple(Candidate(f"d{n}", text) for n, text in enumerate(TEXTS)), query_id="q")
GAINS = {"q": {"d1": 2.0, "d3": 1.0}}

PACKAGE = '''
from pathlib import Path

from r1ranker_ir.backends.declaration import Capabilities, DeclaredBackend
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.strategies import Strategy
from r1ranker_ir.strategies.asking import Asker
from r1ranker_ir.strategies.options import PUBLISHED
from r1ranker_ir.types import Ranking

PICK = Section("top-one", asks="best", user="{query}\\n{candidates}\\nWhich of {count} is best? <answer>[n]</answer>")


def best_to_the_front(request, prompt, *, window_size=20, stride=10, options=PUBLISHED):
    asker, places = Asker(request, prompt), range(min(window_size, len(request.candidates)))
    step = yield from asker.ask(PICK, places)
    rest = [place for place in range(len(request.candidates)) if place not in step.outcome]
    return Ranking(request, (*step.outcome, *rest), tuple(asker.steps))


TOP_ONE = Strategy("top-one", best_to_the_front, (PICK,), summary="move the best one to the front")


def opens():
    from r1ranker_ir.backends.oracle import OracleBackend

    class Longest(OracleBackend):
        """Knows no judgments: the longest text is the best."""

        def __init__(self, model, *, batch_size=8, max_thought_tokens=0):
            super().__init__(model, gains={}, batch_size=batch_size)

        def _gains_of(self, question):
            return [len(question.request.candidates[place].text) for place in question.answerable]

    return Longest


LONGEST = DeclaredBackend("longest", opens, Capabilities(probabilities=True), summary="prefer long texts")
SYSTEM = Path(__file__).with_name("long-first.toml")
'''
SYSTEM = 'strategy = "top-one"\nsource = "a test"\n[settings]\nwindow_size = 3\n'
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "r1ranker-more"
version = "1"

[project.entry-points."r1ranker_ir.strategies"]
top-one = "r1ranker_more:TOP_ONE"
gone = "r1ranker_more.nowhere:GONE"

[project.entry-points."r1ranker_ir.backends"]
longest = "r1ranker_more:LONGEST"

[project.entry-points."r1ranker_ir.first_stages"]
unsorted = "r1ranker_more.stages:UNSORTED"

[project.entry-points."r1ranker_ir.systems"]
long-first = "r1ranker_more:SYSTEM"

[tool.setuptools]
packages = ["r1ranker_more"]

[tool.setuptools.package-data]
r1ranker_more = ["*.toml"]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a package with declarations of its own is installed into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    package = source / "r1ranker_more"
    package.mkdir()
    (package / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    (package / "stages.py").write_text(STAGES, encoding="utf-8")
    (package / "long-first.toml").write_text(SYSTEM, encoding="utf-8")
    (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet", "--target"]
    done = subprocess.run([*command, str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


STAGES = """
from r1ranker_ir.retrieval.first_stages import FirstStageKind
from r1ranker_ir.data.trec_runs import RunEntry


def search(corpus, depth, queries, *, source, progress):
    topics = corpus.queries() if queries is None else queries
    ids = [name for (name, _), _ in zip(corpus.iterate_documents(), range(depth))]
    return {name: tuple(RunEntry(each, float(-rank)) for rank, each in enumerate(ids)) for name in topics}


UNSORTED = FirstStageKind("unsorted", search, summary="the first documents of the corpus")
"""


def test_an_installed_package_is_used_from_python(installed: Path) -> None:
    code = (
        "from r1ranker_ir import Candidate, Ranker, RankingRequest\n"
        "from r1ranker_ir.rankers.names import resolve\n"
        "from r1ranker_ir.rankers.source import find_ranker\n"
        "candidates = tuple(Candidate(str(n), 'x' * n) for n in range(5))\n"
        "found = find_ranker('long-first', 'any')\n"
        "ranker = Ranker('any', strategy=found.strategy, backend='longest', **found.stated())\n"
        "[ranking] = ranker.rank([RankingRequest('q', candidates)])\n"
        "print(ranking.order, ranker.window_size, ranker.strategy, resolve('r1ranker-top-one', 'm'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "(2, 0, 1, 3, 4) 3 top-one ('m', 'top-one')\n", done.stderr
    assert "the strategy 'gone' (r1ranker_more.nowhere:GONE) can't be loaded: ModuleNotFoundError" in done.stderr


def test_an_installed_package_is_used_from_the_command_line(installed: Path, tmp_path: Path) -> None:
    corpus, found, ranked, traces = (tmp_path / name for name in ("corpus", "a.trec", "b.trec", "traces.jsonl"))
    write_corpus(corpus, {f"d{n}": text for n, text in enumerate(TEXTS)}, {"q": "fleas"}, {("q", "d1"): 1})
    with command_server(PYTHONPATH=str(installed)) as commands:

        def said(*words: object) -> str:
            command = [str(commands / "r1ranker"), *map(str, words)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        helped = said("rerank", "--help")
        said("search", "--corpus", corpus, "--first-stage", "unsorted", "--output", found)
        model = ("--reranker", "any", "--strategy", "top-one", "--backend", "longest", "--no-cache")
        said("rerank", "--corpus", corpus, "--run", found, *model, "--output", ranked, "--save-traces", traces)
        shown, prompt = said("trace", "show", "q", "--trace", traces), said("prompt", "show", "--section", "top-one")
    assert "groupwise|top-one" in "".join(helped.split()) and "openai|longest" in helped
    assert "move the best one to the front" in " ".join(helped.split())
    assert [line.split()[2] for line in found.read_text().splitlines()] == ["d0", "d1", "d2", "d3"]
    assert [line.split()[2] for line in ranked.read_text().splitlines()] == ["d1", "d0", "d2", "d3"]
    assert "best" in shown and "Which of 3 is best?" in prompt


DOUBT = Section("doubt", asks="worst", user="{query}: which of these would you drop?\n{candidates}")


def drop_one(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    asker, everything = Asker(request, prompt), range(len(request.candidates))
    step = yield from asker.ask(DOUBT, everything)
    kept = [place for place in everything if place not in step.outcome]
    return Ranking(request, (*kept, *step.outcome), tuple(asker.steps))


@pytest.fixture
def doubting() -> Iterator[Strategy]:
    yield Strategy("doubt", drop_one, (DOUBT,))
    STRATEGIES.forget("doubt")


def test_a_strategy_and_a_backend_are_taken_as_objects(doubting: Strategy) -> None:
    ranker = Ranker("mine", strategy=doubting, backend=OracleBackend(gains=GAINS))
    [ranking] = ranker.rank([REQUEST])
    assert sorted(ranking.order) == [0, 1, 2, 3] and ranking.order[-1] in (0, 2)
    assert "which of these would you drop?" in next(ranker.program(REQUEST)).messages[0].content
    assert trace_of(ranking, ranker.strategy)["strategy"] == "doubt"
    assert "doubt" in STRATEGIES and "doubt" in known_sections()
    voted = Ranker("mine", strategy=doubting, backend=OracleBackend(gains=GAINS), votes=3).rank([REQUEST])
    assert len(voted[0].steps) == 3 and sorted(voted[0].order) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"the budget \(max_tokens 1\) is spent, .* can't end early"):
        Ranker("mine", strategy=doubting, backend=OracleBackend(gains=GAINS), max_tokens=1).rank([REQUEST])


def test_a_strategy_of_ones_own_ranks_with_a_checkpoint(doubting: Strategy) -> None:
    ranker = Ranker(TINY_CHECKPOINT, strategy=doubting, device="cpu", max_thought_tokens=4)
    [ranking] = ranker.rank([REQUEST])
    assert sorted(ranking.order) == [0, 1, 2, 3] and ranking.repairs == 0


def test_a_name_is_taken_once() -> None:
    with pytest.raises(InputError, match="strategy 'direct': the name is taken"):
        Ranker("m", strategy=Strategy("direct", drop_one, (DOUBT,)), backend=OracleBackend(gains=GAINS))
    with pytest.raises(InputError, match="has no section"):
        Strategy("none", drop_one, ())
    with pytest.raises(InputError, match=r"section \[bad\] user: placeholder {candidates} is missing"):
        Strategy("bad", drop_one, (Section("bad", asks="best", user="{query}"),))


def test_what_a_backend_does_not_say_it_can_is_not_asked_of_it() -> None:
    class Plain(OracleBackend):
        pass

    for options, said in (({"think": "never"}, "can be given a thought"), ({"schedule": "halving"}, "probabilities")):
        with pytest.raises(InputError, match=said):
            Ranker("m", strategy="iterative", backend=Plain(gains=GAINS), **options)
    Plain.capabilities = Capabilities(probabilities=True, takes_thought=True)  # type: ignore[attr-defined]
    assert Ranker("m", strategy="iterative", backend=Plain(gains=GAINS), think="never").rank([REQUEST])
    with pytest.raises(InputError, match="has no option 'device'"):
        Ranker("m", strategy="iterative", backend=Plain(gains=GAINS), device="cpu")


@pytest.mark.parametrize("name", BACKENDS)
def test_the_options_that_a_backend_calls_its_own_are_its_own(name: str) -> None:
    made: Any = backend_class(name)
    assert set(BACKENDS[name].own) <= set(made.__init__.__annotations__)
    assert set(BACKENDS[name].environment) <= set(made.__init__.__annotations__)
    for other in BACKENDS:
        if other != name:
            taken: Any = backend_class(other)
            assert not set(BACKENDS[name].own) & set(taken.__init__.__annotations__)


@pytest.mark.parametrize("name", FAMILY)
def test_a_system_is_one_file(name: str) -> None:
    member = FAMILY[name]
    assert member.strategy in STRATEGIES and member.summary and member.source
    assert member.template is None or STRATEGIES[member.strategy].is_worded_by(open_template(member.template))


@pytest.mark.parametrize(
    ("name", "words", "thinks"),
    [
        ("rank1", ("false", "true"), True),
        ("yes-no", ("no", "yes"), False),
        ("yes-no-query-first", ("no", "yes"), False),
    ],
)
def test_systems_score_by_the_probability_of_a_word(
    name: str, words: tuple[str, str], thinks: bool, make_checkpoint: Callable[..., Path]
) -> None:
    options = family_options(name, {"device": "cpu", "max_thought_tokens": 6 if thinks else None})
    ranker = Ranker(make_checkpoint("chatml"), strategy=FAMILY[name].strategy, **options)
    call = next(ranker.program(REQUEST))
    assert (call.identifiers, call.thinks, call.tagged) == (words, thinks, False)
    said = call.messages[-1].content
    assert (said.index("fleas") < said.index("wool")) == (name != "yes-no")
    [answer] = ranker.backend.answer([call])
    assert answer.probabilities is not None and sum(answer.probabilities.values()) == pytest.approx(1)
    [ranking] = ranker.rank([REQUEST])
    assert {step.text.rpartition("</think>")[2].strip() for step in ranking.steps} <= set(words)
    grades = [step.grade or 0.0 for step in ranking.steps]
    assert grades[0] == pytest.approx(10 * answer.probabilities[words[1]]) and len(set(grades)) > 1
    assert list(ranking.order) == sorted(range(4), key=lambda place: -grades[place]) and ranking.repairs == 0


def test_rearank_orders_windows_after_a_thought() -> None:
    options = family_options("rearank", {})
    candidates = tuple(Candidate(f"d{n}", f"text {n}") for n in range(45))
    request = RankingRequest("numbers", candidates, query_id="q")
    gains = {"q": {"d44": 3.0, "d20": 2.0, "d3": 1.0}}
    ranker = Ranker("oracle", strategy="direct", backend="oracle", gains=gains, **options)
    [ranking] = ranker.rank([request])
    assert [len(step.shown) for step in ranking.steps] == [20, 20, 20, 15]
    assert [candidate.id for candidate in ranking.best_first[:3]] == ["d44", "d20", "d3"]
    call = next(ranker.program(request))
    assert call.thinks and call.tagged and "Order all 20 passages" in call.messages[-1].content


def test_new_systems_have_names_everywhere(tmp_path: Path) -> None:
    from r1ranker_ir.integrations.rerankers import FAMILY_RERANKERS
    from r1ranker_ir.rankers.source import find_ranker

    assert FAMILY_RERANKERS["rank1"].__name__ == "Rank1Reranker"
    ranker = Reranker(
        "rearank", model=TINY_CHECKPOINT, device="cpu", max_repair_rate=1.0, max_thought_tokens=4, verbose=0
    )
    assert type(ranker).__name__ == "RearankReranker" and ranker.ranker.window_size == 20
    assert find_ranker("rank1").model == "jhu-clsp/rank1-7b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "strategy is missing"),
        ('strategy = "direct"\ncolour = 1\n', "unknown key 'colour'"),
        ('strategy = "direct"\nsettings = 3\n', "settings is 3: give a dict"),
        ('strategy = "direct"\ntemplate = 3\n', "template is 3"),
    ],
)
def test_a_malformed_system_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"mine\.toml: {said}"):
        read_system(path)


def test_threads_that_ask_first_wait_for_all_declarations() -> None:
    class SlowDoor(Door[Strategy]):
        def _own(self) -> dict[str, Strategy]:
            own = super()._own()
            time.sleep(0.05)
            return own

    door = SlowDoor(Strategy, "r1ranker_ir.strategies", "r1ranker_ir.strategies", "strategy")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: set(door), range(8)))
    assert found == [set(STRATEGIES)] * 8
