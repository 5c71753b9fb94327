"""llama.cpp's own server and the small model: rankings through it are the local backend's; run with `-m llamacpp`.

`llama-server` is looked for in R1RANKER_LLAMA_SERVER and in PATH.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.models.small import installed_small, unpacked_small
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

pytestmark = pytest.mark.llamacpp
QUERIES, CANDIDATES = 3, 6
WAYS: dict[str, dict[str, Any]] = {
    "one": {"strategy": "iterative", "max_thought_tokens": 8},
    "halving": {"strategy": "iterative", "schedule": "halving:5", "max_thought_tokens": 8},
    "direct": {"strategy": "direct", "max_thought_tokens": 8},
    "straight": {"strategy": "iterative", "think": "never"},
    "first": {"strategy": "iterative", "think": "first", "max_thought_tokens": 8},
    "FIRST": {"name": "first"},
    "likelihood": {"strategy": "likelihood"},
}


def unquantized(file: Path, folder: Path) -> Path:
    """The same weights in float32: llama.cpp rounds what it multiplies with quantized ones to 8 bits."""
    gguf, numpy = pytest.importorskip("gguf"), pytest.importorskip("numpy")
    read = gguf.GGUFReader(file)
    written = folder / "float32.gguf"
    writer = gguf.GGUFWriter(written, read.fields["general.architecture"].contents())
    told_already = ("general.architecture", "general.file_type", "general.quantization_version")
    for name, each in read.fields.items():
        if name not in told_already and not name.startswith("GGUF."):
            of_array = each.types[-1] if each.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, each.contents(), each.types[0], of_array)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A `llama-server` on loopback with the small model in float32; its base_url."""
    command = os.environ.get("R1RANKER_LLAMA_SERVER") or shutil.which("llama-server")
    if command is None:
        pytest.skip("there is no llama-server: name one in R1RANKER_LLAMA_SERVER")
    file = installed_small()
    if file is None:
        pytest.skip("the small model is not installed: r1ranker model install small")
    folder = tmp_path_factory.mktemp("llama")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["-m", str(unquantized(file, folder)), "--port", str(port), "-c", "8192", "-np", "1", "-t", "1"]
    options += ["-ctk", "f32", "-ctv", "f32", "-fa", "off"]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with (folder / "log").open("wb") as log, subprocess.Popen([command, *options], stdout=log, stderr=log) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), direct.open(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
                assert process.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def requests() -> list[RankingRequest]:
    corpus = open_corpus("demo-collection")
    documents = list(corpus.iterate_documents())
    return [
        RankingRequest(query, tuple(Candidate(*each) for each in documents[place : place + CANDIDATES]), query_id=name)
        for place, (name, query) in enumerate(list(corpus.queries().items())[:QUERIES])
    ]


def opened(model: Path | str, **options: Any) -> Ranker:
    options = {"max_passage_words": 30, "max_repair_rate": 1.0, **options}
    return find_ranker(options.pop("name", model), model, options.pop("strategy", None), options).open()


@pytest.fixture(scope="module")
def small() -> Path:
    """The same weights for the local backend; a file takes longer to open than what it is unpacked into."""
    found = unpacked_small() or installed_small()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def served(llama_server: str, small: Path) -> Callable[..., Ranker]:
    options = {"backend": "openai", "base_url": llama_server, "settings_from": small, "tokenizer": str(small)}
    return lambda **more: opened("small", **options, concurrency=1, **more)


@pytest.mark.parametrize("way", WAYS)
def test_rankings_are_those_of_the_local_backend(
    served: Callable[..., Ranker], small: Path, requests: list[RankingRequest], way: str
) -> None:
    ranker = served(api="completions", **WAYS[way])
    over_http = ranker.rank(requests)
    here = opened(small, device="cpu", dtype="float32", **WAYS[way]).rank(requests)
    for one, other in zip(over_http, here, strict=True):
        assert_same(one, other)
    if way != "likelihood":
        assert ranker.summary.chosen_by_constraint == ranker.summary.usage.calls
    assert ranker.summary.prompt_tokens_computed < ranker.summary.usage.prompt_tokens


def assert_same(one: Ranking, other: Ranking) -> None:
    """The order, the thoughts, and the probabilities within 0.02; what is as likely may change places."""
    for step, wanted in zip(one.steps, other.steps, strict=True):
        assert (step.thought, step.closed_at, step.usage) == (wanted.thought, wanted.closed_at, wanted.usage)
        if wanted.probabilities is not None:
            assert step.probabilities == pytest.approx(wanted.probabilities, abs=0.02)
        if wanted.score is not None:
            assert step.score is not None and math.isclose(step.score, wanted.score, abs_tol=0.02)
    if all(step.score is None for step in other.steps):
        assert one.order == other.order


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_chat_answers_are_held_to_a_schema(
    served: Callable[..., Ranker], requests: list[RankingRequest], strategy: str
) -> None:
    ranker = served(api="chat", strategy=strategy, max_thought_tokens=64)
    rankings = ranker.rank([replace(requests[0], candidates=requests[0].candidates[:3])])
    summary = ranker.summary
    # Here a thought can't be closed: it may run into the limit.
    assert summary.chosen_by_constraint + summary.closed_at_limit == summary.usage.calls
    steps = [step for each in rankings for step in each.steps if step.chosen_by == "constraint"]
    assert strategy == "direct" or all(step.probabilities for step in steps)
