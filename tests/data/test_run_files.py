"""Runs read query by query: the same as reading them whole, in little memory, whatever the file looks like."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.data.long_runs import open_run
from r1ranker_ir.data.trec_runs import RunEntry, read_run
from r1ranker_ir.errors import DataFileError, InputError, R1RankerError

WORD = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=4)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Runs as others may write them: queries apart, ties, blank lines, other line ends, a byte order mark."""
    queries = draw(st.lists(WORD, min_size=1, max_size=4, unique=True))
    pairs = draw(st.lists(st.tuples(st.sampled_from(queries), WORD), max_size=25, unique=True))
    if draw(st.booleans()):
        pairs.sort(key=lambda pair: queries.index(pair[0]))
    lines = [
        f"{query_id} Q0 {doc_id} {draw(st.integers(1, 4))} {draw(st.sampled_from(['1', '2.5', '-3e2']))} t"
        for query_id, doc_id in pairs
    ]
    for place in draw(st.lists(st.integers(0, len(lines)), max_size=3)):
        lines.insert(place, draw(st.sampled_from(["", "  "])))
    text = "".join(line + draw(st.sampled_from(["\n", "\r\n"])) for line in lines)
    if draw(st.booleans()):
        text = text.rstrip("\r\n")
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text.encode()


@settings(deadline=None)
@given(content=files(), form=st.sampled_from(["plain", "gz", "stdin"]))
def test_a_query_gets_what_reading_the_whole_run_gives_it(
    content: bytes, form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / ("run.gz" if form == "gz" else "run")
    path.write_bytes(gzip.compress(content) if form == "gz" else content)
    whole = read_run(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        with open_run("-" if form == "stdin" else path) as run, ThreadPoolExecutor(3) as pool:
            assert list(run) == list(whole) and len(run) == len(whole)
            assert dict(run) == whole
            assert list(pool.map(run.__getitem__, whole)) == list(whole.values())
            assert [query_id in run for query_id in (*whole, "not there", 3)] == [True] * len(whole) + [False] * 2
            with pytest.raises(KeyError):
                run["not there"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "line",
    ["q Q0 e 2 1.0", "q Q0 e second 1.0 t", "q Q0 e 2 high t", "q Q0 e 2 nan t", "q Q0 d 2 1.0 t", "q Q0 \xe9 1 1 t"],
)
def test_malformed_lines_are_found_when_a_run_is_opened(tmp_path: Path, line: str, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    content = f"q Q0 d 1 3.0 t\n\n{line}\n".encode("latin-1")
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataFileError) as read:
        read_run(path)
    with pytest.raises(DataFileError) as opened:
        open_run(path)
    assert str(opened.value) == str(read.value)
    assert f"{path}:3: " in str(opened.value)


def test_what_can_not_be_opened_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"q Q0 d 1 3.0 t\n" * 2000)[:-20])
    (tmp_path / "apart").write_text("q Q0 a 1 3 t\nq Q0 b 2 2 t\n\nr Q0 a 1 3 t\nq Q0 c 3 1 t\nq Q0 b 4 0 t\n")
    for name, said in (
        ("none", "does not exist"),
        ("", "can't read run file"),
        ("broken.gz", "damaged gzip data"),
        ("apart", "apart:6: document 'b' occurs twice in query 'q'"),
    ):
        with pytest.raises(InputError, match=said):
            open_run(tmp_path / name)


def test_a_file_that_is_written_to_meanwhile_is_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q Q0 a 1 3 t\nr Q0 b 1 3 t\n")
    run = open_run(path)
    (tmp_path / "new").write_text("q Q0 other 1 3 t\n")
    os.replace(tmp_path / "new", path)
    # The earlier file is still there for whoever has it open.
    assert run["r"] == (RunEntry("b", 3.0),)

    run = open_run(path)
    with path.open("a") as file:
        file.write("q Q0 more 2 2 t\n")
    with pytest.raises(InputError, match=r"run file .* was changed while it was being read"):
        run["q"]
    run.close()
    with pytest.raises(InputError, match="is closed: open it again"):
        run["q"]


def test_unpacked_runs_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = tmp_path / "run.gz", tmp_path / "temporary"
    path.write_bytes(gzip.compress(b"q Q0 a 1 3 t\n"))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    run = open_run(path)
    assert run["q"] == (RunEntry("a", 3.0),)
    # On POSIX it has no name from the beginning, so that a killed process leaves nothing either.
    assert os.name != "posix" or list(folder.iterdir()) == []
    del run
    folder.rmdir()
    with pytest.raises(R1RankerError, match=r"can't unpack .* into a temporary file .*TMPDIR"):
        open_run(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_no_room_to_unpack_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "run.gz"
    path.write_bytes(gzip.compress(b"".join(b"q%d Q0 d 1 3.0 t\n" % number for number in range(20000))))
    script = (
        "import resource, sys; from r1ranker_ir.data.long_runs import open_run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); open_run(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "StorageError: can't unpack" in done.stderr
    assert "(File too large): make room" in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_a_run_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit((tmp_path / "pipe").write_text, "q Q0 a 1 3 t\nr Q0 a 1 3 t\n")
        assert list(open_run(tmp_path / "pipe")) == ["q", "r"]
        assert written.result()
