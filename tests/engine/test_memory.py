"""Memory of long runs: what `rerank` holds in memory does not grow with the texts, and hardly with the queries."""

from __future__ import annotations

import gc
import json
import random
import resource
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from stand_ins import WordLimits

from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.runs.reranking import RankerSource, RunSource, rerank_run
from r1ranker_ir.types import Answer, Call, Usage

DOCUMENTS, WORDS, DEPTH = 2000, 60, 10


class ReversingBackend(WordLimits):
    """Takes no time to think: the candidates in reverse are its answer."""

    name = "reversing"
    batch_size = 16
    identity: ClassVar[dict[str, Any]] = {"backend": name}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        return [Answer("a thought", "a thought", call.identifiers[::-1], None, False, Usage(1, 9, 1)) for call in calls]


def write_collection(folder: Path, queries: int, documents: int = DOCUMENTS) -> None:
    """A corpus of random words, and a run of `DEPTH` documents a query."""
    choose = random.Random(1)
    with (folder / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            text = " ".join(f"word{choose.randrange(10**6)}" for _ in range(WORDS))
            file.write(json.dumps({"_id": f"document-{number}", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w") as topics, (folder / "run.trec").open("w") as run:
        for number in range(queries):
            topics.write(json.dumps({"_id": f"query-{number}", "text": f"what is known of matter {number}"}) + "\n")
            for rank, place in enumerate(choose.sample(range(documents), DEPTH), start=1):
                run.write(f"query-{number} Q0 document-{place} {rank} {-rank} made-up\n")


def rerank(folder: Path) -> int:
    """What `r1ranker rerank --save-traces` does, but for the model."""
    with mock.patch("r1ranker_ir.rankers.ranker.open_backend", lambda *arguments, **options: ReversingBackend()):
        summary = rerank_run(
            RunSource(str(folder), str(folder / "run.trec"), DEPTH),
            RankerSource(str(TINY_CHECKPOINT), "direct"),
            folder / "out.trec",
            tag="reversed",
            traces=folder / "trace.jsonl",
        )
    return summary.queries


def traced_peak(folder: Path, queries: int) -> int:
    folder.mkdir()
    write_collection(folder, queries, documents=200)
    gc.collect()
    tracemalloc.start()
    try:
        assert rerank(folder) == queries
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_hardly_grows_with_the_queries(tmp_path: Path) -> None:
    traced_peak(tmp_path / "warm", 20)
    few, many = traced_peak(tmp_path / "few", 300), traced_peak(tmp_path / "many", 800)

    # A query's texts, prompt and trace take more than 10,000 bytes.
    assert (tmp_path / "many" / "trace.jsonl").stat().st_size > 800 * 6000
    assert (many - few) / 500 < 1000
    lines = (tmp_path / "many" / "out.trec").read_text().splitlines()
    assert [line.split()[0] for line in lines[::DEPTH]] == [f"query-{number}" for number in range(800)]


@pytest.mark.slow
def test_ten_thousand_more_queries_take_megabytes_at_most() -> None:
    few, many = (measure(queries)["peak"] for queries in (2_000, 12_000))

    assert (many - few) / 10_000 < 1000


def measure(queries: int) -> dict[str, float]:
    """Reranks in a process of its own; gives its largest resident memory in bytes."""
    done = subprocess.run([sys.executable, __file__, str(queries)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure_here(queries: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        write_collection(Path(name), queries)
        rerank(Path(name))
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


if __name__ == "__main__":
    # With several numbers of queries, each is measured in a process of its own.
    counts = [int(count) for count in sys.argv[1:]]
    for count in counts:
        print(json.dumps(measure_here(count) if len(counts) == 1 else {"queries": count, **measure(count)}))
