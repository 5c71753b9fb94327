"""Names of rerankers: what they stand for, alone and inside the factory of `rerankers`, and what is refused at once."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import rerankers.reranker as factory
from commands import r1ranker, said
from rerankers import Reranker

import r1ranker_ir
from r1ranker_ir import (
    DRankerReranker,
    InputError,
    IRankerReranker,
    LikelihoodReranker,
    LLMProfile,
    PointwiseReranker,
    Ranker,
    RecommendationAdapter,
    RoutingAdapter,
    SetwiseReranker,
)
from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.eval.shootouts.entries import Entry, read_entries
from r1ranker_ir.integrations import registration
from r1ranker_ir.integrations.rerankers import FAMILY_RERANKERS, RERANKERS, R1RankerReranker
from r1ranker_ir.models.checkpoints import DEFAULT_CHECKPOINT, SMALL_LIKELIHOOD, TINY_CHECKPOINT
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.names import REGISTERED, resolve
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.strategies import STRATEGIES

LLMS = [LLMProfile("a", 1.0, 1.0), LLMProfile("b", 2.0, 2.0)]
UNKNOWN = "r1ranker-iterativ r1ranker-foo R1Ranker_Direct r1ranker r1-ranker-direct r1ranker-listwise-tiny".split()
ASKED: dict[str, Callable[[str], object]] = {
    "Reranker": lambda name: Reranker(name, verbose=0),
    "model_type": lambda name: Reranker("some/model", model_type=name, verbose=0),
    "Reranker with model_type": lambda name: Reranker(name, model_type="r1ranker-direct", verbose=0),
    "class": lambda name: IRankerReranker(name),
    "model=": lambda name: IRankerReranker("r1ranker-iterative", model=name),
    "system": lambda name: FAMILY_RERANKERS["rank-r1"](name),
    "Ranker": lambda name: Ranker(name, strategy="direct"),
    "recommendation": lambda name: RecommendationAdapter(name),
    "recommendation with a strategy": lambda name: RecommendationAdapter(name, strategy="direct"),
    "routing": lambda name: RoutingAdapter(name, llms=LLMS),
}
TINY = str(TINY_CHECKPOINT)
NEAR = "my/r1ranker-iterative org/jina-r1ranker-direct plain/model gpt-5 cross-encoders/minilm castorini/rank_zephyr_7b"


@pytest.fixture(autouse=True)
def no_model_variable(monkeypatch):
    monkeypatch.delenv("R1RANKER_MODEL", raising=False)


def test_names_stand_for_strategies_and_the_default_checkpoint():
    default = {f"r1ranker-{name}": (DEFAULT_CHECKPOINT, name) for name in STRATEGIES}
    tiny = {f"r1ranker-{name}-tiny": (TINY, name) for name in ("iterative", "direct")}
    small = {"r1ranker-likelihood-small": (str(SMALL_LIKELIHOOD), "likelihood")}
    assert {name: resolve(name) for name in REGISTERED} == default | tiny | small
    assert resolve("R1Ranker-Direct") == resolve("r1ranker-direct")


@pytest.mark.parametrize(
    ("variable", "name", "model", "checkpoint"),
    [
        ("from/environment", "r1ranker-direct", None, "from/environment"),
        ("from/environment", "r1ranker-direct", "from/argument", "from/argument"),
        ("from/environment", "r1ranker-direct", Path("folder"), "folder"),
        ("from/environment", "r1ranker-direct-tiny", None, TINY),
        ("", "r1ranker-direct-tiny", TINY_CHECKPOINT, TINY),
        ("  ", "r1ranker-direct", None, DEFAULT_CHECKPOINT),
    ],
)
def test_a_model_wins_over_the_environment_and_that_over_the_default(monkeypatch, variable, name, model, checkpoint):
    monkeypatch.setenv("R1RANKER_MODEL", variable)
    assert resolve(name, model) == (checkpoint, "direct")


@pytest.mark.parametrize(
    ("name", "model", "said"),
    [
        ("r1ranker-iterative-tiny", "another/model", "'r1ranker-iterative' with that model"),
        ("r1ranker-likelihood-small", "another/model", "means the small model.*'r1ranker-likelihood' with"),
        ("r1ranker-direct-small", None, "follows the strategy likelihood alone, so use 'r1ranker-direct'"),
        ("bm25", None, r"'bm25'.*r1ranker-iterative, r1ranker-direct, .*-tiny"),
        ("r1ranker-iterative", " ", "model= is blank"),
    ],
)
def test_what_can_not_be_resolved(name, model, said):
    with pytest.raises(InputError, match=said):
        resolve(name, model)


@pytest.mark.parametrize("name", REGISTERED)
def test_names_map_to_themselves_in_the_factory(name):
    for spelt in (name, name.upper(), name.title()):
        assert factory._get_model_type(spelt) == factory._get_model_type("any/model", spelt) == name


def test_names_lead_to_their_class(monkeypatch):
    built = []
    for reranker in RERANKERS.values():
        monkeypatch.setattr(reranker, "__init__", lambda self, *given, **options: built.append((given, options)))
    types = [type(factory.Reranker(name, verbose=0, device="cpu")) for name in REGISTERED]
    assert types == [*RERANKERS.values(), IRankerReranker, DRankerReranker, LikelihoodReranker]
    assert built == [((name,), {"verbose": 0, "device": "cpu"}) for name in REGISTERED]


def test_an_explicit_type_wins():
    for path in ("jina", "t5", "gpt", "colbert", "minilm"):
        name = f"/models/{path}/{path}-r1ranker"
        assert factory._get_model_type(name, "r1ranker-direct") == "r1ranker-direct"
        assert factory._get_api_provider(name, "r1ranker-direct") is None
    assert factory._get_model_type("r1ranker-iterative", "cross-encoder") == "TransformerRanker"


def test_registering_again_changes_nothing():
    before = factory._get_model_type, dict(factory.AVAILABLE_RANKERS)
    registration.register()
    registration.register_when_imported()
    assert (factory._get_model_type, factory.AVAILABLE_RANKERS) == before


def test_a_factory_without_the_function_is_reported_not_broken(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "rerankers.reranker", SimpleNamespace(AVAILABLE_RANKERS={}))
    with caplog.at_level(logging.WARNING, "r1ranker_ir"):
        registration.register()
    assert "pass model_type=" in caplog.text


def observe(function, *given):
    """What a function gives, prints and warns of."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            value = function(*given)
        except Exception as error:
            value = repr(error)
    return [value, out.getvalue(), [str(one.message) for one in seen]]


def mapping(factory, near, ours):
    """What rerankers makes of names that are not ours, with each of its types and with none."""
    kinds = sorted({*factory.DEFAULTS, *factory.DEPS_MAPPING, "APIRanker"} - {"rankgpt"})
    checkpoints = [model for defaults in factory.DEFAULTS.values() for model in defaults.values()]
    found = {}
    for name in sorted({*kinds, *checkpoints, *near, ""}):
        for kind in [None, "", *kinds, "no-such-type"]:
            asked = [observe(ask, name, kind) for ask in (factory._get_model_type, factory._get_api_provider)]
            found[f"{name} {kind}"] = asked
        found[f"{name} default"] = observe(factory._get_defaults, name, None, "en", 1)
    others = {name: repr(kind) for name, kind in factory.AVAILABLE_RANKERS.items() if name not in ours}
    return [found, others, observe(factory.Reranker, "no-such/model", "en", "NoSuchRanker")]


def test_no_other_name_is_disturbed_whoever_is_imported_first():
    # The type rankgpt leads to ours with backend= alone: test_family.py
    ours = sorted({*REGISTERED, *FAMILY})
    code = [
        "import contextlib, io, json, sys, warnings",
        *map(inspect.getsource, (observe, mapping)),
        "import rerankers.reranker as factory",
        f"before = mapping(factory, {NEAR.split()}, {ours})",
        f"known = [name in factory.AVAILABLE_RANKERS for name in {sorted(REGISTERED)}]",
        "import r1ranker_ir",
        f"after = mapping(factory, {NEAR.split()}, {ours})",
        "print(json.dumps([before, after, known, factory.Reranker is r1ranker_ir.Reranker]))",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after, known, same = json.loads(done.stdout.splitlines()[-1])
    assert len(before[0]) > 1000 and not any(known) and same
    # Here ours was imported first.
    assert before == after == json.loads(json.dumps(mapping(factory, NEAR.split(), ours)))


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("asked", ASKED)
def test_an_unknown_name_is_refused_at_once(asked, name):
    with pytest.raises(InputError, match="The names are r1ranker-iterative, r1ranker-direct, ") as caught:
        ASKED[asked](name)
    assert repr(name) in str(caught.value)


def test_the_closest_name_is_said():
    with pytest.raises(InputError, match="did you mean 'r1ranker-iterative'"):
        Reranker("r1ranker-iterativ", verbose=0)
    with pytest.raises(InputError, match=r"follows the strategies iterative and direct alone"):
        Reranker("r1ranker-setwise-tiny", verbose=0)


@pytest.mark.parametrize("more", [(), ("--strategy", "direct")])
def test_the_command_line_and_a_shootout_refuse_it_too(more, tmp_path):
    common = ("--output", tmp_path / "out", "--reranker", "r1ranker-iterativ", *more)
    for words in (("rerank", "--corpus", "demo-collection", "--run", "x.trec"), ("suite", "trec-dl")):
        assert "did you mean 'r1ranker-iterative'" in said(r1ranker(*words, *common, code=2))
    path = tmp_path / "own.yaml"
    path.write_text(f"- {{name: a, reranker: r1ranker-iterativ{', strategy: direct' if more else ''}}}\n")
    with pytest.raises(InputError, match=r"entry 'a': .*did you mean 'r1ranker-iterative'"):
        read_entries(str(path))


def test_a_folder_may_be_called_as_it_likes(tmp_path, monkeypatch):
    (tmp_path / "r1ranker-mine").symlink_to(TINY_CHECKPOINT)
    monkeypatch.chdir(tmp_path)
    assert IRankerReranker("r1ranker-mine", device="cpu").checkpoint == "r1ranker-mine"


def test_every_strategy_has_a_name_and_a_class():
    assert {entry.strategy for entry in REGISTERED.values()} == set(STRATEGIES) == set(RERANKERS)
    own = [IRankerReranker, DRankerReranker, SetwiseReranker, PointwiseReranker, LikelihoodReranker]
    assert [RERANKERS[name] for name in STRATEGIES][:5] == own
    assert all(each.__name__ in r1ranker_ir.__all__ for each in own)
    for strategy in STRATEGIES:
        assert find_ranker(f"r1ranker-{strategy}").strategy == strategy


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_ranks_by_its_name(strategy):
    # The embedded model has not learned setwise and pointwise, but with a template of their own it can be asked.
    ranker = Reranker(
        f"r1ranker-{strategy}", model=TINY_CHECKPOINT, template=load_template(), device="cpu", max_thought_tokens=4,
        max_repair_rate=1.0, verbose=0,
    )  # fmt: skip
    assert type(ranker) is RERANKERS[strategy]
    results = ranker.rank("fleas", ["a flea", "a kettle", "wool"])
    assert sorted(result.doc_id for result in results.results) == [0, 1, 2]
    assert ranker.strategy == strategy


def test_the_embedded_model_says_what_it_follows():
    with pytest.raises(CheckpointError, match="does not follow the strategy 'setwise'"):
        SetwiseReranker("r1ranker-setwise", model=TINY_CHECKPOINT)


def test_strategy_as_an_argument():
    for strategy in ("setwise", "bubble", ["direct"]):
        with pytest.raises(InputError, match="IRankerReranker is the iterative strategy, not "):
            IRankerReranker("r1ranker-iterative-tiny", strategy=strategy)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="use SetwiseReranker"):
        Reranker("r1ranker-iterative-tiny", strategy="setwise", verbose=0)
    assert IRankerReranker("r1ranker-iterative-tiny", strategy="iterative", device="cpu").strategy == "iterative"
    with pytest.raises(InputError, match="has no strategy of its own: give strategy="):
        R1RankerReranker(TINY_CHECKPOINT)
    assert R1RankerReranker(TINY_CHECKPOINT, strategy="direct", device="cpu").ranker.strategy == "direct"
    assert R1RankerReranker("r1ranker-direct-tiny", device="cpu").ranker.strategy == "direct"
    with pytest.raises(InputError, match=r"RankR1Reranker is the setwise strategy, not 'direct'"):
        FAMILY_RERANKERS["rank-r1"]("rank-r1", strategy="direct")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("windowsize", "window_size"), ("max_toughts_tokens", "max_thought_tokens"), ("xyz", "takes device")],
)
def test_an_unknown_argument_is_named(given, meant):
    for make in (
        lambda: IRankerReranker("r1ranker-iterative-tiny", **{given: 1}),
        lambda: Reranker("r1ranker-iterative-tiny", verbose=0, **{given: 1}),
        lambda: Ranker(TINY_CHECKPOINT, strategy="direct", **{given: 1}),
        lambda: RecommendationAdapter("r1ranker-iterative-tiny", **{given: 1}),
        lambda: RoutingAdapter("r1ranker-iterative-tiny", llms=LLMS, **{given: 1}),
    ):
        with pytest.raises(InputError, match=rf"has no option '{given}': .*{meant}"):
            make()


def test_adapters_know_the_published_systems():
    for name in ("rank-r1", "reasonrank", "listwise"):
        found = find_ranker(name, TINY_CHECKPOINT, None, {"device": "cpu"})
        assert found.model == str(TINY_CHECKPOINT) and found.settings.window_size == 20
    adapter = RecommendationAdapter("listwise", model=TINY_CHECKPOINT, device="cpu", max_repair_rate=1.0)
    assert len(adapter.rank(["one", "two"], ["three", "four", "five"]).order) == 3
    with pytest.raises(InputError, match="'rankgpt' works with any chat model: name one"):
        RecommendationAdapter("rankgpt")


def test_a_rerankers_name_is_no_model():
    with pytest.raises(InputError, match="which is a reranker's name"):
        Ranker("r1ranker-iterative", strategy="iterative")


@pytest.mark.parametrize(("written", "seed"), [("3", 3), ("none", None), ("None", None)])
def test_the_shuffle_seed_of_a_shootout(tmp_path, written, seed):
    path = tmp_path / "own.yaml"
    path.write_text(f"- {{name: a, oracle: , strategy: setwise, shuffle_seed: {written}}}\n", encoding="utf-8")
    [entry] = read_entries(str(path))
    assert isinstance(entry, Entry) and entry.options["shuffle_seed"] == seed
    path.write_text("- {name: a, oracle: , strategy: setwise, shuffle_seed: x}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"shuffle_seed is 'x': give a whole number, or none"):
        read_entries(str(path))
    path.write_text("- {name: a, oracle: , strategy: direct, shuffle_seed: 3}\n", encoding="utf-8")
    with pytest.raises(InputError, match="for the setwise strategy"):
        read_entries(str(path))
