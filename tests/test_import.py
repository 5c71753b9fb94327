"""Importing the package: what it loads, what it offers, how long it takes."""

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import r1ranker_ir
from r1ranker_ir import errors


def run_python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_import_loads_nothing_heavy_and_writes_nothing():
    heavy = ["torch", "transformers", "rerankers", "langchain_core", "openai", "ir_datasets", "numpy", "pandas"]
    code = f"import sys, r1ranker_ir, json; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert json.loads(run_python(code)) == []


def test_import_is_quick():
    # Of the processor, which other processes do not change.
    code = "import time; start = time.process_time(); import r1ranker_ir; print(time.process_time() - start)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.5


def test_reading_light_names_stays_light():
    code = (
        "import sys, r1ranker_ir; r1ranker_ir.RankingRequest; r1ranker_ir.__version__; dir(r1ranker_ir); "
        "print([name for name in ('torch', 'transformers', 'rerankers') if name in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_every_public_name_exists_and_is_listed():
    for name in r1ranker_ir.__all__:
        assert getattr(r1ranker_ir, name) is not None
        assert name in dir(r1ranker_ir)
    assert len(set(r1ranker_ir.__all__)) == len(r1ranker_ir.__all__)


def test_star_import_gives_the_public_names():
    names: dict[str, Any] = {}
    exec("from r1ranker_ir import *", names)
    assert set(r1ranker_ir.__all__) <= set(names)
    assert (names["IRankerReranker"].strategy, names["DRankerReranker"].strategy) == ("iterative", "direct")
    assert names["Reranker"].__module__ == "rerankers.reranker"


def test_all_errors_are_public():
    ours = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.R1RankerError)
    }
    assert ours <= set(r1ranker_ir.__all__)


def test_reranker_is_the_same_function():
    import rerankers

    assert r1ranker_ir.Reranker is rerankers.Reranker


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Rerankr'"):
        _ = r1ranker_ir.Rerankr


def test_version_is_that_of_the_installed_package():
    assert r1ranker_ir.__version__[0].isdigit()
    assert r1ranker_ir.__version__.count(".") >= 1


def test_old_names_of_modules_lead_to_modules_of_today() -> None:
    code = (
        "import importlib, warnings; import r1ranker_ir; from r1ranker_ir.moved import MOVED\n"
        "warnings.simplefilter('error', FutureWarning)\n"
        "for old, new in MOVED.items():\n"
        "    importlib.import_module('r1ranker_ir.' + new)\n"
        "    try: importlib.import_module('r1ranker_ir.' + old)\n"
        "    except FutureWarning as warning: assert new in str(warning), old\n"
        "    else: raise AssertionError(old)\n"
        "warnings.simplefilter('ignore', FutureWarning)\n"
        "from r1ranker_ir.checkpoints import TINY_CHECKPOINT\n"
        "import r1ranker_ir.checkpoints, r1ranker_ir.models.checkpoints as today\n"
        "assert r1ranker_ir.checkpoints is today and today.__spec__.name == 'r1ranker_ir.models.checkpoints'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
