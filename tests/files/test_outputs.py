"""Outputs: they replace no input, no pipe and nothing that was finished, and no two runs write the same file."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, r1ranker
from commands import tree as contents
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.cache.completions import open_cache
from r1ranker_ir.data.trec_runs import RunEntry, RunWriter, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.shootouts.entries import FIRST_STAGE, run_file
from r1ranker_ir.files.locks import folder_lock, output_lock
from r1ranker_ir.files.partial import PartialFile, growing_file, whole_file, write_whole
from r1ranker_ir.files.paths import NamedFile, check_outputs
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.types import Answer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes are POSIX's")

SUITE = """
title = "One of my own"
[datasets.own]
corpus = "corpus"
"""
SUITE_OPTIONS = (*"--reranker r1ranker-iterative-tiny --depth 2 --queries 2 --output out --first-stage bm25s".split(),)
RERANK = (*"--reranker r1ranker-iterative-tiny --depth 3 --queries 2 --quiet".split(),)


@pytest.fixture
def place(tmp_path: Path, bm25_run: Path) -> Path:
    """A folder with a corpus of its own, its BM25 run, and other files that commands read."""
    shutil.copytree(COLLECTION, tmp_path / "corpus")
    shutil.copy(bm25_run, tmp_path / "bm25.trec")
    return tmp_path


# --- an output is no input ------------------------------------------------------------------------------------------


def other_name(path: Path, way: str) -> Path:
    """Another name of a file."""
    if way == "way/..":
        (path.parent / "way").mkdir()
        return path.parent / way / path.name
    if way == "folder":
        (path.parent / way).symlink_to(".", target_is_directory=True)
        return path.parent / way / path.name
    if way == "link":
        (path.parent / way).symlink_to(path.name)
    elif way == "hard":
        os.link(path, path.parent / way)
    return path.parent / (way or path.name)


# Each way and each file with either option.
@pytest.mark.parametrize(
    ("option", "read", "way"),
    [
        ("--output", "bm25.trec", "way/.."),
        ("--output", "corpus/corpus.jsonl", "link"),
        ("--output", "corpus/queries.jsonl", "hard"),
        ("--output", "corpus/qrels/test.tsv", "folder"),
        ("--output", "own.toml", ""),
        ("--output", "c.sqlite", "hard"),
        ("--save-traces", "bm25.trec", "folder"),
        ("--save-traces", "corpus/corpus.jsonl", ""),
        ("--save-traces", "corpus/queries.jsonl", "way/.."),
        ("--save-traces", "corpus/qrels/test.tsv", "hard"),
        ("--save-traces", "own.toml", "link"),
        ("--save-traces", "c.sqlite", "link"),
    ],
)
def test_rerank_writes_over_nothing_that_it_reads(place: Path, way: str, option: str, read: str) -> None:
    (place / "own.toml").write_bytes((resources.files("r1ranker_ir.prompts") / "default.toml").read_bytes())
    open_cache(place / "c.sqlite").close()
    outputs = {
        "--output": place / "out.trec",
        "--save-traces": place / "out.jsonl",
        option: other_name(place / read, way),
    }
    before = contents(place)
    result = r1ranker(
        *("rerank", "--corpus", place / "corpus", "--run", place / "bm25.trec", *RERANK),
        *("--template", place / "own.toml", "--cache", place / "c.sqlite"),
        *(word for named in outputs.items() for word in named),
        code=1,
    )
    assert re.search(rf"Error: {option} '.*' is the same file as --\w+ '.*', which would be lost", result.stderr)
    assert contents(place) == before


def test_a_run_is_not_read_where_the_new_one_grows(place: Path) -> None:
    partial = (place / "bm25.trec").rename(place / "new.trec.partial")
    before = contents(place)
    words = ("rerank", "--corpus", place / "corpus", "--run", partial, "--output", place / "new.trec", *RERANK)
    said = r1ranker(*words, code=1).stderr
    assert "--output" in said and "grows as" in said
    assert contents(place) == before


@pytest.mark.parametrize("number", [1, 12])
def test_what_an_earlier_run_left_is_not_removed_while_it_is_read(place: Path, number: int) -> None:
    left = place / f"new.trec.partial.{number}"
    (place / "bm25.trec").rename(left)
    (place / "other").symlink_to(left.name)
    before = contents(place)
    for read in (left, place / "other"):
        words = ("search", "--corpus", place / "corpus", "--first-stage", f"run:{read}")
        result = r1ranker(*words, "--output", place / "new.trec", code=1)
        assert "is what an earlier run to --output" in result.stderr
        assert contents(place) == before
    r1ranker(*words, "--output", place / "newer.trec")


@pytest.mark.parametrize(
    ("run", "trace"), [("x", "x"), ("x", "x.partial"), ("x.partial", "x"), ("x", "./x"), ("-", "-")]
)
def test_run_and_trace_are_two_files(place: Path, monkeypatch: pytest.MonkeyPatch, run: str, trace: str) -> None:
    monkeypatch.chdir(place)
    before = contents(place)
    arguments = ("rerank", "--corpus", "corpus", "--run", "bm25.trec", "--output", run, "--save-traces", trace, *RERANK)
    assert "are written to the same file" in r1ranker(*arguments, code=1).stderr
    assert contents(place) == before


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["search", "--corpus", "corpus"], "corpus/queries.jsonl"),
        (["search", "--corpus", "corpus", "--first-stage", "run:bm25.trec", "--depth", "1"], "bm25.trec"),
        (["data", "--corpus", "corpus", "--run", "bm25.trec"], "bm25.trec"),
        (["data", "--corpus", "corpus", "--run", "bm25.trec"], "corpus/corpus.jsonl"),
        (["data", "--requests", "asked.jsonl", "--as-given"], "asked.jsonl"),
        (["data", "passages", "--corpus", "corpus", "--run", "bm25.trec"], "corpus/corpus.jsonl"),
        (["data", "passages", "--corpus", "corpus", "--run", "bm25.trec"], "bm25.trec"),
        (["data", "answers", "--samples", "samples.parquet"], "samples.parquet"),
        (["data", "--traces", "trace.jsonl", "--corpus", "corpus"], "trace.jsonl"),
        (["data", "recommendation", "--source", "ml"], "ml/ratings.dat"),
        (["data", "recommendation", "--source", "ml/ratings.dat"], "ml/movies.dat"),
        (["data", "routing", "--source", "routes.csv"], "routes.csv"),
        (["data", "routing", "--source", "routes.csv"], "llms.json"),
        (["train", "curves", "trained"], "trained/trainer_state.json"),
        (["train", "compare", "trained"], "trained/training_run.json"),
    ],
)
def test_no_command_writes_over_what_it_reads(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], output: str
) -> None:
    monkeypatch.chdir(place)
    (place / "ml").mkdir()
    (place / "trained").mkdir()
    others = ("ml/ratings.dat", "ml/movies.dat", "routes.csv", "llms.json")
    for name in (*others, "trained/trainer_state.json", "trained/training_run.json", "asked.jsonl", "samples.parquet"):
        (place / name).write_text("{}\n")
    (place / "trace.jsonl").write_text("{}\n")
    before = contents(place)
    assert "is the same file as" in r1ranker(*command, "--output", output, code=1).stderr
    assert contents(place) == before


def test_a_shootout_does_not_take_its_run_from_its_own_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "out" / "runs").mkdir(parents=True)
    run = (place / "bm25.trec").rename(place / "out" / "runs" / run_file(FIRST_STAGE))
    before = contents(place)
    arguments = ("shootout", "--corpus", "corpus", "--run", run, "--rerankers", "oracle", "--depth", "2")
    assert "is the same file as --run" in r1ranker(*arguments, "--output", "out", code=1).stderr
    assert contents(place) == before


@pytest.fixture
def suite(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a suite on the corpus, with the place as the working folder; gives what it says."""
    monkeypatch.chdir(place)
    (place / "mine.toml").write_text(SUITE)
    return lambda *options, code=0: r1ranker("suite", "mine.toml", *SUITE_OPTIONS, *options, code=code).stderr


def test_a_suite_reads_nothing_from_the_folder_that_it_writes(place: Path, suite: Callable[..., str]) -> None:
    (place / "out" / "own").mkdir(parents=True)
    (place / "bm25.trec").rename(place / "out" / "own" / "bm25.trec")
    template = (resources.files("r1ranker_ir.prompts") / "default.toml").read_bytes()
    (place / "out" / "own.toml").write_bytes(template)
    before = contents(place)
    for option, read in (("--first-stage", "run:out/own/bm25.trec"), ("--template", "out/own.toml")):
        said = suite(option, read, "--overwrite", code=1)
        assert f"{option} '{read.removeprefix('run:')}' lies in folder 'out', whose files are written" in said
        assert contents(place) == before


def test_a_suite_does_not_write_over_its_cache(place: Path, suite: Callable[..., str]) -> None:
    for cache in ("README.md", "manifest.json", "own/reranked.trec", "own/c.sqlite", "measures.json"):
        said = suite("--cache", f"out/{cache}", code=1)
        assert "choose another --output" in said and "--cache" in said
        assert not (place / "out").exists()
    suite("--cache", "out/c.sqlite")
    suite("--cache", "out/c.sqlite")


def test_a_suite_overwrites_nothing_that_no_suite_wrote(place: Path, suite: Callable[..., str]) -> None:
    (place / "out").mkdir()
    for name in ("README.md", "manifest.json", "measures.json"):
        (place / "out" / name).write_text("# My project\n")
        assert "is of no suite" in suite("--overwrite", code=1)
        assert (place / "out" / name).read_text() == "# My project\n"
        (place / "out" / name).unlink()


def test_two_suites_do_not_share_a_folder(place: Path, suite: Callable[..., str]) -> None:
    with folder_lock(place / "out", "--output"):
        assert "is being written by another run" in suite(code=1)
    suite("--save-traces")
    assert {path.name for path in (place / "out").iterdir()} == {"README.md", "manifest.json", "measures.json", "own"}
    assert mode_of(place / "out" / "own" / "traces.jsonl") == 0o600
    assert mode_of(place / "out") == mode_of(place / "out" / "own") == 0o700


def test_a_suite_removes_only_what_lies_in_its_folder(place: Path, suite: Callable[..., str]) -> None:
    (place / "out").mkdir()
    (place / "out" / "linked").symlink_to(place / "corpus", target_is_directory=True)
    names = ("linked/corpus.jsonl", "../bm25.trec", str(place / "bm25.trec"), "old.trec")
    (place / "out" / "old.trec").touch()
    (place / "out" / "manifest.json").write_text(json.dumps({"command": ["x"], "files": dict.fromkeys(names, "")}))
    before = contents(place / "corpus"), (place / "bm25.trec").read_bytes()
    suite("--overwrite")
    assert (contents(place / "corpus"), (place / "bm25.trec").read_bytes()) == before
    assert not (place / "out" / "old.trec").exists()


def test_standard_output_that_goes_to_an_input_is_refused(place: Path, light_commands: Path) -> None:
    run = place / "bm25.trec"
    before = run.read_bytes()
    words = ["search", "--corpus", "corpus", "--output", "-", "--first-stage", f"run:{run}"]
    with run.open("ab") as appended:
        command = [light_commands / "r1ranker", *words]
        done = subprocess.run(command, cwd=place, stdout=appended, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "is the same file as --first-stage" in done.stderr
    assert run.read_bytes() == before


def test_streams_may_be_the_same() -> None:
    check_outputs([NamedFile("--output", "/dev/null"), NamedFile("--save-traces", "/dev/null")], [])
    check_outputs([NamedFile("--output", "-")], [NamedFile("--run", "-"), NamedFile("--template", None)])


# --- pipes and devices stay what they are ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pipe", "pipe.gz"])
def test_a_pipe_gets_the_run_and_stays_a_pipe(tmp_path: Path, name: str) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_run({"q": (RunEntry("a", 1.0),), "r": (RunEntry("b", 1.0),)}, pipe, tag="t")
    reader.join()
    content = gzip.decompress(got[0]) if name.endswith(".gz") else got[0]
    assert content == b"q Q0 a 1 1 t\nr Q0 b 1 1 t\n"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("output", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
def test_names_of_standard_output_are_standard_output(place: Path, light_commands: Path, output: str) -> None:
    if not Path(output).exists() and output != "-":
        pytest.skip(f"this system has no {output}")
    command = [light_commands / "r1ranker", "search", "--corpus", "corpus", "--quiet", "--output", output]
    piped = subprocess.run(command, cwd=place, capture_output=True)
    assert piped.stdout == (place / "bm25.trec").read_bytes(), piped.stderr
    with (place / "said").open("ab") as said:
        said.write(b"before\n")
        said.flush()
        assert subprocess.run(command, cwd=place, stdout=said).returncode == 0
    # Opened by its name, the file behind it would have been emptied.
    assert (place / "said").read_bytes() == b"before\n" + (place / "bm25.trec").read_bytes()


def test_traces_and_requests_go_to_pipes_too(place: Path, light_commands: Path) -> None:
    command = [light_commands / "r1ranker", "rerank", "--corpus", "corpus", "--run", "bm25.trec", *RERANK]
    command += ["--output", "out", "--save-traces", "-"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert [json.loads(line)["query_id"] for line in done.stdout.splitlines()] == list(read_run(place / "out"))
    request = {"context": "q", "candidates": [{"text": "a", "gain": 1}, {"text": "b"}]}
    (place / "asked.jsonl").write_text(json.dumps(request) + "\n")
    words = "data --requests asked.jsonl --as-given --strategy direct --output /dev/stdout"
    samples = subprocess.run([light_commands / "r1ranker", *words.split()], cwd=place, capture_output=True)
    assert samples.stdout.startswith(b"PAR1"), samples.stderr


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["out", "out.partial", "out.partial.1", ".out.lock"])
@pytest.mark.parametrize("link", ["dangling", "symbolic", "hard"])
def test_nothing_is_written_through_a_planted_link(tmp_path: Path, planted: str, link: str) -> None:
    victim = tmp_path / "victim"
    dangling = link == "dangling"
    if not dangling:
        victim.write_text("precious")
    if link == "hard":
        os.link(victim, tmp_path / planted)
    else:
        (tmp_path / planted).symlink_to("victim")
    run = {"q": (RunEntry("a", 1.0),)}
    try:
        write_run(run, tmp_path / "out")
    except InputError:
        assert planted == ".out.lock"
    else:
        assert read_run(tmp_path / "out") == run
        assert not (tmp_path / "out").is_symlink()
    assert victim.exists() is not dangling
    assert dangling or victim.read_text() == "precious"


def test_whole_files_replace_links_and_failures_leave_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a").symlink_to("victim")
    write_whole(tmp_path / "a", "new\u2028\n")
    earlier = {"victim": b"precious", "a": "new\u2028\n".encode()}
    assert contents(tmp_path) == earlier
    for opened in (whole_file(tmp_path / "a"), growing_file(tmp_path / "a", "--output")):
        with pytest.raises(RuntimeError), opened as path:
            path.write_text("half")
            raise RuntimeError
    assert contents(tmp_path) == earlier


# --- locks ----------------------------------------------------------------------------------------------------------


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    output = tmp_path / "run.trec"
    (tmp_path / "linked").symlink_to(".", target_is_directory=True)
    with RunWriter(output) as first:
        first.write("q", [RunEntry("a", 1.0)])
        for name in (output, tmp_path / "linked" / "run.trec"):
            with pytest.raises(InputError, match=r"is being written by another run, which holds the lock .*\.lock'"):
                RunWriter(name).__enter__()
        first.write("r", [RunEntry("a", 1.0)])
    assert list(read_run(output)) == ["q", "r"]
    write_run({"s": (RunEntry("a", 1.0),)}, output)
    assert {path.name for path in tmp_path.iterdir()} == {"run.trec", "linked"}


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    output = tmp_path / "run.trec"
    script = (
        "import sys; from r1ranker_ir.data.trec_runs import *\n"
        "with RunWriter(sys.argv[1]) as writer:\n"
        "    writer.write('q', [RunEntry('a', 1.0)]); print('there', flush=True); sys.stdin.read()"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, output], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        with pytest.raises(InputError, match="another run, which holds the lock"):
            write_run({"r": (RunEntry("b", 1.0),)}, output)
        other.send_signal(signal.SIGKILL)
        other.wait()
    write_run({"q": (RunEntry("a", 1.0),), "r": (RunEntry("b", 1.0),)}, output)
    assert list(read_run(output)) == ["q", "r"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]


@pytest.mark.parametrize("held", ["out", "trace"])
def test_a_rerank_that_can_not_have_its_outputs_loads_no_model(place: Path, held: str) -> None:
    with output_lock(place / held, "--output"):
        said = r1ranker(
            *("rerank", "--corpus", place / "corpus", "--run", place / "bm25.trec", *RERANK),
            *("--reranker", "r1ranker-iterative", "--model", "/none/model"),
            *("--output", place / "out", "--save-traces", place / "trace"),
            code=1,
        ).stderr
    assert f"'{place / held}' is being written by another run, which holds the lock " in said


def test_a_lock_makes_no_folder(tmp_path: Path) -> None:
    for opened in (output_lock(tmp_path / "no" / "x", "--output"), growing_file(tmp_path / "no" / "x", "--output")):
        with pytest.raises(InputError, match="does not exist: create it first, or choose another --output"), opened:
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_one_commands(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with folder_lock(folder, "--output"):
        with pytest.raises(InputError, match="is being written by another run"), folder_lock(folder, "--output"):
            pass
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]
    with folder_lock(tmp_path / "empty", "--output"), output_lock(tmp_path / "file", "--output"):
        pass
    assert not (tmp_path / "empty").exists()


# --- finished work stays --------------------------------------------------------------------------------------------


def lines_of(*queries: str) -> str:
    return "".join(f"{query} Q0 a 1 1 r1ranker\n" for query in queries)


def write_queries(path: Path, *queries: str, stop: bool = False) -> None:
    with RunWriter(path) as writer:
        for query in queries:
            writer.write(query, [RunEntry("a", 1.0)])
        if stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_was_finished_is_kept_until_a_whole_file_holds_it(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / f"run{suffix}"
    # Lines may stand between those of the first; in another order they are other lines.
    for queries in ("bd", "abd", "", "da"):
        with pytest.raises(KeyboardInterrupt):
            write_queries(output, *queries, stop=True)
    kept = {path.name: "".join(read_run(path)) for path in tmp_path.iterdir()}
    assert sorted(kept.values()) == ["abd", "bd", "da"] and f"run{suffix}.partial" in kept
    write_queries(output, *"abcd")
    assert sorted("".join(read_run(path)) for path in tmp_path.iterdir()) == ["abcd", "da"]
    assert ", of a run that was stopped, holds other lines than " in caplog.text


def in_order(wanted: list[str], lines: list[str]) -> bool:
    rest = iter(lines)
    return all(line in rest for line in wanted)


@given(st.lists(st.lists(st.sampled_from("abcde"), unique=True, max_size=4), min_size=1, max_size=6), st.data())
def test_no_line_that_was_written_is_ever_lost(tmp_path_factory: Any, attempts: list[list[str]], data: Any) -> None:
    output = tmp_path_factory.mktemp("runs") / "run"
    for queries in attempts:
        stop = data.draw(st.booleans())
        try:
            write_queries(output, *queries, stop=stop)
        except KeyboardInterrupt:
            assert stop
        kept = [path.read_text().splitlines() for path in output.parent.iterdir()]
        assert not queries or any(in_order(lines_of(*queries).splitlines(), content) for content in kept)
        if not stop:
            assert output.read_text() == lines_of(*queries)


def test_a_finished_output_is_replaced_with_a_word(place: Path) -> None:
    arguments = ("search", "--corpus", place / "corpus", "--output", place / "bm25.trec")
    said = f"{place / 'bm25.trec'} exists already: it is replaced when the new one is whole"
    assert said in r1ranker(*arguments).stderr
    assert said not in r1ranker(*arguments, "--quiet").stderr
    kept = ("rerank", "--corpus", place / "corpus", "--run", place / "bm25.trec", *RERANK)
    refused = r1ranker(*kept, "--output", place / "bm25.trec", code=1).stderr
    assert "which would be lost" in refused and said not in refused


# --- private text ---------------------------------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_mask() -> Any:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_mask")
def test_caches_and_traces_are_for_their_owner_alone(place: Path) -> None:
    shared = place / "shared"
    shared.mkdir(0o777)
    cache = shared / "new" / "deep" / "c.sqlite"
    with open_cache(cache) as opened:
        opened.store({bytes(32): Answer("<answer>[1]</answer>")}, model="m")
        assert {path.name for path in cache.parent.iterdir()} >= {"c.sqlite"}
        assert {mode_of(path) for path in cache.parent.iterdir()} == {0o600}
    assert (mode_of(shared), mode_of(cache.parent.parent), mode_of(cache.parent)) == (0o777, 0o700, 0o700)
    arguments = ("rerank", "--corpus", place / "corpus", "--run", place / "bm25.trec", *RERANK, "--cache", cache)
    r1ranker(*arguments, "--output", place / "out", "--save-traces", place / "trace.jsonl")
    assert mode_of(place / "trace.jsonl") == 0o600
    assert mode_of(place / "out") == 0o666
    assert {mode_of(path) for path in cache.parent.iterdir()} == {0o600}
    # A file that was there is shared on purpose by those who may write it; who can only read it can't use it.
    for before, after in ((0o660, 0o660), (0o666, 0o666), (0o644, 0o600), (0o640, 0o600), (0o664, 0o660)):
        cache.chmod(before)
        open_cache(cache).close()
        assert mode_of(cache) == after


@pytest.mark.usefixtures("open_mask")
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_trace_is_private_while_it_grows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace.jsonl{suffix}"
    path.write_text("an earlier one")
    path.chmod(0o644)
    with TraceWriter(path, "iterative"):
        assert mode_of(Path(f"{path}.partial")) == 0o600
    assert mode_of(path) == 0o600
    assert list(read_trace(path)) == []
    with PartialFile(tmp_path / "run", "--output"):
        assert mode_of(tmp_path / "run.partial") == 0o666


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "folder"])
def test_a_cache_is_an_ordinary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert "can't be used: it is " in r1ranker("cache", "info", "--cache", path, code=1).stderr
