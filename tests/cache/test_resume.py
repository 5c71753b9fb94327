"""A run that is killed at any moment goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, r1ranker

from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT

QUERIES, DEPTH, BATCH = 7, 4, 3
CALLS = QUERIES * (DEPTH - 1)

# Loads the libraries once; each command is then a process of its own, forked off before anything is computed. What it
# does is counted in moments: an SQL statement begins, a batch begins, a batch has ended. At a given one it is killed.
SERVER = """
import json, os, signal, sqlite3, sys
import torch, transformers.models.llama.modeling_llama
from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.cli.app import app

torch.set_num_threads(1)
decode, connect = TransformersBackend._decode, sqlite3.connect
log, deadly, moments = "", 0, 0

def note(what):
    with open(log, "a") as file:
        file.write(what + "\\n")

def moment(statement=None):
    global moments
    moments += 1
    if moments == deadly:
        os.kill(os.getpid(), signal.SIGKILL)

def counted_decode(self, rows):
    moment()
    note(f"calls {len(rows)}")
    decode(self, rows)
    moment()

def watched_connect(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(moment)
    return connection

TransformersBackend._decode, sqlite3.connect = counted_decode, watched_connect
print("ready", flush=True)
for line in sys.stdin:
    children = []
    for order in json.loads(line):  # all at once
        if not (child := os.fork()):
            break
        children.append(child)
    else:
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]), flush=True)
        continue
    output = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    log, deadly, status = order["log"], order["deadly"], 99
    try:
        app(order["arguments"])
    except SystemExit as end:
        status = end.code or 0
    note(f"moments {moments}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
"""


class Reranking:
    """Runs the same command again and again, in a folder of its own each time that it is asked for a new one."""

    def __init__(self, server: subprocess.Popen[str], run: Path, folder: Path) -> None:
        self.run = run
        self._server, self._folder = server, folder
        self._numbers = itertools.count()

    def place(self) -> Path:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        (folder / "log").touch()
        return folder

    def __call__(self, folder: Path, *options: str, deadly: int = 0, cache: Path | None = Path("cache.sqlite")) -> int:
        """The exit code, -9 where it was killed; the cache is in the folder unless told otherwise."""
        return self._run([self._order(folder, options, cache, deadly)])[0]

    def together(self, runs: list[tuple[Path, tuple[str, ...]]], cache: Path) -> list[int]:
        """The exit codes of runs, each with its folder and options, that go on at the same time on one cache."""
        return self._run([self._order(folder, options, cache) for folder, options in runs])

    def _order(self, folder: Path, options: tuple[str, ...], cache: Path | None, deadly: int = 0) -> dict[str, object]:
        arguments: list[object] = ["rerank", "--corpus", COLLECTION, "--run", self.run]
        arguments += ["--reranker", "r1ranker-iterative-tiny"]
        arguments += ["--depth", DEPTH, "--batch-size", BATCH, "--max-thought-tokens", 3, "--device", "cpu"]
        arguments += ["--output", folder / "run.trec", "--save-traces", folder / "trace.jsonl"]
        arguments += [] if cache is None else ["--cache", folder / cache]
        arguments += ["--queries", QUERIES, *options]  # the last of each option counts
        order: dict[str, object] = {"said": str(folder / "said"), "log": str(folder / "log"), "deadly": deadly}
        return {**order, "arguments": list(map(str, arguments))}

    def _run(self, orders: list[dict[str, object]]) -> list[int]:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(orders) + "\n")
        self._server.stdin.flush()
        codes: list[int] = json.loads(self._server.stdout.readline())
        return codes


def said(folder: Path) -> str:
    return (folder / "said").read_text()


def logged(folder: Path, what: str) -> int:
    """The sum of what all processes of this folder have noted under a name."""
    notes = [line.split() for line in (folder / "log").read_text().splitlines()]
    return sum(int(number) for name, number in notes if name == what)


def files_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "run.trec").read_bytes(), (folder / "trace.jsonl").read_bytes()


def assert_same_but_last_digits(folder: Path, reference: Path) -> None:
    """The same run, and the same traces but for the last digits of probabilities: kept keys and values are gone with
    the process that had them, and what is computed in one go rounds otherwise."""
    (run, trace), (expected, whole) = files_of(folder), files_of(reference)
    assert run == expected
    for ours, theirs in zip(map(json.loads, trace.splitlines()), map(json.loads, whole.splitlines()), strict=True):
        for step, another in zip(ours["steps"], theirs["steps"], strict=True):
            assert step.pop("probabilities") == pytest.approx(another.pop("probabilities"), abs=1e-6)
        assert ours == theirs


@pytest.fixture(scope="module")
def reranking(tmp_path_factory: pytest.TempPathFactory, bm25_run: Path) -> Iterator[Reranking]:
    folder = tmp_path_factory.mktemp("resume")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield Reranking(server, bm25_run, folder)
        server.kill()


@pytest.fixture(scope="module")
def uninterrupted(reranking: Reranking) -> Path:
    """What comes out when nothing happens."""
    folder = reranking.place()
    assert reranking(folder) == 0, said(folder)
    assert logged(folder, "calls") == CALLS
    assert f"{QUERIES} queries, {CALLS} calls, " in said(folder)
    assert "cached" not in said(folder)
    return folder


def test_killed_at_random_it_ends_as_if_nothing_had_happened(reranking: Reranking, uninterrupted: Path) -> None:
    moments = logged(uninterrupted, "moments")
    chance = random.Random(4)
    nothing_kept = ("--cache-memory", "0")
    reference = reranking.place()
    assert reranking(reference, *nothing_kept) == 0
    folder, kills, in_folder = reranking.place(), 0, 0
    for _ in range(60):
        code = reranking(folder, *nothing_kept, deadly=chance.randint(1, moments))
        assert code in (0, -signal.SIGKILL), said(folder)
        killed = code != 0
        kills, in_folder = kills + killed, in_folder + killed
        # No more than what was under way was lost, each time.
        assert logged(folder, "calls") <= CALLS + in_folder * BATCH
        if not killed:
            assert files_of(folder) == files_of(reference)
            assert not (folder / "run.trec.partial").exists()
            assert rows(folder / "cache.sqlite", "SELECT count(*) FROM answers") == [(CALLS,)]
            assert rows(folder / "cache.sqlite", "PRAGMA integrity_check") == [("ok",)]
            if kills >= 8:
                return
            folder, in_folder = reranking.place(), 0
    pytest.fail(f"{kills} kills and no end in 60 attempts")


def rows(path: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_what_was_finished_is_kept_and_the_next_run_says_where_it_goes_on(
    reranking: Reranking, uninterrupted: Path
) -> None:
    folder = reranking.place()
    assert reranking(folder, deadly=logged(uninterrupted, "moments") * 3 // 4) == -signal.SIGKILL
    partial = (folder / "run.trec.partial").read_bytes()
    assert partial and files_of(uninterrupted)[0].startswith(partial)
    done = logged(folder, "calls") - BATCH

    assert reranking(folder) == 0
    cached = int(said(folder).partition(" of them cached")[0].rpartition(" ")[2])
    assert done <= cached < CALLS
    assert f"{QUERIES} queries, {CALLS} calls, {cached} of them cached, " in said(folder)
    assert "run.trec.partial is of a run that was stopped: it is begun again" in said(folder)
    assert_same_but_last_digits(folder, uninterrupted)
    written, made = files_of(folder), logged(folder, "calls")

    # A third time there is nothing left to do, whatever the batch size, and the trace has the same figures.
    assert reranking(folder, "--batch-size", "5") == 0
    assert f"{CALLS} calls, {CALLS} of them cached" in said(folder)
    assert (files_of(folder), logged(folder, "calls")) == (written, made)


def test_a_full_disk_under_the_cache_keeps_what_was_finished(
    reranking: Reranking, uninterrupted: Path, small_disk: Path
) -> None:
    folder, cache, filler = reranking.place(), small_disk / "cache.sqlite", small_disk / "filler"
    assert reranking(folder, "--queries", str(BATCH), cache=cache) == 0
    # What is left is enough to open the cache, and not for the answers that are still missing.
    disk = os.statvfs(small_disk)
    filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - 60_000))
    assert reranking(folder, cache=cache) == 1, said(folder)
    assert f"Error: the cache '{cache}' can't be written (database or disk is full): free some room" in said(folder)
    assert "Traceback" not in said(folder)
    kept, whole = read_run(folder / "run.trec.partial"), read_run(uninterrupted / "run.trec")
    assert len(kept) >= BATCH
    assert kept == dict(list(whole.items())[: len(kept)])

    filler.unlink()
    assert reranking(folder, cache=cache) == 0, said(folder)
    assert read_run(folder / "run.trec") == whole
    assert logged(folder, "calls") <= CALLS + BATCH


def test_the_verbs_show_and_empty_the_cache(uninterrupted: Path, own_cache: Path) -> None:
    for verb in ("info", "clear"):
        assert r1ranker("cache", verb).output == f"there is no cache at {own_cache} yet\n"
    assert not own_cache.exists()

    cache = uninterrupted / "cache.sqlite"
    shown = r1ranker("cache", "info", "--cache", cache).output
    assert f"path     {cache}\nformat   1\nanswers  {CALLS}\n" in shown
    assert " of at most 2.0 GiB\n" in shown
    assert f"{CALLS} of {TINY_CHECKPOINT} " in shown
    own_cache.write_bytes(cache.read_bytes())
    left = f"left in {own_cache}\n"
    clear = ("cache", "clear")
    assert r1ranker(*clear, "--model", "r1ranker-direct").output == f"0 answers removed, {CALLS} {left}"
    assert r1ranker(*clear, "--model", "r1ranker-direct-tiny").output == f"{CALLS} answers removed, 0 {left}"
    own_cache.write_bytes(cache.read_bytes())
    assert r1ranker(*clear).output == f"{CALLS} answers removed, 0 {left}"


def test_without_a_cache_nothing_is_kept(reranking: Reranking, own_cache: Path) -> None:
    folder = reranking.place()
    assert reranking(folder, "--queries", "2", "--no-cache", cache=None) == 0, said(folder)
    assert logged(folder, "calls") == 2 * (DEPTH - 1)
    assert sorted(path.name for path in folder.iterdir()) == ["log", "run.trec", "said", "trace.jsonl"]
    assert not own_cache.exists()


def test_runs_at_once_share_a_cache(reranking: Reranking, uninterrupted: Path, tmp_path: Path) -> None:
    """Each in a process of its own: all end as one alone, and each asks no call twice."""
    cache, expected = tmp_path / "cache.sqlite", read_run(uninterrupted / "run.trec")
    places = {reranking.place(): number for number in (QUERIES, QUERIES, 4)}
    options = [("--queries", str(number)) for number in places.values()]
    assert reranking.together(list(zip(places, options, strict=True)), cache) == [0, 0, 0]
    for folder, number in places.items():
        assert read_run(folder / "run.trec") == dict(list(expected.items())[:number])
        assert logged(folder, "calls") <= number * (DEPTH - 1)
    assert rows(cache, "SELECT count(*) FROM answers") == [(CALLS,)]
    assert rows(cache, "PRAGMA integrity_check") == [("ok",)]


def test_caches_that_can_not_be_used_stop_before_the_model_is_loaded(tmp_path: Path, bm25_run: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a cache" * 100)
    common = ("rerank", "--corpus", COLLECTION, "--run", bm25_run, "--output", tmp_path / "run.trec")
    common = (*common, "--reranker", "r1ranker-iterative-tiny", "--cache")
    told = r1ranker(*common, tmp_path / "notes.txt", code=1).output
    assert f"Error: the cache '{tmp_path}/notes.txt' is damaged, or not a cache" in told
    told = r1ranker(*common, tmp_path / "c.sqlite", "--no-cache", code=2).output
    assert "choose one of --cache and --no-cache" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]
