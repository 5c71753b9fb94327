"""Traces: what is written is what is read, what went wrong is named, and one ranking can be looked at."""

from __future__ import annotations

import gzip
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from r1ranker_ir.errors import DataFileError, InputError
from r1ranker_ir.prompts.digest import digest_of_messages
from r1ranker_ir.runs.traces import TracedRanking, TraceWriter, find_rankings, read_trace, trace_of
from r1ranker_ir.types import CLOSED_AT, Candidate, Message, Ranking, RankingRequest, Step, Usage

ANYTHING = st.text(st.characters(), max_size=20)


def ranking_of(query_id: str = "q", count: int = 3) -> Ranking:
    """An elimination from behind that names its documents a, b, c."""
    candidates = tuple(Candidate(letter, f"{letter} of {query_id}") for letter in "abcdef"[:count])
    shown = [tuple(range(length)) for length in range(count, 1, -1)]
    steps = tuple(
        Step(each, each[-1:], "why", f"<think>why</think>[{len(each)}]", None, False, False, 0, Usage(1, 10, 2), "f00")
        for each in shown
    )
    return Ranking(RankingRequest(f"query {query_id}", candidates, query_id=query_id), tuple(range(count)), steps)


def write(path: Path, *rankings: Ranking, strategy: str = "iterative") -> Path:
    with TraceWriter(path, strategy) as writer:
        for ranking in rankings:
            writer.write(ranking)
    return path


@st.composite
def rankings(draw: st.DrawFn, strategy: str) -> Ranking:
    """Rankings with texts of all kinds; their steps only have to fit the strategy."""
    ids = draw(st.lists(ANYTHING, min_size=1, max_size=4, unique=True))
    steps = []
    for _ in range(draw(st.integers(0, 2))):
        shown = draw(st.lists(st.sampled_from(range(len(ids))), min_size=1, unique=True))
        outcome = draw(st.permutations(shown)) if strategy == "direct" else [draw(st.sampled_from(shown))]
        chances = draw(st.none() | st.dictionaries(st.sampled_from(shown), st.floats(0, 1)))
        flags = draw(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)))
        usage = Usage(1, *draw(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))))
        hashed = digest_of_messages([Message("user", draw(ANYTHING))])[:16]
        steps.append(Step(tuple(shown), tuple(outcome), draw(ANYTHING), draw(ANYTHING), chances, *flags, usage, hashed))
        closed_at = draw(st.sampled_from([None, *CLOSED_AT]))
        steps[-1] = replace(steps[-1], cut_query=draw(st.booleans()), closed_at=closed_at)
    candidates = tuple(Candidate(doc_id, draw(ANYTHING)) for doc_id in ids)
    query = draw(ANYTHING.filter(str.strip))
    task = draw(st.sampled_from(["passage", "item", "model"]))
    request = RankingRequest(query, candidates, task, query_id=draw(ANYTHING), aim=draw(ANYTHING))
    return Ranking(request, tuple(draw(st.permutations(range(len(ids))))), tuple(steps))


@settings(deadline=None)
@given(data=st.data(), strategy=st.sampled_from(["iterative", "direct"]), suffix=st.sampled_from(["", ".gz"]))
def test_what_is_written_is_what_is_read(data, strategy, suffix, tmp_path_factory):
    written = data.draw(st.lists(rankings(strategy), max_size=3))
    path = write(tmp_path_factory.mktemp("trace") / f"trace.jsonl{suffix}", *written, strategy=strategy)
    assert list(read_trace(path)) == [TracedRanking(strategy, ranking) for ranking in written]
    content = gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()
    assert len(content.splitlines()) == len(written)


def test_a_line_names_documents_in_place_of_positions():
    text, usage = "<think>why</think><answer>[2]</answer>", {"calls": 1, "prompt_tokens": 20, "completion_tokens": 5}
    step = Step((2, 0), (0,), "why", text, {0: 0.75, 2: 0.25}, True, True, 1, Usage(**usage), "0123456789abcdef")
    candidates = tuple(Candidate(f"d{place}", f"text {place}") for place in range(3))
    line = trace_of(Ranking(RankingRequest("query", candidates, query_id="q"), (1, 2, 0), (step,)), "iterative")
    asked = {"query_id": "q", "query": "query", "task": "passage", "aim": "", "strategy": "iterative"}
    answered = {"thought": "why", "text": text, "probabilities": [0.25, 0.75], "repaired": True, "thought_closed": True}
    shown = {"prompt_hash": "0123456789abcdef", "shown": ["d2", "d0"], "outcome": ["d0"]}
    assert json.loads(json.dumps(line)) == {
        **asked,
        "texts": {"d0": "text 0", "d1": "text 1", "d2": "text 2"},
        "order": ["d1", "d2", "d0"],
        "repairs": 1,
        "usage": usage,
        "steps": [{**shown, **answered, "cut_passages": 1, "cut_query": False, "usage": usage}],
    }


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_failure_keeps_the_finished_queries(tmp_path, suffix, caplog):
    path = write(tmp_path / f"trace.jsonl{suffix}", ranking_of("earlier"))
    earlier = path.read_bytes()
    partial = Path(f"{path}.partial")
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError), TraceWriter(path, "iterative") as writer:
        writer.write(ranking_of("q"))
        writer.write(ranking_of("r"))
        raise RuntimeError("the server went away")
    assert path.read_bytes() == earlier
    assert f"stopped early: the 2 finished queries are kept in {partial}" in caplog.text
    assert [traced.ranking for traced in read_trace(partial)] == [ranking_of("q"), ranking_of("r")]
    caplog.clear()
    write(path, ranking_of("new"))
    assert f"{partial} is of a run that was stopped: it is begun again" in caplog.text
    assert not partial.exists()
    with pytest.raises(RuntimeError), TraceWriter(path, "iterative"):
        raise RuntimeError
    assert not partial.exists()
    assert [traced.ranking for traced in read_trace(path)] == [ranking_of("new")]


def test_a_compressed_trace_is_the_same_file_each_time(tmp_path, monkeypatch):
    first = write(tmp_path / "trace.jsonl.gz", ranking_of()).read_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert write(tmp_path / "trace.jsonl.gz", ranking_of()).read_bytes() == first


def dying(path: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """A process that writes a trace and does not come to its end."""
    script = [
        "import os, random, resource, signal, sys; sys.path[:0] = sys.argv[2:]; from test_traces import *",
        "with TraceWriter(sys.argv[1], 'iterative') as writer:",
        *(f"    {line}" for line in lines),
    ]
    folders = Path(__file__).parent, Path(__file__).parents[1]
    return subprocess.run([sys.executable, "-c", "\n".join(script), path, *folders], capture_output=True, text=True)


def finished(path: Path) -> tuple[list[Ranking], str]:
    """What a run that was stopped has left, and how it ends."""
    read: list[Ranking] = []
    try:
        for traced in read_trace(f"{path}.partial"):
            read.append(traced.ranking)
    except DataFileError as error:
        return read, str(error)
    return read, ""


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_written_is_there_when_the_process_is_killed(tmp_path, suffix):
    path = tmp_path / f"trace.jsonl{suffix}"
    dying(path, *(f"writer.write(ranking_of({name!r}))" for name in "qr"), "os.kill(os.getpid(), signal.SIGKILL)")
    read, end = finished(path)
    assert read == [ranking_of("q"), ranking_of("r")]
    assert bool(re.search(r"trace\.jsonl\.gz\.partial:3: damaged gzip data .*end-of-stream", end)) == bool(suffix)
    with pytest.raises(InputError, match=r"a run that was stopped left '.*\.partial'"):
        list(read_trace(path))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_full_disk_keeps_whole_lines(tmp_path, suffix):
    path = tmp_path / f"trace.jsonl{suffix}"
    writing = "for number in range(1000): print(number, flush=True), writer.write(ranking_of(str(random.random())))"
    done = dying(path, "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))", writing)
    count = int(done.stdout.split()[-1])
    read, end = finished(path)
    assert (f"partial:{count + 1}: damaged gzip data" in end) == bool(suffix)
    assert re.search(r"StorageError: can't go on writing .*File too large: make room, or choose another", done.stderr)
    assert f"the {count} finished queries are kept" in done.stderr
    assert len(read) == count > 10
    assert not path.exists()


# --- reading --------------------------------------------------------------------------------------------------------


def test_joined_files_are_read_like_one(tmp_path):
    one, two = write(tmp_path / "1", ranking_of("q"), ranking_of("r")), write(tmp_path / "2", ranking_of("q", 2))
    (tmp_path / "joined").write_bytes(one.read_bytes() + b"\n" + two.read_bytes())
    assert list(read_trace(tmp_path / "joined")) == [*read_trace(one), *read_trace(two)]
    found, ids = find_rankings(tmp_path / "joined", "q")
    assert [traced.ranking for traced in found] == [ranking_of("q"), ranking_of("q", 2)]
    assert ids == ["q", "r", "q"]


def change(**fields: Any) -> Callable[[Any], Any]:
    return lambda line: line | fields


def change_step(**fields: Any) -> Callable[[Any], Any]:
    return lambda line: line | {"steps": [line["steps"][0], line["steps"][1] | fields]}


def leave_out(name: str) -> Callable[[Any], Any]:
    return lambda line: {key: value for key, value in line.items() if key != name}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change(query_id=3), "field 'query_id' is 3: give a text"),
        (change(query=" "), "field 'query' is ' ': give at least one word"),
        (leave_out("query"), "field 'query' is missing"),
        (change(task="essay"), "field 'task' is 'essay': it must be 'passage', 'item' or 'model'"),
        (change(strategy="heap"), "field 'strategy' is 'heap': use one of iterative, direct, setwise, pointwise"),
        (change(strategy="direct"), r"field 'steps\[0\].outcome' is \['c'\]: direct names 3 of the documents shown"),
        (change(texts={}), "field 'order' names 'a', of which texts has no text"),
        (change(order=["a", "b"]), "field 'order' names 2 of the 3 documents of texts"),
        (change(order=["a", "b", "b"]), "field 'order' names a document twice"),
        (change(usage={"calls": 9, "prompt_tokens": 20, "completion_tokens": 4}), "but the steps make {'calls': 2"),
        (change_step(grade=float("nan")), r"field 'steps\[1\].grade' is nan: give a finite number"),
        (change_step(marked=["c"]), r"field 'steps\[1\].marked' is \['c'\]: name documents that are shown"),
        (change(notes=[1]), r"field 'notes\[0\]' is 1: give a text"),
        (change(repairs=1), "field 'repairs' is 1, but the steps make 0"),
        (change(steps={}), "field 'steps' is {}: give a list"),
        (change(steps=["a"]), r"field 'steps\[0\]' is 'a': give an object with prompt_hash, shown"),
        (change_step(shown=["x"]), r"field 'steps\[1\].shown' names 'x', of which texts has no text"),
        (change_step(shown=["a", "a"]), r"field 'steps\[1\].shown' names a document twice"),
        (change_step(outcome=["a", "b"]), r"outcome' is \['a', 'b'\]: iterative names 1 of the documents shown"),
        (change_step(outcome=["c"]), r"field 'steps\[1\].outcome' is \['c'\]: iterative names 1"),
        (
            change_step(probabilities=[1.0]),
            r"field 'steps\[1\].probabilities' is \[1.0\]: give a number or null for each",
        ),
        (change_step(probabilities=["1", "0"]), r"field 'steps\[1\].probabilities\[0\]' is '1': give a number"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, changed, said):
    line = trace_of(ranking_of("q"), "iterative")
    (tmp_path / "trace").write_text(f"{json.dumps(line)}\n\n{json.dumps(changed(line))}\n")
    lines = read_trace(tmp_path / "trace")
    assert next(lines).ranking == ranking_of("q")
    with pytest.raises(DataFileError, match=said) as caught:
        next(lines)
    assert str(caught.value).startswith(f"{tmp_path / 'trace'}:3: ")


def test_a_line_that_was_cut_off_is_named(tmp_path):
    content = write(tmp_path / "trace", replace(ranking_of("q"), request=replace(ranking_of("q").request, query="½")))
    whole = content.read_bytes()
    for length in range(1, len(whole) - 1, 9):
        content.write_bytes(whole + whole[:length])
        with pytest.raises(DataFileError, match=r"trace:2: the file ends within this line .*Remove the line, or write"):
            list(read_trace(content))
    content.write_bytes(whole + whole[:-1])
    assert len(list(read_trace(content))) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("trace", b"{\n", "trace:1: not valid JSON"),
        ("trace", b"[]\n", "trace:1: .*a JSON list where an object"),
        ("trace", b"{}\n", "trace:1: field 'strategy' is missing"),
        ("trace", b'{"query": "\xe9"}\n', "trace:1: .*not UTF-8"),
        ("trace.gz", b"{}", r"trace\.gz:1: damaged gzip data"),
        ("nowhere", None, r"nowhere' can't be read \(No such file"),
    ],
)
def test_what_is_no_trace_is_said(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        list(read_trace(tmp_path / name))


# --- r1ranker trace show --------------------------------------------------------------------------------------------


def show(*words: object, width: int = 80, code: int = 0) -> str:
    done = r1ranker("trace", "show", *words, width=width, code=code)
    return "".join(f"{line.rstrip().replace(' …', '…')}\n" for line in (done.stderr or done.stdout).splitlines())


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """An elimination whose first answer was repaired, of texts that are as nasty as texts may be."""
    request = RankingRequest(
        "what [red]is\x1b[0m this",
        (
            Candidate("first", "[bold]no markup[/] \x1b[31mred \x07 \u202eturned " + "word " * 300),
            Candidate("x[/]y", "two\nlines\tand half a pair \ud800"),
            Candidate("third", "日本語" * 100),
        ),
        query_id="q[1]",
    )
    steps = (
        Step(
            *((0, 1, 2), (1,), "hard [bold]thinking\n\n  \x1b]0;title\x07", "<think>x</think>\n[2] is \x1b[2J worst"),
            *({0: 0.25, 1: 0.5, 2: 0.25}, True, True, 2, Usage(1, 100, 20), "0123456789abcdef"),
        ),
        Step((0, 2), (2,), "", "[2]", None, False, False, 0, Usage(1, 80, 10), "fedcba9876543210"),
    )
    return write(tmp_path / "trace.jsonl", Ranking(request, (0, 2, 1), steps), ranking_of("q2"), ranking_of("q3"))


def test_a_ranking_is_shown_step_by_step(told):
    lines = show("q[1]", "--trace", told).splitlines()
    assert lines == [
        r"Query q[1]: what [red]is\x1b[0m this",
        "iterative: 3 passages, 2 calls, 180 tokens in, 30 tokens out, 1 repair",
        "",
        "Step 1 of 2   100 tokens in, 20 out · prompt 0123456789abcdef",
        "  ! the answer could not be used as it stood and was repaired",
        "  ! the model did not close its thought (why was not recorded)",
        "  ! 2 passages cut to fit the prompt",
        r"  [1]  first  0.250            [bold]no markup[/] \x1b[31mred \x07 \u202eturned…",
        r"  [2]  x[/]y  0.500  excluded  two lines and half a pair \ud800",
        "  [3]  third  0.250            日本語日本語日本語日本語日本語日本語日本語日本語…",
        "  Thought",
        "    hard [bold]thinking",
        "",
        r"      \x1b]0;title\x07",
        "  Answer",
        r"    [2] is \x1b[2J worst",
        "",
        "Step 2 of 2   80 tokens in, 10 out · prompt fedcba9876543210",
        r"  [1]  first            [bold]no markup[/] \x1b[31mred \x07 \u202eturned word w…",
        "  [2]  third  excluded  日本語日本語日本語日本語日本語日本語日本語日本語日本語…",
        "  Answer",
        "    [2]",
        "",
        "Order, best first",
        r"  1.  first  (was 1)  [bold]no markup[/] \x1b[31mred \x07 \u202eturned word wor…",
        "  2.  third  (was 3)  日本語日本語日本語日本語日本語日本語日本語日本語日本語日…",
        r"  3.  x[/]y  (was 2)  two lines and half a pair \ud800",
        "",
    ]


def test_wide_terminals_see_more_and_narrow_ones_something(told):
    wide, narrow = (show("q[1]", "--trace", told, width=width) for width in (200, 20))
    assert max(map(cell_len, wide.splitlines())) == 200
    assert max(map(cell_len, show("q[1]", "--trace", told).splitlines())) == 80
    assert "[bold]no markup[/]" in narrow


def test_an_ordering_shows_the_places_that_it_gave_and_what_befell_it(tmp_path):
    step = Step((0, 1, 2), (1, 2, 0), "t", "[2]", None, False, True, 0, Usage(1, 9, 1), cut_query=True)
    asked = replace(ranking_of().request, task="item", aim="the film that\nthis viewer [red]watches")
    for closed_at, flag in (
        ("limit", "the thought was closed at its limit"),
        ("end_of_turn", "the model ended its turn within its thought"),
        ("answer", "the model began its answer without closing its thought"),
    ):
        ranking = Ranking(asked, (1, 2, 0), (replace(step, closed_at=closed_at),))
        path = write(tmp_path / "trace.jsonl.gz", ranking, strategy="direct")
        assert [traced.ranking for traced in read_trace(path)] == [ranking]
        lines = show("q", "--trace", path).splitlines()
        assert lines[1] == "Wanted: the film that this viewer [red]watches"
        assert lines[2].startswith("direct: 3 items, 1 call,")
        assert [line for line in lines if "  ! " in line] == [f"  ! {flag}", "  ! the query was cut"]
        assert lines[7:10] == ["  [1]  a  3.  a of q", "  [2]  b  1.  b of q", "  [3]  c  2.  c of q"]


def test_one_step_can_be_shown_alone_and_all_of_it_as_json(told):
    alone = show("q[1]", "--trace", told, "--step", 2)
    assert "Step 2 of 2" in alone and "Step 1" not in alone and "Order" not in alone
    everything = json.loads(show("q[1]", "--trace", told, "--format", "json"))
    assert everything == json.loads(told.read_text(encoding="utf-8").splitlines()[0])
    one = json.loads(show("q[1]", "--trace", told, "--format", "json", "--step", 2))
    named = {"query_id": "q[1]", "query": everything["query"], "strategy": "iterative", "step": 2}
    assert one == named | everything["steps"][1]


def test_all_rankings_of_a_query_in_a_joined_file_are_shown(told):
    told.write_text(told.read_text(encoding="utf-8") * 2, encoding="utf-8")
    shown = show("q2", "--trace", told)
    assert "Ranking 1 of 2 of this query" in shown and "Ranking 2 of 2" in shown
    assert shown.count("Query q2: query q2") == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("q22", "--trace", "trace.jsonl"), 1, "has no query 'q22' among its 3: close ones are q2"),
        (("z", "--trace", "trace.jsonl"), 1, "has no query 'z' among its 3: such as q[1], q2, q3"),
        (("q2", "--trace", "trace.jsonl", "--step", 3), 1, "took 2 model calls"),
        (("q2",), 2, "Missing option '--trace'"),
        (("q2", "--trace", "empty"), 1, "is empty"),
        (("q2", "--trace", "none"), 1, "can't be read (No such file"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(told, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    assert said in show(*words, code=code, width=200)
