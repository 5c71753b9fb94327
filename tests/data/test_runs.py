"""TREC runs: what is written is what is read, malformed lines are named, and a failure loses nothing."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.trec_runs import Run, RunEntry, RunWriter, read_run, write_run
from r1ranker_ir.errors import DataFileError, InputError, StorageError

WORD = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=8)
SCORE = st.floats(min_value=-(2.0**100), max_value=2.0**100, width=32)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, tuple[RunEntry, ...]]:
    """Runs with one to three queries, scores falling with many ties."""
    run = {}
    for query_id in draw(st.lists(WORD, min_size=1, max_size=3, unique=True)):
        doc_ids = draw(st.lists(WORD, min_size=1, max_size=8, unique=True))
        pool = draw(st.lists(SCORE, min_size=1, max_size=4))
        scores = sorted((draw(st.sampled_from(pool)) for _ in doc_ids), reverse=True)
        run[query_id] = tuple(map(RunEntry, doc_ids, scores))
    return run


def order_of(run: Run) -> dict[str, list[str]]:
    return {query_id: [entry.doc_id for entry in entries] for query_id, entries in run.items()}


@given(run=runs(), suffix=st.sampled_from(["", ".gz"]))
def test_writing_and_reading_keeps_queries_order_and_scores(
    run: Run, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / f"run.trec{suffix}"
    write_run(run, path)
    read = read_run(path)
    assert list(read) == list(run)
    assert order_of(read) == order_of(run)
    for query_id, entries in run.items():
        scores = [np.float32(entry.score) for entry in read[query_id]]
        assert all(above > below for above, below in itertools.pairwise(scores))
        if len({entry.score for entry in entries}) == len(entries):
            assert scores == [np.float32(entry.score) for entry in entries]
    write_run(read, path)
    assert read_run(path) == read


def test_a_written_run_looks_like_trec(tmp_path: Path) -> None:
    write_run({"q": (RunEntry("a", 2.5), RunEntry("b", 2.5), RunEntry("c", -1.0))}, tmp_path / "run", tag="bm25")

    lines = ["q Q0 a 1 2.5 bm25", "q Q0 b 2 2.49999976 bm25", "q Q0 c 3 -1 bm25"]
    assert (tmp_path / "run").read_text().splitlines() == lines


@pytest.mark.parametrize("score", [lambda place: 1 - place / 1000, lambda place: 7.25, lambda place: 0.0])
def test_trec_eval_keeps_the_order_of_a_thousand_documents(tmp_path: Path, score: Callable[[int], float]) -> None:
    doc_ids = [f"d{place}" for place in range(1000)]
    write_run({"q": tuple(RunEntry(doc_id, score(place)) for place, doc_id in enumerate(doc_ids))}, tmp_path / "run")
    with (tmp_path / "run").open() as file:
        run = pytrec_eval.parse_run(file)

    for place in (0, 1, 499, 998, 999):
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {doc_ids[place]: 1}}, {"recip_rank"})
        assert evaluator.evaluate(run)["q"]["recip_rank"] == pytest.approx(1 / (place + 1))


def test_documents_are_ordered_by_score_then_rank_then_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text(
        "q2 Q0 low 1 0.5 t\n"
        "q1 Q0 only 1 1 t\n"
        "\n"
        "q2\tQ0\ttied-b\t3\t1.0\tt\n"
        "q2 Q0 tied-a 2 1.0 t\n"
        "q2 Q0 same-rank-first 4 1e0 t\n"
        "q2 Q0 same-rank-second 4 1 t\n"
        "q2 Q0 top 9 2 t\n"
    )
    assert order_of(read_run(tmp_path / "run")) == {
        "q2": ["top", "tied-a", "tied-b", "same-rank-first", "same-rank-second", "low"],
        "q1": ["only"],
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q Q0 e 2 1.0", "5 columns"),
        ("q Q0 e 2 1.0 my tag", "7 columns"),
        ("q Q0 e second 1.0 t", "rank 'second' is not a whole number"),
        ("q Q0 e 2 high t", "score 'high' is not a number"),
        # What Python takes for numbers, and trec_eval does not.
        ("q Q0 e 1_0 1.0 t", "rank '1_0' is not a whole number"),
        ("q Q0 e ١ 1.0 t", "rank '١' is not a whole number"),
        ("q Q0 e 2 1_0 t", "score '1_0' is not a number"),
        ("q Q0 e 2 ١ t", "score '١' is not a number"),
        ("q Q0 e 2 nan t", "score 'nan' is not finite"),
        ("q Q0 e 2 -inf t", "score '-inf' is not finite"),
        ("q Q0 d 2 1.0 t", "document 'd' occurs twice in query 'q'"),
    ],
)
def test_malformed_lines_are_named_by_file_and_number(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "bad.trec"
    path.write_text(f"q Q0 d 1 3.0 t\n\n{line}\n")

    with pytest.raises(DataFileError) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.trec", None, "does not exist"),
        ("", None, "can't read run file"),
        ("plain.trec.gz", b"q Q0 d 1 3.0 t\n", r"plain\.trec\.gz:1: damaged gzip data"),
        ("cut.trec.gz", gzip.compress(b"".join(b"q Q0 d%d 1 3.0 t\n" % n for n in range(5000)))[:9000], "gz:.*damaged"),
        ("latin.trec", b"q Q0 d 1 3.0 t\nq Q0 \xe9 1 3.0 t\n", r"latin\.trec:2: not UTF-8"),
    ],
)
def test_files_that_can_not_be_read_are_errors_of_ours(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_run(tmp_path / name)


def test_a_dash_means_the_standard_streams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run({"q": (RunEntry("a", 1.0),)}, "-", tag="t")
    written = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(written.encode())))
    assert written == "q Q0 a 1 1 t\n"
    assert read_run("-") == {"q": (RunEntry("a", 1.0),)}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_failure_keeps_the_finished_queries(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / f"run.trec{suffix}"
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError), RunWriter(output) as writer:
        writer.write("q1", [RunEntry("a", 1.0)])
        assert suffix or writer.partial.read_text() == "q1 Q0 a 1 1 r1ranker\n"
        writer.write("q2", [RunEntry("b", 1.0)])
        raise RuntimeError("the server went away")
    assert not output.exists()
    assert f"the 2 finished queries are kept in {writer.partial}" in caplog.text
    content = writer.partial.read_bytes()
    assert (gzip.decompress(content) if suffix else content).decode().splitlines() == [
        "q1 Q0 a 1 1 r1ranker",
        "q2 Q0 b 1 1 r1ranker",
    ]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("a", 1.0), ("a", 0.5)], "document 'a' occurs twice"),
        ([("a", 1.0), ("b", 2.0)], "score of document 'b', query 'q', is above"),
        ([("a", float("nan"))], "is not a finite float32"),
        ([("a", 1e300)], "is not a finite float32"),
        ([("a", -3.4028234663852886e38), ("b", -3.4028234663852886e38)], "reach the end of float32's range"),
    ],
)
def test_what_a_run_can_not_hold_is_refused(tmp_path: Path, entries: list[tuple[str, float]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_run({"q": tuple(RunEntry(*entry) for entry in entries)}, tmp_path / "run")


def test_a_query_is_written_once_and_a_writer_must_be_open(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")
    with pytest.raises(InputError, match="not open"):
        writer.write("other", [])
    with writer:
        writer.write("q", [RunEntry("a", 1.0)])
        with pytest.raises(InputError, match="query 'q' is written twice"):
            writer.write("q", [RunEntry("b", 1.0)])


@pytest.mark.parametrize(
    ("name", "tag", "said"),
    [
        (".", "t", "is a folder"),
        ("none/run", "t", "does not exist: create it first"),
        ("run", "my run", "is not one word"),
    ],
)
def test_bad_outputs_are_refused_before_any_work(tmp_path: Path, name: str, tag: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        RunWriter(tmp_path / name, tag=tag)


def test_a_full_disk_is_said_and_keeps_whole_queries(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = small_disk / "run.trec"
    written = 0
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(StorageError, match=r"can't go on writing .*run\.trec\.partial': No space left on device"),
        RunWriter(output) as writer,
    ):
        for written in range(10_000):
            writer.write(f"q{written}", [RunEntry(f"d{place}", 1 - place / 100) for place in range(100)])
    kept = read_run(writer.partial)
    assert list(kept) == [f"q{number}" for number in range(written)]
    assert {len(entries) for entries in kept.values()} == {100}
    assert f"the {written} finished queries are kept in {writer.partial}" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    # What was not written is still in its buffer when it is closed.
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(StorageError, match="can't write to standard output: No space left"):
            write_run({"q": (RunEntry("a", 1.0),)}, "-")
