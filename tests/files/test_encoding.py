"""Ids and texts of any script: UTF-8 in files and pipes whatever the locale, nothing that acts on a terminal."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import ir_measures
import pytest
import pytrec_eval
from command_server import command_server
from commands import write_corpus
from hypothesis import example, given
from hypothesis import strategies as st

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.long_runs import open_run
from r1ranker_ir.data.trec_runs import RunEntry, read_run, write_run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.files.json_lines import json_lines
from r1ranker_ir.files.terminal_text import visible, visible_json
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

# White space of Unicode that is none of ASCII, and other characters that some readers split lines or columns at.
ODD = "\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\ufeff"
ODD_IDS = [f"q{odd}1" for odd in ODD] + ["Île_1", "東京\u3000一", "\xa0first", "last\u3000", "e\u0301", "🦉"]
HOSTILE = "a\x1b[31mred\x1b]0;title\x07\u202egnp.exe\u2066\x9b2J\x7f\rb"
ENVIRONMENTS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "utf-16"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
]

ids = st.text(st.characters(exclude_characters=" \t\n\r\v\f\0", exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: not text.startswith("\ufeff")
)


def r1ranker(commands: Path, *arguments: str, **options: Any) -> Any:
    return subprocess.run([commands / "r1ranker", *arguments], capture_output=True, **options)


# --- round trips ----------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(ids, st.lists(ids, unique=True, min_size=1, max_size=4), max_size=5), st.sampled_from(["", ".gz"])
)
@example({each: [each, "b"] for each in ODD_IDS}, "")
def test_a_run_is_read_as_it_was_written(tmp_path_factory: Any, documents: dict[str, list[str]], suffix: str) -> None:
    path = tmp_path_factory.mktemp("runs") / f"run.trec{suffix}"
    run = {
        query_id: tuple(RunEntry(doc_id, 10.0 - place) for place, doc_id in enumerate(doc_ids))
        for query_id, doc_ids in documents.items()
    }
    write_run(run, path)
    assert read_run(path) == run
    assert list(read_run(path)) == list(run)
    with open_run(path) as opened:
        assert dict(opened) == run
    # What reads a run as C programs do, byte by byte, finds the same ids.
    content = gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()
    rows = [line.split() for line in content.split(b"\n") if line]
    assert [(row[0].decode(), row[2].decode()) for row in rows] == [
        (query_id, entry.doc_id) for query_id, entries in run.items() for entry in entries
    ]


@pytest.mark.parametrize("space", list(" \t\n\r\v\f\0"))
def test_ids_that_a_run_can_not_hold_are_refused(tmp_path: Path, space: str) -> None:
    for query_id, doc_id in ((f"a{space}b", "d"), ("q", f"a{space}b"), ("q", f"a{space}"), ("", "d"), ("q", "")):
        with pytest.raises(InputError, match="is empty or holds white space"):
            write_run({query_id: (RunEntry(doc_id, 1.0),)}, tmp_path / "run")
    with pytest.raises(InputError, match="is not one word"):
        write_run({}, tmp_path / "run", tag=f"a{space}b")
    for doc_id, said in (("\ufeffd", "begins with a byte order mark"), ("d\ud800", "holds half a surrogate pair")):
        with pytest.raises(InputError, match=said):
            write_run({"q": (RunEntry(doc_id, 1.0),)}, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@given(
    st.dictionaries(st.tuples(ids, ids), st.integers(-2, 4), min_size=1, max_size=8).filter(
        lambda grades: all("\t" not in part for pair in grades for part in pair)
    )
)
@example({(each, f"d{each}"): 1 for each in ODD_IDS})
def test_judgments_are_read_as_they_were_written(tmp_path_factory: Any, grades: dict[tuple[str, str], int]) -> None:
    for name, line in (("qrels.trec", "{} 0 {} {}\n"), ("qrels/test.tsv", "{}\t{}\t{}\n")):
        folder = write_corpus(tmp_path_factory.mktemp("corpora"), {"d": "x"}, {"q": "x"})
        (folder / "qrels").mkdir()
        (folder / name).write_bytes("".join(line.format(*pair, grade) for pair, grade in grades.items()).encode())
        read = {(qrel.query_id, qrel.doc_id): qrel.relevance for qrel in open_corpus(str(folder)).qrels()}
        assert read == grades


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=4), st.text(min_size=1), st.text())
@example(dict.fromkeys(ODD_IDS, HOSTILE), "q\u2028\ud800", "x\ry\u0085z")
def test_a_trace_is_read_as_it_was_written(
    tmp_path_factory: Any, texts: dict[str, str], query_id: str, query: str
) -> None:
    path = tmp_path_factory.mktemp("traces") / "trace.jsonl"
    candidates = tuple(Candidate(doc_id, text or "x") for doc_id, text in texts.items())
    try:
        request = RankingRequest(query or "x", candidates, query_id=query_id)
    except InputError:
        return
    ranking = Ranking(request, tuple(reversed(range(len(candidates)))), ())
    with TraceWriter(path, "iterative") as writer:
        writer.write(ranking)
    if query.strip():
        assert [traced.ranking for traced in read_trace(path)] == [ranking]
    assert len(list(json_lines(path))) == path.read_bytes().count(b"\n") == 1


# --- as trec_eval sees it -------------------------------------------------------------------------------------------


def test_measures_are_trec_evals_where_ids_hold_white_space_of_unicode(tmp_path: Path) -> None:
    queries = dict.fromkeys(ODD_IDS, "x")
    grades = {each: {f"{each}{place}": place % 3 for place in range(6)} for each in ODD_IDS}
    scores = {each: {f"{each}{place}": 1.0 / (1 + (place * 5) % 6) for place in range(6)} for each in ODD_IDS}
    judged = {(query, doc): grade for query, own in grades.items() for doc, grade in own.items()}
    corpus = open_corpus(write_corpus(tmp_path / "corpus", {"d": "x"}, queries, judged))
    run = tmp_path / "run.trec"
    lines = [f"{q} Q0 {d} 1 {score} t\r\n" for q, scored in scores.items() for d, score in scored.items()]
    run.write_bytes("".join(lines).encode())
    measures = parse_measures("nDCG@3 AP P@2 RR")
    ours = evaluate(corpus.qrels(), read_run(run), measures, name="run")
    names = {"nDCG@3": "ndcg_cut_3", "AP": "map", "P@2": "P_2", "RR": "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.3", "map", "P.2", "recip_rank"}).evaluate(scores)
    for query_id in ODD_IDS:
        for measure in measures:
            value = ours.per_query[query_id][ir_measures.parse_measure(str(measure))]
            assert value == pytest.approx(theirs[query_id][names[str(measure)]], abs=1e-9)


# --- pipes and files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = {"Île_1": "puces vivent longtemps", "東京\u3000一": "puces", "b\u2028": "étoile", "🦉": "puces hiboux"}
    judged = {("é\xa01", "Île_1"): 1, ("é\xa01", "東京\u3000一"): 0}
    return write_corpus(tmp_path_factory.mktemp("encoding"), documents, {"é\xa01": "puces"}, judged)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda given: ",".join(map("=".join, given.items())))
def test_pipes_are_utf8_whatever_the_locale_says(
    collection: Path, tmp_path: Path, light_commands: Path, environment: dict[str, str]
) -> None:
    corpus = ("--corpus", str(collection))
    expected = r1ranker(light_commands, "search", *corpus, "--output", "-").stdout
    assert "é\xa01 Q0 🦉".encode() in expected and "東京\u3000一".encode() in expected
    with command_server(**environment) as commands:
        found = r1ranker(commands, "search", *corpus, "--output", "-")
        file = r1ranker(commands, "search", *corpus, "--output", str(tmp_path / "λ.trec"))
        as_json = ("evaluate", *corpus, "-", "--measures", "RR", "--format", "json")
        measured = r1ranker(commands, *as_json, input=expected)
        table = r1ranker(commands, "evaluate", *corpus, str(tmp_path / "λ.trec"), "--measures", "RR")
        wrong = r1ranker(commands, "evaluate", *corpus, "/none/λ.trec")
    assert (found.returncode, found.stdout) == (0, expected), found.stderr
    assert (file.returncode, (tmp_path / "λ.trec").read_bytes()) == (0, expected)
    assert measured.returncode == 0, measured.stderr
    assert list(json.loads(measured.stdout.decode("utf-8"))[0]["per_query"]) == ["é\xa01"]
    assert table.returncode == 0, table.stderr
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(b"Error: run file '/none/") and b"Traceback" not in wrong.stderr


# --- terminals ------------------------------------------------------------------------------------------------------


def on_a_terminal(commands: Path, *arguments: str) -> str:
    """Runs a command with a terminal as its standard output and error; gives what the terminal gets."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs}
    got = b""
    with subprocess.Popen([commands / "r1ranker", *arguments], **streams), open(ours, "rb", buffering=0) as terminal:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the terminal has ended
            while piece := terminal.read(65536):
                got += piece
    return got.decode("utf-8", "replace")


def acts_on_a_terminal(text: str) -> list[str]:
    """What a terminal would obey, but for colours and bars of our own, and ends of lines."""
    ours = re.sub(r"\x1b\[[\d;]*m|\x1b\[A|\r+\n", "", text)
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]", ours)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a run and a trace whose ids and texts try to take over the terminal."""
    place = tmp_path_factory.mktemp("hostile")
    odd = re.sub(r"\s", "", HOSTILE)
    text, judged = f"flea {HOSTILE}", {(odd, "d"): 1, ("x", "d"): 1}
    write_corpus(place / "corpus", {odd: text, "d": "flea"}, {odd: text}, judged)
    write_run({odd: (RunEntry(odd, 1.0),), f"{odd}2": (RunEntry(odd, 1.0),)}, place / f"run{odd}")
    with TraceWriter(place / "trace.jsonl", "iterative") as writer:
        request = RankingRequest(HOSTILE, (Candidate(HOSTILE, HOSTILE), Candidate("d", "x")), query_id="q")
        writer.write(Ranking(request, (0, 1), ()))
        writer.write(Ranking(RankingRequest("x", (Candidate("d", "x"),), query_id=HOSTILE), (0,), ()))
    (place / "wrong.toml").write_text(f"{json.dumps(HOSTILE)} = [", encoding="utf-8")
    return place


COMMANDS = {
    "table": ("evaluate", "--corpus", "{corpus}", "{run}"),
    "json": ("evaluate", "--corpus", "{corpus}", "{run}", "--format", "json"),
    "markdown": ("compare", "--corpus", "{corpus}", "--baseline", "{run}", "{run}", "--format", "markdown"),
    "run": ("search", "--corpus", "{corpus}", "--output", "-"),
    "device": ("search", "--corpus", "{corpus}", "--output", "/dev/stdout"),
    "trace": ("trace", "show", "q", "--trace", "{trace}"),
    "trace json": ("trace", "show", "q", "--trace", "{trace}", "--format", "json"),
    "trace error": ("trace", "show", "none", "--trace", "{trace}"),
    "prompt": ("prompt", "show", "--query", HOSTILE, "--document", HOSTILE, "--document", "b", "--published"),
    "no corpus": ("evaluate", "--corpus", f"/none/{HOSTILE}", "{run}"),
    "no run": ("evaluate", "--corpus", "{corpus}", f"/none/{HOSTILE}"),
    "usage": ("search", "--corpus", "{corpus}", "--depth", HOSTILE, "--output", "-"),
    "option": ("search", f"--{HOSTILE}"),
    "verb": (HOSTILE,),
    "template": ("prompt", "show", "{wrong}"),
    "missing": ("rerank", "--corpus", "{corpus}", "--run", "{run}", "--reranker", HOSTILE, "--output", "/none/x"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_acts_on_a_terminal(hostile: Path, light_commands: Path, command: str) -> None:
    names = {
        "corpus": hostile / "corpus",
        "run": next(hostile.glob("run*")),
        "trace": hostile / "trace.jsonl",
        "wrong": hostile / "wrong.toml",
    }
    said = on_a_terminal(light_commands, *(word.format(**names) for word in COMMANDS[command]))
    assert said.strip()
    assert "Traceback" not in said
    assert acts_on_a_terminal(said) == []
    assert "\x1b[31m" not in said.replace("\x1b[31mred", "") or "red" not in said


def test_a_terminal_of_few_characters_gets_escapes(collection: Path) -> None:
    with command_server(PYTHONIOENCODING="ascii") as commands:
        said = on_a_terminal(commands, "search", "--corpus", str(collection), "--output", "-")
    assert "\\xe9" in said and "\\U0001f989" in said
    assert "Traceback" not in said


def test_pipes_get_data_as_they_are(hostile: Path, light_commands: Path) -> None:
    odd, corpus = re.sub(r"\s", "", HOSTILE), ("--corpus", str(hostile / "corpus"))
    assert odd.encode() in r1ranker(light_commands, "search", *corpus, "--output", "-").stdout
    measured = r1ranker(light_commands, "evaluate", *corpus, str(next(hostile.glob("run*"))), "--format", "json")
    assert odd in json.loads(measured.stdout)[0]["per_query"]


@given(st.text())
@example(HOSTILE)
def test_visible_text_holds_no_control_and_json_keeps_its_meaning(text: str) -> None:
    assert acts_on_a_terminal(visible(text).replace("\t", "").replace("\n", "")) == []
    assert visible(visible(text)) == visible(text)
    written = json.dumps({text: text}, ensure_ascii=False, indent=1)
    assert acts_on_a_terminal(visible_json(written).replace("\n", "")) == []
    assert json.loads(visible_json(written)) == {text: text}
