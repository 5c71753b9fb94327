"""Runs spread over two workers of a real Ray on this machine: the same result as one process, whatever happens."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import servers
from commands import COLLECTION, r1ranker
from hypothesis import given
from hypothesis import strategies as st

import r1ranker_ir
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.request_files import JudgedRequest, write_requests
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import BackendError, CheckpointError, FailedRankingsError, InputError, RepairRateError
from r1ranker_ir.eval.suites.requests import RequestFileSource
from r1ranker_ir.rankers.names import resolve
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import ranker_source
from r1ranker_ir.runs import ray_worker
from r1ranker_ir.runs.ray_engine import RayCluster
from r1ranker_ir.runs.ray_worker import Portions
from r1ranker_ir.runs.reranking import RankerSource, RunSource, rerank_run
from r1ranker_ir.types import Candidate, RankingRequest

pytest.importorskip("ray")

TWO, ONE = RayCluster(workers=2), RayCluster(workers=1)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray of two CPUs that the tests' process is connected to; it must be gone afterwards."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")  # otherwise the workers wait for all else that a busy machine does
        folders = Path(__file__).parent, Path(servers.__file__).parent
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))  # the workers import OwnSeeds
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        started = ray_processes()
        assert started
        yield ray
        ray.shutdown()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def ray_processes(name: str = "ray") -> list[psutil.Process]:
    """The processes of a Ray that this process has started, by what their command lines hold."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if name in " ".join(process.cmdline()[:2]):
                found.append(process)
    return found


def workers() -> list[psutil.Process]:
    return ray_processes("PortionRanker")


def run_of(bm25_run: Path, **changes: Any) -> RunSource:
    return replace(RunSource(COLLECTION, str(bm25_run), depth=5, queries=12), **changes)


def tiny(**options: Any) -> RankerSource:
    return ranker_source(*resolve("r1ranker-iterative-tiny"), {"device": "cpu", **options})


def counts(summary: RunSummary) -> RunSummary:
    """What must be equal however the work was done."""
    return replace(summary, seconds=0, cached_calls=0, prompt_tokens_computed=0, cache_memory_peak=0)


def without_probabilities(path: Path) -> tuple[list[Any], list[float]]:
    """A trace without the numbers whose last digits depend on what else was in a batch, and these numbers."""
    traces = [json.loads(line) for line in path.read_text().splitlines()]
    numbers = [number for trace in traces for step in trace["steps"] for number in step.pop("probabilities")]
    return traces, numbers


@dataclass(frozen=True)
class Request:
    """What a server is asked: the how-manieth time, with which prompt, from which port."""

    number: int
    prompt: str
    port: int

    def process(self) -> psutil.Process:
        """Who asks."""
        [asking] = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.laddr and connection.laddr.port == self.port and connection.pid not in (None, os.getpid())
        }
        return psutil.Process(asking)


def an_answer(request: Request) -> str:
    """One of the documents, always the same one for the same prompt."""
    shown = re.findall(r"^\[\d+\]", request.prompt, re.MULTILINE)
    return f"<answer>{shown[zlib.crc32(request.prompt.encode()) % len(shown)]}</answer>"


@contextmanager
def server(reply: Callable[[Request], str | None], refused: tuple[int, str] = (404, "no such model")) -> Iterator[str]:
    """A chat server; `reply` gives the text of each answer, one after the other, or `None` to refuse."""
    count, lock = itertools.count(1), threading.Lock()

    def answer(asked: servers.Request) -> servers.Reply:
        with lock:
            text = reply(Request(next(count), asked.question, asked.port))
        return servers.refusal(*refused) if text is None else servers.completion(text, usage=(10, 2))

    with servers.serving(answer) as running:
        yield running.base_url


def served(url: str, **options: Any) -> RankerSource:
    return ranker_source("served-name", "iterative", {"backend": "openai", "base_url": url, **options})


# --- the same result ------------------------------------------------------------------------------------------------


def test_two_workers_write_what_one_process_writes(ray, bm25_run, tmp_path):
    summaries = [
        rerank_run(run_of(bm25_run), tiny(), tmp_path / name, tag="t", traces=tmp_path / f"{name}.jsonl", cluster=each)
        for name, each in (("one", None), ("two", TWO))
    ]
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    (ours, numbers), (theirs, expected) = (without_probabilities(tmp_path / f"{name}.jsonl") for name in ("two", "one"))
    assert ours == theirs
    assert numbers == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert counts(summaries[0]) == counts(summaries[1]) and summaries[1].seconds > 0
    assert ray.is_initialized()  # whoever has connected shuts it down


def test_ranking_requests_are_shared_too(ray, tmp_path):
    requests = []
    for n in range(6):
        candidates = tuple(Candidate(f"d{i}", f"item {n} {i}") for i in range(4))
        request = RankingRequest(f"user {n}", candidates, "item", f"u{n}", "aim")
        requests.append(JudgedRequest(request, (1.0, 0.0, 0.0, 0.0)))
    write_requests(tmp_path / "asked.jsonl", requests)
    source, prompts = RequestFileSource(str(tmp_path / "asked.jsonl"), shuffle=1), []
    with server(lambda request: prompts.append(request.prompt) or an_answer(request)) as url:
        for name, cluster in (("one", None), ("two", TWO)):
            rerank_run(source, served(url), tmp_path / name, tag="t", cluster=cluster)
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    assert len(prompts) == 2 * 6 * 3 and all("Wanted: aim." in prompt for prompt in prompts)


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_doubled(ray, bm25_run, tmp_path, own_cache, caplog):
    killed: list[int] = []

    def answer_until_the_middle(request: Request) -> str:
        # 48 questions in all: when the 30th is asked, each of the two workers has asked some and waits for an answer.
        if request.number == 30:
            asking = request.process()
            asking.kill()
            killed.append(asking.pid)
        return an_answer(request)

    source = run_of(bm25_run)
    with server(an_answer) as url:
        alone = rerank_run(source, served(url), tmp_path / "alone", tag="t")
    with server(answer_until_the_middle) as url:
        options = {"cache": own_cache, "batch_size": 2}
        summary = rerank_run(source, served(url, **options), tmp_path / "out", tag="t", cluster=TWO)
    assert killed
    assert "1 workers died and were replaced; their queries were begun again" in caplog.text
    assert 0 < summary.cached_calls < summary.usage.calls  # by the dead one's answers in the cache, the next went on
    assert (tmp_path / "out").read_bytes() == (tmp_path / "alone").read_bytes()
    assert counts(summary) == counts(alone)
    with CompletionsCache(own_cache) as cache:
        assert cache.info().entries == summary.usage.calls


# --- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_in_a_worker_is_raised_here_and_finished_queries_are_kept(ray, bm25_run, tmp_path, caplog):
    output = tmp_path / "out"
    # One worker takes the queries in order, two calls for each: the server refuses the third query.
    with (
        server(lambda request: an_answer(request) if request.number <= 4 else None) as url,
        pytest.raises(BackendError, match="no such model") as caught,
    ):
        source = served(url, batch_size=1)
        rerank_run(run_of(bm25_run, depth=3), source, output, tag="served", cluster=ONE)
    assert "raised in a worker, process " in caught.value.__notes__[-1]
    assert not output.exists()
    kept = [line.split()[0] for line in (tmp_path / "out.partial").read_text().splitlines()]
    assert kept == ["q01"] * 3 + ["q02"] * 3
    assert "the 2 finished queries are kept in" in caplog.text
    wait_until(lambda: not workers())


def test_refused_queries_are_named_and_the_others_ranked_by_all_workers(ray, bm25_run, tmp_path):
    refused = ("q03", "q08")
    texts = {query_id: text for query_id, text in open_corpus(COLLECTION).queries().items() if query_id in refused}

    def reply(request: Request) -> str | None:
        return None if any(text in request.prompt for text in texts.values()) else an_answer(request)

    output = tmp_path / "out"
    with server(reply, refused=(400, "flagged by the content filter")) as url:
        with pytest.raises(FailedRankingsError, match="2 of 10 rankings failed") as caught:
            rerank_run(run_of(bm25_run, queries=10), served(url), output, tag="served", cluster=TWO)
        with pytest.raises(FailedRankingsError):
            rerank_run(run_of(bm25_run, queries=10), served(url), tmp_path / "alone", tag="served")
    for query_id in refused:
        assert f"query {query_id!r}" in str(caught.value)
    assert "flagged by the content filter" in str(caught.value)
    kept = read_run(tmp_path / "out.partial")
    assert len(kept) == 8 and not set(refused) & set(kept)
    assert (tmp_path / "out.partial").read_bytes() == (tmp_path / "alone.partial").read_bytes()


def test_the_repair_limit_holds_over_all_workers_together(ray, bm25_run, tmp_path):
    # 32 and 28 calls: the workers' own would be too few to say anything, below 50.
    with (
        server(lambda _: "no answer") as url,
        pytest.raises(RepairRateError, match=r"^60 of 60 answers of 'served-name' had to be repaired \(100%"),
    ):
        rerank_run(run_of(bm25_run, queries=15), served(url), tmp_path / "out", tag="t", cluster=TWO)


def test_workers_that_die_again_and_again_are_given_up(ray, bm25_run, tmp_path):
    killed = []

    def kill_who_asks(request: Request) -> str:
        asking = request.process()
        asking.kill()
        killed.append(asking.pid)
        return "too late"

    with server(kill_who_asks) as url, pytest.raises(BackendError, match=r"3 workers died before any had finished"):
        rerank_run(run_of(bm25_run, queries=2), served(url, batch_size=1), tmp_path / "out", tag="t", cluster=ONE)
    assert len(set(killed)) == 3


@dataclass(frozen=True)
class OwnSeeds(RankerSource):
    """Opens another model in every process, as soon as two processes want to."""

    def open(self, *, progress: bool = False) -> Ranker:
        options = self.stated()
        meeting = Path(options.pop("meeting"))
        (meeting / str(os.getpid())).touch()
        wait_until(lambda: len(list(meeting.iterdir())) == 2)
        return ranker_source(self.model, self.strategy, {**options, "seed": os.getpid()}).open()


@dataclass(frozen=True)
class OtherVersion(RankerSource):
    """Opens what it should, in a process that has another r1ranker-ir."""

    def open(self, *, progress: bool = False) -> Ranker:
        ray_worker.VERSION = "0.0.9"
        options = {name: value for name, value in self.stated().items() if name != "meeting"}
        return ranker_source(self.model, self.strategy, options).open()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (OwnSeeds, CheckpointError, r"would not give the same answers.* differ in seed \("),
        (OtherVersion, InputError, f"a Ray worker has r1ranker-ir 0.0.9, and here it is {r1ranker_ir.__version__}"),
    ],
)
def test_workers_that_do_not_match_are_refused(ray, bm25_run, tmp_path, kind, error, message):
    (tmp_path / "meeting").mkdir()
    with server(an_answer) as url:
        source = served(url, meeting=str(tmp_path / "meeting"))
        differing = kind(source.model, source.strategy, source.options, source.settings)
        with pytest.raises(error, match=message):
            rerank_run(run_of(bm25_run), differing, tmp_path / "out", tag="t", cluster=TWO)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cluster", "options", "said"),
    [
        (RayCluster(1, address="elsewhere:6379"), {}, "connected to a Ray already: leave the address 'elsewhere:6379'"),
        (RayCluster(1, gpus_per_worker=1), {}, r"no machine of the Ray cluster has that \(2 CPU, 0 GPU\)"),
        (RayCluster(1, cpus_per_worker=3), {}, r"no machine of the Ray cluster has that \(2 CPU, 0 GPU\)"),
        (TWO, {"window_size": 1}, "window_size is 1"),  # said by the workers, which open the ranker
    ],
)
def test_what_can_not_be_run_is_said(ray, bm25_run, tmp_path, cluster, options, said):
    with pytest.raises(InputError, match=said):
        rerank_run(run_of(bm25_run), tiny(**options), tmp_path / "out", tag="t", cluster=cluster)
    assert not list(tmp_path.iterdir())


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- a Ray of our own -----------------------------------------------------------------------------------------------


def test_the_command_starts_a_ray_of_its_own_and_leaves_nothing_behind(bm25_run, tmp_path, light_commands):
    """Also: the run from standard input, to standard output, and the same messages on standard error."""
    known = {process.pid for process in ray_processes()}
    run = bm25_run.read_text().split("\n", 1)[1] + "unknown Q0 d 1 1 t\nq01 Q0 no-such 0 999 t\n"
    arguments = [
        *("rerank", "--corpus", COLLECTION, "--depth", "5", "--queries", "12", "--output", "-", "--run", "-"),
        *("--missing", "skip"),
        *("--reranker", "served-name", "--strategy", "iterative", "--backend", "openai"),
    ]
    with server(an_answer) as url:
        environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "RAY_worker_niceness": "0"}
        alone, on_ray = (
            subprocess.run(
                [light_commands / "r1ranker", *arguments, *options],
                input=run,
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
                env=environment,
            )
            for options in (["--no-cache"], ["--no-cache", "--engine", "ray", "--workers", "2"])
        )
    assert on_ray.returncode == 0, on_ray.stderr
    assert on_ray.stdout == alone.stdout != ""
    said, expected = (re.sub(r"[\d.]+ seconds", "", done.stderr) for done in (on_ray, alone))
    assert said == expected
    assert [line.split(":")[0] for line in said.splitlines()[:2]] == ["WARNING"] * 2
    assert said.splitlines()[2].startswith("12 queries, 47 calls, ")
    assert not list(tmp_path.iterdir())
    wait_until(lambda: not [each for each in ray_processes() if each.pid not in known])


def test_without_ray_the_extra_is_named(bm25_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    named = ("--corpus", COLLECTION, "--run", bm25_run, "--output", tmp_path / "out", "--engine", "ray", "--workers", 2)
    said = r1ranker("rerank", "--reranker", "r1ranker-iterative-tiny", *named, code=1).stderr
    assert 'pip install "r1ranker-ir[ray]"' in said


@given(queries=st.integers(1, 10**7), count=st.integers(1, 3000))
def test_portions_hold_each_position_once_and_are_nearly_equal(queries, count):
    count = min(queries, count)
    portions = Portions(queries, count)
    bounds = [portions.bounds(number) for number in range(count)]
    assert bounds[0][0] == 0 and bounds[-1][1] == queries
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    lengths = [stop - start for start, stop in bounds]
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
