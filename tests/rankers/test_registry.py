"""The registered names, alone and inside the factory of `rerankers`."""

import contextlib
import inspect
import io
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import rerankers.reranker as factory

from r1ranker_ir.errors import InputError
from r1ranker_ir.integrations import registration
from r1ranker_ir.integrations.rerankers import RERANKERS, DRankerReranker, IRankerReranker, LikelihoodReranker
from r1ranker_ir.models.checkpoints import DEFAULT_CHECKPOINT, TINY_CHECKPOINT
from r1ranker_ir.models.small import SMALL_NAME
from r1ranker_ir.rankers.names import REGISTERED, resolve
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.strategies import STRATEGIES


@pytest.fixture(autouse=True)
def no_model_variable(monkeypatch):
    monkeypatch.delenv("R1RANKER_MODEL", raising=False)


TINY = str(TINY_CHECKPOINT)


def test_names_stand_for_strategies_and_the_default_checkpoint():
    default = {f"r1ranker-{name}": (DEFAULT_CHECKPOINT, name) for name in STRATEGIES}
    tiny = {f"r1ranker-{name}-tiny": (TINY, name) for name in ("iterative", "direct")}
    small = {"r1ranker-likelihood-small": (SMALL_NAME, "likelihood")}
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
        ("r1ranker-likelihood-small", "another/model", "means smollm2-135m-instruct.*'r1ranker-likelihood' with"),
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


NEAR = "my/r1ranker-iterative org/jina-r1ranker-direct plain/model gpt-5 cross-encoders/minilm castorini/rank_zephyr_7b"


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
    kinds = sorted(set(factory.DEFAULTS) | set(factory.DEPS_MAPPING) - {"rankgpt"} | {"APIRanker"})
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
