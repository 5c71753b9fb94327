"""The registered names, alone and inside the factory of `rerankers`."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import rerankers.reranker

from r1ranker_ir.errors import InputError
from r1ranker_ir.integrations import registration
from r1ranker_ir.integrations.rerankers import RERANKERS, DRankerReranker, IRankerReranker, LikelihoodReranker
from r1ranker_ir.models.checkpoints import DEFAULT_CHECKPOINT, TINY_CHECKPOINT
from r1ranker_ir.models.small import SMALL_NAME
from r1ranker_ir.rankers.names import REGISTERED, resolve
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
        (
            "r1ranker-likelihood-small",
            "another/model",
            "means smollm2-135m-instruct.*'r1ranker-likelihood' with",
        ),
        ("r1ranker-direct-small", None, "follows the strategy likelihood alone, so use 'r1ranker-direct'"),
        ("bm25", None, r"'bm25'.*r1ranker-iterative, r1ranker-direct, .*-tiny"),
        ("r1ranker-iterative", " ", "model= is blank"),
        ("r1ranker-iterative-tiny", " ", "model= is blank"),
    ],
)
def test_what_can_not_be_resolved(name, model, said):
    with pytest.raises(InputError, match=said):
        resolve(name, model)


class TestInsideTheFactory:
    @pytest.mark.parametrize("name", REGISTERED)
    @pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
    def test_names_map_to_themselves(self, name, spell):
        assert rerankers.reranker._get_model_type(spell(name)) == name
        assert rerankers.reranker._get_model_type("any/model", spell(name)) == name

    def test_names_lead_to_their_class(self, monkeypatch):
        built = []
        for reranker in RERANKERS.values():
            monkeypatch.setattr(
                reranker, "__init__", lambda self, *arguments, **options: built.append((arguments, options))
            )
        types = [type(rerankers.Reranker(name, verbose=0, device="cpu")) for name in REGISTERED]
        assert types == [*RERANKERS.values(), IRankerReranker, DRankerReranker, LikelihoodReranker]
        assert built == [((name,), {"verbose": 0, "device": "cpu"}) for name in REGISTERED]

    @pytest.mark.parametrize("path", ["jina", "t5", "gpt", "colbert", "minilm"])
    def test_an_explicit_type_wins_over_words_in_the_path(self, path):
        name = f"/models/{path}/{path}-r1ranker"
        assert rerankers.reranker._get_model_type(name, "r1ranker-direct") == "r1ranker-direct"
        assert rerankers.reranker._get_api_provider(name, "r1ranker-direct") is None

    def test_another_explicit_type_wins_over_our_name(self):
        assert rerankers.reranker._get_model_type("r1ranker-iterative", "cross-encoder") == "TransformerRanker"

    def test_registering_again_changes_nothing(self):
        before = rerankers.reranker._get_model_type, dict(rerankers.reranker.AVAILABLE_RANKERS)
        registration.register()
        registration.register_when_imported()
        assert (rerankers.reranker._get_model_type, rerankers.reranker.AVAILABLE_RANKERS) == before

    def test_a_factory_without_the_function_is_reported_not_broken(self, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, "rerankers.reranker", SimpleNamespace(AVAILABLE_RANKERS={}))
        with caplog.at_level(logging.WARNING, "r1ranker_ir"):
            registration.register()
        assert "pass model_type=" in caplog.text


OTHER_NAMES_SCRIPT = """
import contextlib, io, json, os, sys, warnings
import torch, transformers.models.llama.modeling_llama  # which take long, and belong to neither
with contextlib.suppress(ImportError):
    import litellm
ours_first = os.fork() == 0
if ours_first:
    import r1ranker_ir
from rerankers import Reranker
import rerankers.reranker as factory
ours = sorted({"r1ranker-iterative", "r1ranker-direct", "r1ranker-setwise", "r1ranker-pointwise",
               "r1ranker-likelihood", "r1ranker-likelihood-small",
               "r1ranker-iterative-tiny", "r1ranker-direct-tiny"})
systems = {"rank-r1", "reasonrank", "listwise", "first", "rankgpt", "iranker", "dranker", "rank1", "rearank",
           "yes-no", "yes-no-query-first"}
families = sorted(factory.DEFAULTS) + sorted(set(factory.DEPS_MAPPING) | {"APIRanker"})
checkpoints = [model for defaults in factory.DEFAULTS.values() for model in defaults.values()]
near = ["r1ranker", "my/r1ranker-iterative", "r1ranker-iterative-2", "r1ranker-direct-t5", "org/jina-r1ranker-direct",
        "plain/model", "", "gpt-5", "cross-encoders/minilm", "ielabgroup/Rank-R1-3B-v0.1", "castorini/rank_zephyr_7b"]
def observe(function, *arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            value = function(*arguments)
        except Exception as error:
            value = repr(error)
    return [value, out.getvalue(), [(str(one.message), one.filename) for one in seen]]
def mapping():
    seen = {}
    for name in sorted({*families, *checkpoints, *near}):
        # The type rankgpt leads to ours with backend= alone: test_family.py
        for kind in [None, "", *families, "no-such-type"]:
            # What begins as our names do, and has no type to say otherwise, is refused: test_names.py
            if kind == "rankgpt" or (name.startswith("r1ranker") and not kind):
                continue
            seen[f"{name} {kind}"] = [
                observe(function, name, kind) for function in (factory._get_model_type, factory._get_api_provider)
            ]
        if name.startswith("r1ranker"):
            continue
        seen[f"{name} default"] = observe(factory._get_defaults, name, None, "en", 1)
    others = {name: repr(kind) for name, kind in factory.AVAILABLE_RANKERS.items() if name not in {*ours, *systems}}
    return [seen, others, observe(Reranker, "no-such/model", "en", "NoSuchRanker")]
first = mapping()
known = [name in factory.AVAILABLE_RANKERS for name in ours]
import r1ranker_ir
second = mapping()
known_after = [name in factory.AVAILABLE_RANKERS and factory._get_model_type(name) == name for name in ours]
found = {"first": first, "second": second, "known": known, "known_after": known_after,
         "same": Reranker is r1ranker_ir.Reranker}
if not ours_first:
    assert os.wait()[1] == 0
print(json.dumps(found))
"""


def test_no_other_name_is_disturbed_whoever_is_imported_first():
    finished = subprocess.run(
        [sys.executable, "-c", OTHER_NAMES_SCRIPT], capture_output=True, text=True, env=os.environ, check=False
    )
    assert finished.returncode == 0, finished.stderr
    ours_first, theirs_first = map(json.loads, finished.stdout.splitlines())
    assert len(theirs_first["first"][0]) > 1000
    assert theirs_first["known"] == [False] * 8
    assert theirs_first["known_after"] == ours_first["known"] == ours_first["known_after"] == [True] * 8
    assert theirs_first["same"] and ours_first["same"]
    assert theirs_first["first"] == theirs_first["second"] == ours_first["first"] == ours_first["second"]
