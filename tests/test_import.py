"""Importing the package: what it loads, what it offers, how long it takes."""

import inspect
import re
import subprocess
import sys
from typing import Any

import pytest
import rerankers

import r1ranker_ir
from r1ranker_ir import errors
from r1ranker_ir.errors import R1RankerError


def run_python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_import_loads_nothing_heavy_and_writes_nothing():
    heavy = ["torch", "transformers", "rerankers", "langchain_core", "openai", "ir_datasets", "numpy", "pandas"]
    code = "import sys, r1ranker_ir; r1ranker_ir.RankingRequest; r1ranker_ir.__version__; dir(r1ranker_ir); "
    assert run_python(f"{code}print([name for name in {heavy} if name in sys.modules])") == "[]\n"


def test_import_is_quick():
    # Of the processor, which other processes do not change.
    code = "import time; start = time.process_time(); import r1ranker_ir; print(time.process_time() - start)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.5


def test_every_public_name_exists_and_is_listed_once():
    names: dict[str, Any] = {}
    exec("from r1ranker_ir import *", names)
    assert set(r1ranker_ir.__all__) <= set(names) and set(r1ranker_ir.__all__) <= set(dir(r1ranker_ir))
    assert len(set(r1ranker_ir.__all__)) == len(r1ranker_ir.__all__) and None not in names.values()
    ours = {name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, R1RankerError)}
    assert ours <= set(r1ranker_ir.__all__)
    assert names["Reranker"] is rerankers.Reranker
    assert re.fullmatch(r"\d+\.\d+.*", r1ranker_ir.__version__)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Rerankr'"):
        _ = r1ranker_ir.Rerankr


def test_old_names_of_modules_lead_to_modules_of_today():
    code = (
        "import importlib.util, warnings; import r1ranker_ir; from r1ranker_ir.moved import MOVED\n"
        "warnings.simplefilter('error', FutureWarning)\n"
        "for old, new in MOVED.items():\n"
        "    assert importlib.util.find_spec('r1ranker_ir.' + new), new\n"
        "    try: importlib.import_module('r1ranker_ir.' + old)\n"
        "    except FutureWarning as warning: assert new in str(warning), old\n"
        "    else: raise AssertionError(old)\n"
        "warnings.simplefilter('ignore', FutureWarning)\n"
        "from r1ranker_ir.checkpoints import TINY_CHECKPOINT\n"
        "import r1ranker_ir.checkpoints, r1ranker_ir.models.checkpoints as today\n"
        "assert r1ranker_ir.checkpoints is today and today.__spec__.name == 'r1ranker_ir.models.checkpoints'\n"
    )
    run_python(code)
