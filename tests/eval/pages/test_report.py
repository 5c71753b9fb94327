"""The report as a file: what it holds, what is escaped, which trace tells of which run, and what thoughts quote."""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import COLLECTION, r1ranker, said
from hypothesis import given
from hypothesis import strategies as st
from made import HOSTILE, drawn, eliminated, write_all

from r1ranker_ir.eval.pages.chunks import packed, page_json, utf16_length
from r1ranker_ir.eval.pages.quotes import Passages
from r1ranker_ir.eval.pages.traced import settling, traced_data
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage


class Scripts(HTMLParser):
    """The contents of script elements by id, as a browser would split them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.contents: dict[str, str] = {}
        self.tags: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "style") for name, _ in attrs), (tag, attrs)
        self._open = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.contents[self._open] = self.contents.get(self._open, "") + data


def unpacked(piece: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(piece), -zlib.MAX_WBITS))


def report(folder: Path, *more: object, code: int = 0) -> Any:
    given = ("report", *more, "--output", folder / "report.html")
    corpus = () if "--corpus" in more else ("--corpus", folder / "corpus")
    return r1ranker(*given, *corpus, code=code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_all(tmp_path, list(drawn(3, 5, 12)))
    return tmp_path


def test_a_report_holds_runs_queries_and_rankings(folder: Path) -> None:
    done = report(folder, folder / "first.trec", folder / "ranked.trec", "--traces", folder / "trace.jsonl")
    path = folder / "report.html"
    assert re.search(r"report.html: 0\.\d MB", said(done)) and path.stat().st_mode & 0o777 == 0o600
    page = path.read_text()
    found = Scripts(page).contents
    overview = json.loads(found["data"])
    assert overview["runs"] == [{"name": "first", "trace": None}, {"name": "ranked", "trace": 0}]
    assert [row["id"] for row in overview["queries"]] == ["q0", "q1", "q2"]
    assert overview["queries"][0]["costs"] == [{"repairs": 0, "tokens": 40 * 14 + 30 * 4, "calls": 4}]
    query, traced = unpacked(found["q1"]), unpacked(found["t0-1"])
    ids = [each["id"] for each in query["candidates"]]
    assert ids == [f"d1-{place}" for place in range(5)] and query["ranks"][0] == [1, 2, 3, 4, 5]
    assert [each["grade"] for each in query["candidates"]] == [None, 3, 2, 1, 0]
    assert [query["ranks"][1][each] for each in traced["after"]] == [1, 2, 3, 4, 5]
    assert sorted(traced["left"]) == sorted(traced["after"][1:]) and len(traced["steps"]) == 4
    step = traced["steps"][0]
    [quote] = step["quotes"]
    assert (
        quote[0] == step["outcome"][0] and query["candidates"][quote[0]]["text"][quote[1] : quote[2]] in step["thought"]
    )
    assert "Means over 3 judged queries, with 95% intervals" in page and "p (Holm)" in page
    assert "default-src 'none'; script-src 'sha256-" in page and "http://www.w3.org/2000/svg" in page
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page) == []


def test_hostile_texts_stay_text_and_long_ones_are_cut(tmp_path: Path) -> None:
    texts = {f"d{number}": text for number, text in enumerate(HOSTILE)}
    write_all(tmp_path, [eliminated("q<b>", HOSTILE[0], texts, list(texts))])
    report(tmp_path, "--traces", tmp_path / "trace.jsonl")
    page = (tmp_path / "report.html").read_text()
    read = Scripts(page)
    assert read.tags.count("script") == 4 and "img" not in read.tags and len(page) < 200_000
    assert json.loads(read.contents["data"])["runs"][0]["name"] == "input order"
    shown = [each["text"] for each in unpacked(read.contents["q0"])["candidates"]]
    assert shown[0] == HOSTILE[0] and "\\u202egnitirw" in shown[2] and "\u202e" not in shown[2]
    assert shown[3].endswith("[cut here: 1,050,000 characters in all]")


def test_a_trace_that_no_run_ends_with_makes_a_run_of_its_own(folder: Path) -> None:
    report(folder, folder / "first.trec", "--traces", folder / "trace.jsonl")
    names = json.loads(Scripts((folder / "report.html").read_text()).contents["data"])["runs"]
    assert [each["name"] for each in names] == ["first", "trace"]


def test_judgments_of_a_file_and_runs_without_a_trace(folder: Path) -> None:
    (folder / "own.qrels").write_text("q1 0 d1-4 1\n")
    report(folder, folder / "first.trec", "--qrels", folder / "own.qrels", "--measures", "RR@10", "--depth", 2)
    found = Scripts((folder / "report.html").read_text()).contents
    assert [row["values"] for row in json.loads(found["data"])["queries"]] == [[[0.2]]]
    query = unpacked(found["q0"])
    assert [each["id"] for each in query["candidates"]] == ["d1-0", "d1-1"] and query["candidates"][0]["text"]


def test_without_scipy_there_are_means_without_intervals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    report(folder, folder / "first.trec", folder / "ranked.trec")
    assert "Without intervals and tests" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "nothing to report on: give at least one run, or a trace"),
        (("--traces", "empty.jsonl"), "is empty: give the trace of a run"),
        (("--traces", "trace.jsonl", "--qrels", "none"), "qrels file 'none' does not exist"),
        (("--traces", "trace.jsonl", "--corpus", COLLECTION), "none of its 3 queries is judged"),
        (("--traces", "trace.jsonl", "--calibration", "corpus"), "holds no r1ranker.json"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty.jsonl").touch()
    assert expected in said(report(folder, *words, code=1))


def test_where_candidates_settle() -> None:
    def step(shown: tuple[int, ...], outcome: int, confidence: float | None = None) -> Step:
        return Step(shown, (outcome,), "", "", None, False, False, 0, Usage(1), confidence=confidence)

    request = RankingRequest("q", tuple(Candidate(name, name) for name in "abcd"))
    ended = Ranking(request, (0, 1, 2, 3), (step((0, 1, 2, 3), 3), step((0, 1, 2), 2)))
    assert settling(ended, "worst") == ({0: 2, 1: 2, 2: 2, 3: 1}, [2, 3])
    assert settling(ended, "best")[1] == []
    voted = Ranking(request, (0, 1, 2, 3), (step((0, 1, 2, 3), 2, 0.5), step((0, 1, 2), 2, 1.0)))
    assert settling(voted, "worst")[1] == [2, 3]
    assert settling(Ranking(request, (0, 1, 2, 3)), "worst") == (dict.fromkeys(range(4), 0), [])


def test_quotations_are_four_words_that_the_query_does_not_say() -> None:
    text = "Fleas jump far, and a flea lives for two months. 跳蚤跳得很远"
    passages = Passages("a flea lives for long", {0: text, 1: "Stars shine."})

    def quoted(thought: str) -> list[str]:
        return [text[each.start : each.end] for each in passages.quoted_by(thought, (0, 1))]

    assert quoted("It says FLEAS jump far and a flea, hm") == ["Fleas jump far, and a flea"]
    assert quoted("a flea lives for") == [] and quoted("jump far, and") == []
    assert quoted("“跳蚤跳得很”") == ["跳蚤跳得很"]
    assert passages.quoted_by("Fleas jump far, and", (1,)) == []


@given(words=st.lists(st.text(min_size=1, max_size=4), max_size=30), thought=st.text(max_size=60))
def test_quotations_lie_within_their_texts_and_apart(words: list[str], thought: str) -> None:
    text = " ".join(words)
    found = Passages("", {7: text}).quoted_by(f"{thought} {text}", (7,))
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(one.end < other.start for one, other in pairwise(found))


@given(
    st.recursive(st.text() | st.none() | st.integers(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
)
def test_data_come_back_and_end_no_element(content: Any) -> None:
    assert "<" not in page_json(content) and json.loads(page_json(content)) == content
    assert unpacked(packed(content)) == content


def test_offsets_are_those_of_scripts() -> None:
    assert utf16_length("a😀b") == 4
    text = "😀 one two three four five"
    traced = eliminated("q", "q", {"a": "x", "b": text}, ["a", "b"])
    [quote] = traced_data(traced, {0: 0, 1: 1}, {0: "x", 1: text})["steps"][0]["quotes"]
    assert text.encode("utf-16-le")[2 * quote[1] : 2 * quote[2]].decode("utf-16-le") == "one two three four five"
